"""A session over a websocket: every message is a piece of one stream, whose number is its first byte.

The subprotocols are `channel.k8s.io` and `v4.channel.k8s.io`, each also in base64 with a digit for the number, and
`v5.channel.k8s.io`, in which the caller can end a stream (KEP-4006): byte 255, then the stream's number.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Container, Coroutine
from typing import Any

from aiohttp import WSMsgType, web

from wasmlet.clock import Clock
from wasmlet.kubelet.sessions import WRITE_BYTES, CallerLeft, Carrier, Held, Inbox, SessionError, Timeouts

V4 = "v4.channel.k8s.io"
V5 = "v5.channel.k8s.io"
BASE64 = "v4.base64.channel.k8s.io"
EARLY = "channel.k8s.io"
EARLY_BASE64 = "base64.channel.k8s.io"
CLOSE = 255
MOST_CHANNELS = 255


class ChannelStream:
    """One channel."""

    def __init__(self, session: ChannelSession, number: int, held: Held) -> None:
        self.number = number
        self.inbox = Inbox(held)
        self._session = session

    async def read(self) -> bytes:
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        """Send bytes; with none, an empty message, which tells the caller that the connection is there."""
        for at in range(0, len(data) or 1, WRITE_BYTES):
            await self._session.send(self.number, data[at : at + WRITE_BYTES])

    async def end(self) -> None:
        """Does nothing: this protocol has no message that tells the caller."""


class ChannelSession(Carrier):
    """A fixed number of streams; what is sent on others is passed over, as a kubelet does.

    Args:
        socket: prepared; closing it is its owner's.
        count: how many streams there are.
        read: the numbers of those that are read from the caller; what it sends on the rest is dropped.
    """

    def __init__(
        self, socket: web.WebSocketResponse, count: int, read: Container[int], clock: Clock, timeouts: Timeouts
    ) -> None:
        super().__init__(clock, timeouts)
        self._socket = socket
        self._base64 = socket.ws_protocol in (BASE64, EARLY_BASE64)
        self._closes = socket.ws_protocol == V5
        self._held = Held()
        self.streams = [ChannelStream(self, number, self._held) for number in range(count)]
        for stream in self.streams:
            if stream.number not in read:
                stream.inbox.discard()

    async def send(self, number: int, data: bytes) -> None:
        try:
            if self._base64:
                await self._socket.send_str(chr(ord("0") + number) + base64.b64encode(data).decode())
            else:
                await self._socket.send_bytes(bytes([number]) + data)
        except (ConnectionError, RuntimeError):
            # The session ends, which cancels this writer; an error raised here could interrupt its cleaning up.
            await asyncio.Event().wait()
        self.touch()

    def movers(self) -> list[Coroutine[Any, Any, None]]:
        return [self._read()]

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                raise CallerLeft("the caller hung up")
            self.touch()
            data = message.data.encode() if message.type is WSMsgType.TEXT else bytes(message.data)
            if data:
                self._on(data)
            # A caller that gets no answer to its pings gives up, and they cannot be read now.
            await self._held.room(self.clock, self.timeouts.beat, self._socket.pong)

    def _on(self, data: bytes) -> None:
        number, data = data[0], data[1:]
        if self._closes and number == CLOSE:
            if len(data) != 1 or data[0] >= len(self.streams):
                raise SessionError("expected the number of a channel after a close signal, found something else")
            self.streams[data[0]].inbox.end()
            return
        if self._base64:
            number -= ord("0")
            try:
                data = base64.b64decode(data, validate=True)
            except binascii.Error:
                return
        if 0 <= number < len(self.streams):
            self.streams[number].inbox.feed(data)
