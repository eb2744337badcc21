"""A websocket to an agent.

It begins as a request of httpx whose answer has the status 101. So it uses the same connections as other requests:
direct ones, or the links of a host.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Protocol

import httpcore
from wasmlet_agent.protocol import BEAT_SECONDS, SILENCE_SECONDS
from wasmlet_agent.protocol.frames import MOST_FRAME, Frame, frame_in, frame_out
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping
from wsproto.utilities import ProtocolError

from wasmlet import InvalidInput
from wasmlet_remote.link import ANSWER_SECONDS, Away, Link, Params

CLOSE_SECONDS = 10.0
"""How long the agent may take to end a call after the caller has left."""
_READ = 64 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What RFC 6455 appends to a key to prove that the other side speaks websockets."""
_BROKEN = (OSError, ProtocolError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


class Network(Protocol):
    """The connection under an answer 101, as httpcore hands it over."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes: ...  # noqa: ASYNC109

    async def write(self, buffer: bytes, timeout: float | None = None) -> None: ...  # noqa: ASYNC109


class WebSocket:
    """A websocket for one reader and any number of writers, which take turns.

    A reader that gets nothing for `SILENCE_SECONDS`, not even a ping, counts the agent as gone.
    """

    def __init__(self, network: Network, url: str) -> None:
        self._network = network
        self._url = url
        self._connection = Connection(ConnectionType.CLIENT)
        self._writing = asyncio.Lock()
        self._frames: list[Frame] = []
        self._message = bytearray()
        self._pong = b""
        """What is owed for the newest ping. It goes out with what is sent next, at the latest with our own ping: who
        waits here for others to write reads nothing meanwhile, and an agent that is not read may read nothing."""
        self._closed = False

    async def send(self, frame: Frame) -> None:
        """Send a frame; waits while the agent takes nothing. Nothing goes to an agent that has ended the call.

        Raises:
            Away: the connection has broken.
        """
        await self._send(BytesMessage(data=frame_out(frame)))

    async def ping(self) -> None:
        """Say that we are here, for ever.

        Raises:
            Away: the connection has broken.
        """
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._send(Ping())

    async def receive(self) -> Frame:
        """The next frame of the agent.

        Raises:
            Away: the connection has broken or was closed, or the agent is silent.
            InvalidInput: the agent sends what this protocol has not.
        """
        while not self._frames:
            if self._closed:
                raise Away(f"agent {self._url}: it ended the stream without a result")
            await self._read()
        return self._frames.pop(0)

    async def close(self) -> None:
        """Leave; returns when the agent has ended the call, or after `CLOSE_SECONDS`."""
        with contextlib.suppress(Away, InvalidInput, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if not self._closed:
                    await self._send(CloseConnection(code=1000))
                while not self._closed:
                    await self._read()
                    self._frames.clear()

    async def _read(self) -> None:
        try:
            data = await self._network.read(_READ, SILENCE_SECONDS)
            self._connection.receive_data(data or None)
        except _BROKEN as error:
            self._closed = True
            raise self._broken(error) from None
        for event in self._connection.events():
            await self._took(event)

    async def _took(self, event: Event) -> None:
        match event:
            case BytesMessage():
                self._message += event.data
                if len(self._message) > MOST_FRAME:
                    raise InvalidInput(f"expected messages of at most {MOST_FRAME} bytes, found a longer one")
                if event.message_finished:
                    message, self._message = bytes(self._message), bytearray()
                    self._frames.append(frame_in(message))
            case Ping():
                self._pong = self._connection.send(event.response())
            case CloseConnection():
                self._closed = True
                with contextlib.suppress(Away):
                    await self._send(event.response())

    async def _send(self, event: BytesMessage | Ping | CloseConnection) -> None:
        async with self._writing:
            if self._closed and not isinstance(event, CloseConnection):
                return  # the agent has ended the call: what it said of that is the answer, and it is on its way
            try:
                pong, self._pong = self._pong, b""
                await self._network.write(pong + self._connection.send(event), None)
            except _BROKEN as error:
                raise self._broken(error) from None

    def _broken(self, error: Exception) -> Away:
        return Away(f"agent {self._url}: the stream broke off: {error or type(error).__name__}")


@contextlib.asynccontextmanager
async def opened(link: Link, path: str, params: Params) -> AsyncIterator[WebSocket]:
    """A websocket at a path below `/v1`; when the context ends, the agent has ended the call.

    Raises:
        Away: the agent cannot be reached, or does not speak websockets.
        WasmletError: the agent answers with this error.
    """
    key = base64.b64encode(os.urandom(16))
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key.decode(),
    }
    proof = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
    async with link.stream(path, params=params, headers=headers, silence=ANSWER_SECONDS) as response:
        if response.status_code != 101 or response.headers.get("Sec-WebSocket-Accept") != proof:
            raise Away(f"agent {link.url}: expected a websocket, found HTTP {response.status_code}")
        socket = WebSocket(response.extensions["network_stream"], link.url)
        try:
            yield socket
        finally:
            await socket.close()
