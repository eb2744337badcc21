"""The host's side of links: connections that agents have opened, and on which the host sends requests.

A `Line` is one link, and `Lines` are those of one agent. Whenever httpcore wants to connect to an agent, `LineBackend`
gives it a link that is free. So `RemoteProvider` drives agents that have joined in the same way as others.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpcore
import httpx
from aiohttp import WSMsgType, web
from wasmlet_agent.protocol.joining import DEAD_SECONDS, MOST_MESSAGE

from wasmlet_remote.network import Backend, PoolTransport

MOST_SPARE = 8
"""Links of one agent that wait; an agent keeps two."""
MOST_LINES = 300
"""Links of one agent."""
BUFFER_BYTES = 256 * 1024
"""What may wait in a link to be read before the agent is held back."""


class Line(httpcore.AsyncNetworkStream):
    """One link, as a network stream of httpcore. `pump` reads it, and runs until it ends."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._in = bytearray()
        self._taken = False
        self._told = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = asyncio.Event()
        self.over = False

    def take(self) -> None:
        """The link is in use from now on."""
        self._taken = True

    def close(self) -> None:
        """End it."""
        self._closing.set()

    async def pump(self) -> None:
        """Read what the agent sends, until either side ends the link."""
        reading = asyncio.ensure_future(self._read())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait([reading, closing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.over = True
            self._told.set()
            for task in (reading, closing):
                task.cancel()
            await asyncio.gather(reading, closing, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            await self._room.wait()
            message = await self._socket.receive(timeout=DEAD_SECONDS)
            if message.type is not WSMsgType.BINARY or not self._taken:
                return  # an agent has nothing to say on a link that nobody uses
            self._in += message.data
            self._told.set()
            if len(self._in) >= BUFFER_BYTES:
                self._room.clear()

    # --- httpcore's side

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        try:
            async with asyncio.timeout(timeout):
                while not self._in and not self.over:
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        data = bytes(self._in[:max_bytes])
        del self._in[:max_bytes]
        if len(self._in) < BUFFER_BYTES:
            self._room.set()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        try:
            async with asyncio.timeout(timeout):
                for start in range(0, len(buffer), MOST_MESSAGE // 2):
                    if self.over:
                        raise httpcore.WriteError("the agent has ended the link")
                    await self._socket.send_bytes(buffer[start : start + MOST_MESSAGE // 2])
        except TimeoutError:
            raise httpcore.WriteTimeout from None
        except (OSError, RuntimeError) as error:
            raise httpcore.WriteError(str(error)) from None

    async def aclose(self) -> None:
        self.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> httpcore.AsyncNetworkStream:
        raise NotImplementedError("a link has TLS below it already")

    def get_extra_info(self, info: str) -> Any:
        return bool(self._in) or self.over if info == "is_readable" else None


class Lines:
    """The links of one agent."""

    def __init__(self) -> None:
        self._spare: deque[Line] = deque()
        self._all: set[Line] = set()
        self._new = asyncio.Event()
        self._opening = 0

    @property
    def full(self) -> bool:
        """Whether a further link is refused."""
        return len(self._spare) + self._opening >= MOST_SPARE or len(self._all) + self._opening >= MOST_LINES

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Reserve a place for a link that is being opened."""
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    def __len__(self) -> int:
        return len(self._all)

    async def keep(self, line: Line) -> None:
        """Offer the link for use, until it ends."""
        self._all.add(line)
        self._spare.append(line)
        self._new.set()
        try:
            await line.pump()
        finally:
            self._all.discard(line)
            with suppress(ValueError):
                self._spare.remove(line)

    async def take(self) -> Line:
        """A link that nobody uses; waits for one."""
        while not self._spare:
            self._new.clear()
            await self._new.wait()
        line = self._spare.pop()
        line.take()
        return line

    def close(self) -> None:
        """End them all."""
        for line in self._all:
            line.close()


class LineBackend(Backend):
    """Connects over the links of one agent, whatever the address."""

    late = "the agent has no link to this host"

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def open(self, host: str, port: int) -> httpcore.AsyncNetworkStream:
        return await self._lines.take()


def transports(lines: Lines) -> Callable[[httpx.Limits], PoolTransport]:
    """What makes httpx use the links of one agent."""
    return lambda limits: PoolTransport(LineBackend(lines), limits)
