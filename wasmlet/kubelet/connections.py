"""One connection to the node's API: how long its caller may take for the head of each request, and what is logged.

aiohttp limits how long a connection may be idle, but not how long the head of a request may take. It also logs a
traceback for each request that is not HTTP. Anybody can send those, so here they are answered and not logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import hdrs, web

from wasmlet.concurrency import cut

BUFFER_BYTES = 64 * 1024
"""What may wait in a connection for its caller to read, before whoever writes waits too."""
HTTP_LOG = logging.getLogger("wasmlet.kubelet.http")
"""aiohttp's log of what it finds wrong with requests and connections."""
HTTP_LOG.addFilter(lambda record: False)


class Connection(web.RequestHandler):
    """A connection of HTTP/1.1.

    The head of the first request has to be complete so many seconds after the connection was made, that of each later
    one so many seconds after its first byte.

    Args:
        head_seconds: that time.
        options: what aiohttp's own class takes.
    """

    __slots__ = ("_busy", "_head_seconds", "_inside", "_timer")

    def __init__(
        self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, head_seconds: float, **options: Any
    ) -> None:
        super().__init__(manager, loop=loop, logger=HTTP_LOG, access_log=None, **options)  # type: ignore[arg-type]
        self._head_seconds = head_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._inside = False
        """The bytes that came last did not end a request's head, so a head may have begun."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            transport.set_write_buffer_limits(high=BUFFER_BYTES)  # with TLS it would be eight times as much
        self._arm()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inside = not data.endswith((b"\n\r\n", b"\n\n"))
        if self._inside and not self._busy:
            self._arm()
        super().data_received(data)

    def request_begins(self) -> None:
        """The head of a request is complete."""
        self._busy = True
        self._disarm()

    def request_ends(self) -> None:
        """The request is answered, or nearly so."""
        self._busy = False
        if self._inside:
            self._arm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._head_seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        cut(self.transport)


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def timed(serve: Handler) -> Handler:
    """A handler that tells the connection when a request begins and ends; it must be the outermost one."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.request_begins()
        try:
            expected = request.headers.get(hdrs.EXPECT, "100-continue")
            if expected.lower() != "100-continue":  # aiohttp would answer with the word, which may be no text
                return web.Response(status=417, text="Expect: expected 100-continue, found something else")
            return await serve(request)
        finally:
            connection.request_ends()

    return handle
