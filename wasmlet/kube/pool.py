"""The connections to one API server under one identity: each request takes one and gives it back.

aiohttp's connector opens them, with TLS and through proxies. One that is not used for a minute is closed. A request
that may be repeated is sent once more where the server had ended a kept connection just then (RFC 9112, 9.3.1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from wasmlet.kube.config import Identity
from wasmlet.kube.connections import CONNECT_SECONDS, KEPT_SECONDS, connector, is_socks
from wasmlet.kube.wire import READ_BYTES, Answer, Broken, Connection

_REPEATABLE = frozenset(("GET", "PUT", "DELETE"))
_OURS = "User-Agent: wasmlet\r\nAccept: application/json\r\n"
_LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)


class Pool:
    """Connections with the credentials of one identity; `close` it.

    Args:
        limit: the largest number of requests and streams at a time; 0 means no limit.
    """

    def __init__(self, identity: Identity, *, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._identity = identity
        self._connector = connector(identity.proxy, identity.ssl_context, limit=0)
        proxy = None if identity.proxy is None or is_socks(identity.proxy) else URL(identity.proxy)
        # What aiohttp opens a connection for. It is never sent.
        self._goal = aiohttp.ClientRequest(
            "GET", URL(identity.server), loop=self._loop, proxy=proxy, server_hostname=identity.server_hostname
        )
        # A proxy without a tunnel has to be told where a request is for.
        self._tells_proxy = proxy is not None and identity.ssl_context is None
        prefix = identity.server if self._tells_proxy else URL(identity.server).raw_path.rstrip("/")
        self._prefix = prefix.encode()
        self._lines = f" HTTP/1.1\r\nHost: {self._goal.headers['Host']}\r\n{_OURS}".encode()
        self._slots = asyncio.Semaphore(limit) if limit else None
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._idle: list[Connection] = []
        """The one that was used last is at the end."""
        self._all: set[Connection] = set()
        self._opening: dict[asyncio.Timeout, float] = {}
        """Requests that wait for a connection, with the time at which each began."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False
        self.under_way = 0
        """How many requests and streams have not ended."""

    def cut(self, before: float, when: float) -> None:
        """End what began before a time, if it has not ended at another one (the loop's)."""
        for cut, since in self._opening.items():
            if since < before and not cut.expired() and (cut.when() or when) >= when:
                cut.reschedule(when)
        for connection in self._all:
            connection.cut(before, when)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._connector.close()

    async def ask(self, method: str, target: bytes, more: bytes, *, since: float, seconds: float) -> Answer:
        """Send a request, and return its whole answer.

        Args:
            target: path and query, as they stand in a request.
            more: further header lines, the empty line, and the body.
            since: when it began, for `cut`.
            seconds: how long it may take, with what is needed for a connection.

        Raises:
            Broken, TimeoutError, aiohttp.ClientError, OSError: there is no answer.
        """
        self.under_way += 1
        try:
            due = self._loop.time() + seconds
            connection, answer = await self._answered(method, target, more, since, due)
            self._give_back(connection)
            return answer
        finally:
            self.under_way -= 1

    @asynccontextmanager
    async def stream(self, target: bytes, more: bytes, *, since: float, silence: float | None) -> AsyncIterator[Answer]:
        """GET; the answer's `content` is its body as it arrives.

        Args:
            silence: seconds without a byte after which the connection counts as dead; None means never.

        Raises:
            Broken, TimeoutError, aiohttp.ClientError, OSError: there is no answer.
        """
        self.under_way += 1
        try:
            connection, answer = await self._answered("GET", target, more, since, None, stream=True, silence=silence)
            try:
                yield answer
            finally:
                if answer.content is None or not answer.content.at_eof():
                    connection.abort()  # there is more to come, which nobody waits for
                self._give_back(connection)
        finally:
            self.under_way -= 1

    async def _answered(
        self,
        method: str,
        target: bytes,
        more: bytes,
        since: float,
        due: float | None,
        *,
        stream: bool = False,
        silence: float | None = None,
    ) -> tuple[Connection, Answer]:
        """The answer, and the connection that it came on, which has to be given back."""
        again = method in _REPEATABLE
        ours = await self._identity.lines()
        while True:
            connection = await self._connection(since, due)
            kept = connection.used
            try:
                start = (method.encode(), b" ", self._prefix, target, self._lines)
                request = b"".join((*start, self._to_proxy(), ours, more))
                return connection, await connection.ask(request, since=since, due=due, stream=stream, silence=silence)
            except BaseException as error:
                self._give_back(connection)
                if not (again and kept and connection.untouched and isinstance(error, Broken)):
                    raise
                again = False

    def _to_proxy(self) -> bytes:
        """The line with the credentials for a proxy without a tunnel; aiohttp has told the other proxies."""
        value = self._goal.headers.get("Proxy-Authorization") if self._tells_proxy else None
        return b"" if value is None else f"Proxy-Authorization: {value}\r\n".encode()

    async def _connection(self, since: float, due: float | None) -> Connection:
        """A connection for one request."""
        slots = self._slots
        if (slots is None or not slots.locked()) and (kept := self._kept()) is not None:
            if slots is not None:
                await slots.acquire()  # without a pause, since one is free
            return kept
        async with asyncio.timeout_at(due) as cut:
            self._opening[cut] = since
            try:
                if slots is not None:
                    await slots.acquire()
                try:
                    return self._kept() or await self._opened()
                except BaseException:
                    if slots is not None:
                        slots.release()
                    raise
            finally:
                del self._opening[cut]

    async def _opened(self) -> Connection:
        async with asyncio.timeout(CONNECT_SECONDS):  # a proxy may take the request for a tunnel, and never answer
            opened = await self._connector.connect(self._goal, [], _LIMITS)
        connection = Connection(opened, self._forget, self._buffer)
        self._all.add(connection)
        return connection

    def _kept(self) -> Connection | None:
        """A connection that was used before and can be used again."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and self._loop.time() - connection.idle_since < KEPT_SECONDS:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Connection) -> None:
        if self._slots is not None:
            self._slots.release()
        if self._closed or not connection.usable:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(KEPT_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what was not used for long."""
        now, self._sweeping = self._loop.time(), None
        while self._idle and now - self._idle[0].idle_since >= KEPT_SECONDS:
            self._idle.pop(0).close()
        if self._idle:
            self._sweeping = self._loop.call_later(KEPT_SECONDS, self._sweep)

    def _forget(self, connection: Connection) -> None:
        """The connection has ended."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
