"""Copies bytes both ways between a kubelet and a client whose connection is no longer HTTP, until one of them ends it.

`streams` decides what goes through: the bytes as they are, or the contents of a client's websocket messages. A reader
that is slow slows its sender down: at most one chunk is buffered here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import WSMsgType, web

CHUNK = 64 * 1024
MESSAGE = 4 * 2**20
"""The most bytes of one websocket message."""


class Done(web.StreamResponse):
    """The answer to a request whose connection was taken over: there is nothing to send any more."""

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _Taken(asyncio.StreamReaderProtocol):
    """A client's connection that is no longer HTTP."""

    gone = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        super().connection_lost(exc)


class _Rest:
    """Passes on bytes that came after the head of the request, in place of aiohttp's parser."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self._reader.feed_eof()


@asynccontextmanager
async def taken(request: web.BaseRequest) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The client's connection as a pair of streams; closed at the end, when what was written has gone out.

    Raises:
        ConnectionResetError: the client has gone already.
    """
    transport, http = request.transport, request.protocol
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(CHUNK, loop)
    protocol = _Taken(reader, loop=loop)
    rest: Any = _Rest(reader)
    http.set_parser(rest)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    with suppress(RuntimeError):
        transport.resume_reading()
    try:
        yield reader, asyncio.StreamWriter(transport, protocol, reader, loop)
    finally:
        if protocol.gone:
            loop.call_soon(http.connection_lost, None)
        else:
            transport.set_protocol(http)
            transport.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more, no faster than they are taken."""
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


async def from_socket(socket: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    """Pass on the contents of binary messages until the client closes its websocket."""
    with suppress(ConnectionError):
        while (message := await socket.receive()).type is WSMsgType.BINARY:
            writer.write(message.data)
            await writer.drain()


async def to_socket(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
    """Pass bytes on as binary messages until there are no more."""
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            await socket.send_bytes(data)


async def either(*halves: Awaitable[None]) -> None:
    """Run both directions until one ends: that ends the other, as no half of an upgraded connection is of use alone.

    Raises:
        BaseException: whatever went wrong in the half that ended first.
    """
    tasks = [asyncio.ensure_future(half) for half in halves]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
