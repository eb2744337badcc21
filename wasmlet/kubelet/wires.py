"""What carries the bytes of a SPDY connection: the raw connection after the 101, or a websocket's binary messages."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import WSMsgType, web

from wasmlet.kubelet.sessions import CallerLeft

READ_BYTES = 256 * 1024
WRITE_BYTES = 64 * 1024


class Wire(Protocol):
    """Bytes in order, in both directions. One reader and one writer."""

    async def read(self) -> bytes:
        """The next bytes, never none.

        Raises:
            CallerLeft: there are no more.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the other side takes nothing.

        Raises:
            CallerLeft: the caller is gone.
        """
        ...

    async def flush(self) -> None:
        """Return when everything has been handed to the operating system."""
        ...


class RawWire(asyncio.Protocol):
    """The raw connection, after aiohttp has answered 101. When it is lost, aiohttp's own protocol is told."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._http = transport.get_protocol()
        self._in = bytearray()
        self._told = asyncio.Event()
        """There is something to read, or there will be nothing more."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = transport.is_closing()
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        transport.set_protocol(self)

    # --- asyncio's side

    def data_received(self, data: bytes) -> None:
        self._in += data
        self._told.set()
        if len(self._in) >= READ_BYTES:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._told.set()
        self._writable.set()
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- the session's side

    async def read(self) -> bytes:
        while not self._in:
            if self._lost:
                raise CallerLeft("the caller hung up")
            self._told.clear()
            await self._told.wait()
        data = bytes(self._in)
        self._in.clear()
        if len(data) >= READ_BYTES and not self._lost:
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        if not self._lost:
            self._transport.write(data)
            await self._writable.wait()
        if self._lost:
            raise CallerLeft("the caller hung up")

    async def flush(self) -> None:
        if not self._lost:
            self._transport.set_write_buffer_limits(high=1, low=0)  # with 0, TLS waits for what is not there
            await self._writable.wait()


class TunnelWire:
    """A websocket whose binary messages are pieces of a byte stream (KEP-4006)."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                if message.data:
                    return bytes(message.data)
            elif message.type is not WSMsgType.TEXT:
                raise CallerLeft("the caller hung up")
            else:
                raise CallerLeft("expected binary messages of a tunnel, found text")

    async def write(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (ConnectionError, RuntimeError):
            raise CallerLeft("the caller hung up") from None

    async def flush(self) -> None:
        """Closing the websocket waits for the other side to have read everything."""
