"""The agent's side of links: connections that the agent has opened to its host, and on which it answers requests.

Some links are always spare: they are open, and nothing was asked on them yet. When the host uses one, a new one is
opened. The bytes of a link pass through a pair of sockets to the HTTP server of this process. So a slow reader on one
side slows down the writer on the other side, as with any TCP connection.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
import structlog

from wasmlet.clock import Backoff, Clock, Retries, SystemClock
from wasmlet.concurrency import first_of
from wasmlet.errors import WasmletError
from wasmlet_agent.join.joining import Joined, session
from wasmlet_agent.protocol.joining import DEAD_SECONDS, LINK, MOST_MESSAGE, PING_SECONDS

log = structlog.get_logger(__name__)

SPARES = 2
MOST_LINKS = 256
RETRIES = Backoff(initial=0.2, cap=5.0, jitter=0.5)
REFUSED = Backoff(initial=2.0, cap=15.0, jitter=0.5)
"""Between the tries while the host refuses: somebody has to do something about it, and waits then for the agent."""
DIAL_SECONDS = 15.0
_READ = 32 * 1024


class Refused(WasmletError):
    """The host does not take the agent's key."""


async def _never() -> None:
    await asyncio.Event().wait()


class Links:
    """Keeps spare links to a host.

    Args:
        serve: makes the protocol of a connection of the agent's HTTP server.
        again: joins once more when the host does not know the agent; returns whether that worked.
        mended: returns when there is something new to join with, so that it is tried at once.
    """

    def __init__(
        self,
        joined: Joined,
        serve: Callable[[], asyncio.BaseProtocol],
        clock: Clock | None = None,
        rng: random.Random | None = None,
        again: Callable[[Joined], Awaitable[bool]] | None = None,
        mended: Callable[[], Coroutine[Any, Any, None]] = _never,
    ) -> None:
        self._again = again
        self._mended = mended
        self._joined = joined
        self._serve = serve
        self._clock = clock or SystemClock()
        rng = rng or random.Random()
        self._pauses = Retries(RETRIES, self._clock, rng)
        self._refusals = Retries(REFUSED, self._clock, rng)
        self._told = ""
        """The last warning that was logged about links, so that it is not repeated."""
        self._forgotten = False
        """The agent has joined again, and has had no link since."""
        self._sitting_out = 0
        """Spare links that are not dialled, for another one is refused, too."""
        self._idle: set[Callable[[], None]] = set()
        """What marks a link as used, of those that are open and not used yet."""
        self._taken = asyncio.Event()
        """Set whenever the host takes a link."""
        self._places = asyncio.Semaphore(MOST_LINKS)
        self._spares = asyncio.Semaphore(SPARES)
        self.connected = asyncio.Event()
        """There has been a link."""

    async def run(self) -> None:
        """Keep links for ever."""
        async with session(self._joined) as client, asyncio.TaskGroup() as group:
            while True:
                await self._places.acquire()
                await self._spares.acquire()
                group.create_task(self._one(client))

    async def _one(self, client: aiohttp.ClientSession) -> None:
        """One link, from dialling to its end. It counts as spare until it is used, or has failed."""
        used = asyncio.Event()

        def use() -> None:
            if not used.is_set():
                used.set()
                self._idle.discard(use)
                self._pauses.start_over()
                self._refusals.start_over()
                self._spares.release()

        try:
            failed = await self._attempt(client, use)
            if not used.is_set():
                await self._pause(failed)
        finally:
            if not used.is_set():
                self._spares.release()
            self._places.release()

    async def _attempt(self, client: aiohttp.ClientSession, use: Callable[[], None]) -> Exception | None:
        """Dial, and answer requests until the link ends. Returns the error that ended it, or None."""
        try:
            async with asyncio.timeout(DIAL_SECONDS) as dialling:
                async with client.ws_connect(
                    self._joined.host + LINK.format(name=self._joined.name),
                    headers={"Authorization": f"Bearer {self._joined.key}"},
                    max_msg_size=MOST_MESSAGE,
                    timeout=aiohttp.ClientWSTimeout(ws_close=5.0),
                ) as link:
                    dialling.reschedule(None)
                    self.connected.set()
                    self._taken.set()
                    self._forgotten = False
                    if self._told:
                        log.info("the host has the agent again", host=self._joined.host)
                    self._told = ""
                    self._idle.add(use)
                    try:
                        await self._answer(link, use)
                    finally:
                        self._idle.discard(use)
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                return Refused(f"{self._joined.host} does not know this agent's key (HTTP {error.status})")
            return error
        except (aiohttp.ClientError, OSError) as error:
            return error
        return None

    async def _pause(self, failed: Exception | None) -> None:
        text = str(failed or "the link was closed before it was used") or type(failed).__name__
        if text != self._told:
            log.warning("there is no link to the host, trying again", host=self._joined.host, error=text)
            self._told = text
        if isinstance(failed, Refused):
            if self._sitting_out + len(self._idle) < SPARES - 1:  # another one is dialled
                await self._sit_out()
            elif self._again is None or self._forgotten or not await self._again(self._joined):
                await self._refused()
            else:
                self._forgotten = True
        else:
            await self._pauses.wait()

    async def _sit_out(self) -> None:
        """Wait until the host takes a link again: while it refuses, one is dialled for all."""
        self._taken.clear()
        self._sitting_out += 1
        try:
            await self._taken.wait()
        finally:
            self._sitting_out -= 1

    async def _refused(self) -> None:
        """Wait until there is something new to join with, or the pause is over."""
        pause, mended = (asyncio.ensure_future(wait) for wait in (self._refusals.wait(), self._mended()))
        try:
            await asyncio.wait([pause, mended], return_when=asyncio.FIRST_COMPLETED)
            if mended.done():
                self._refusals.start_over()
                self._forgotten = False
        finally:
            for wait in (pause, mended):
                wait.cancel()

    async def _answer(self, link: aiohttp.ClientWebSocketResponse, use: Callable[[], None]) -> None:
        """Connect the link to the agent's own HTTP server, until either side ends it."""
        ours, servers = socket.socketpair()
        with servers:
            ours.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                await asyncio.get_running_loop().connect_accepted_socket(self._serve, servers.dup())
                await first_of(self._inwards(link, writer, use), _outwards(link, reader), self._pings(link))
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _inwards(
        self, link: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter, use: Callable[[], None]
    ) -> None:
        """Pass on what the host sends.

        A spare link on which nothing comes, not even the answer to a ping, is dead. On one that is used the host may be
        held back for as long as it likes.
        """
        dead: float | None = DEAD_SECONDS
        while True:
            try:
                message = await link.receive(timeout=dead)
            except TimeoutError:
                raise OSError(f"the host was silent for {DEAD_SECONDS:g} s") from None
            if message.type is not aiohttp.WSMsgType.BINARY:
                return
            dead = None
            use()
            writer.write(message.data)
            await writer.drain()

    async def _pings(self, link: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await self._clock.sleep(PING_SECONDS)
            await link.ping()


async def _outwards(link: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(_READ):
        await link.send_bytes(data)
