"""Exec, attach and port-forward: a call of the provider whose caller is at the other end of a websocket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog
from aiohttp import WSMsgType, web

from wasmlet.errors import InvalidInput, WasmletError
from wasmlet.failures import described
from wasmlet_agent.protocol import BEAT_SECONDS, SILENCE_SECONDS
from wasmlet_agent.protocol.failures import failure_of
from wasmlet_agent.protocol.frames import MOST_FRAME, STDERR, STDOUT, Data, Frame, Resize, Result, frame_in, frame_out
from wasmlet_agent.queries import flag

log = structlog.get_logger(__name__)

_WAITING = 4
"""How many messages of stdin may wait to be read; more of them wait at the caller."""

Call = Callable[["Caller"], Awaitable[int | None]]


async def serve_stream(request: web.Request, call: Call) -> web.WebSocketResponse:
    """Answer with a websocket, make the call, and send its result.

    A caller that leaves, or is silent, cancels the call; the connection is closed when the call has ended.

    Raises:
        InvalidInput: the request is no websocket's.
    """
    socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, max_msg_size=MOST_FRAME)
    if not socket.can_prepare(request):
        raise InvalidInput("expected a websocket: Connection: Upgrade, Upgrade: websocket and a Sec-WebSocket-Key")
    caller = Caller(socket, request.query)
    await socket.prepare(request)
    job = asyncio.ensure_future(_made(call, caller, request.path))
    listening, pinging = asyncio.ensure_future(caller.listen()), asyncio.ensure_future(_ping(socket))
    try:
        await asyncio.wait([job, listening, pinging], return_when=asyncio.FIRST_COMPLETED)
        with suppress(ConnectionError):
            if job.done():
                await socket.send_bytes(frame_out(job.result()))
            elif listening.done() and (error := listening.exception()) is not None:
                await socket.send_bytes(frame_out(Result(failure=failure_of(InvalidInput(str(error)))[1])))
    finally:
        for task in (job, listening, pinging):
            task.cancel()
        await asyncio.wait([job, listening, pinging])
        for task in (listening, pinging):
            if not task.cancelled():
                task.exception()
    await socket.close()
    return socket


async def _made(call: Call, caller: Caller, path: str) -> Result:
    try:
        return Result(await call(caller) or 0)
    except Exception as error:
        if not isinstance(error, WasmletError | ConnectionError):  # a caller that leaves is none of ours
            log.error("a call of a stream has failed", path=path, **described(error))
        return Result(failure=failure_of(error)[1])


async def _ping(socket: web.WebSocketResponse) -> None:
    """Say that we are here, until the connection is gone."""
    with suppress(ConnectionError):
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await socket.ping()


class Caller:
    """The far end of a websocket, as `Streams` and as `Channel`."""

    def __init__(self, socket: web.WebSocketResponse, query: Mapping[str, str]) -> None:
        self.stdin, self.stdout, self.stderr, self.tty = (
            flag(query, name) for name in ("stdin", "stdout", "stderr", "tty")
        )
        self._socket = socket
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)
        self._ended = False
        self._size: tuple[int, int] | None = None
        self._resized = asyncio.Event()

    async def listen(self) -> None:
        """Take what the caller sends; returns when it has left or is silent.

        Raises:
            InvalidInput: it sends what this protocol has not.
        """
        while True:
            try:
                message = await self._socket.receive(timeout=SILENCE_SECONDS)
            except TimeoutError:
                return
            match message.type:
                case WSMsgType.BINARY:
                    await self._take(frame_in(message.data))
                case WSMsgType.PING:
                    with suppress(ConnectionError):
                        await self._socket.pong(message.data)
                case WSMsgType.PONG:
                    pass
                case WSMsgType.TEXT:
                    raise InvalidInput("expected binary messages, found text")
                case _:
                    return

    async def read(self) -> bytes:
        """As `Channel.read`."""
        if self._ended:
            return b""
        data = await self._inbox.get()
        self._ended = not data
        return data

    async def write(self, data: bytes) -> None:
        """As `Channel.write`."""
        await self._send(STDOUT, data)

    async def read_stdin(self) -> bytes:
        """As `Streams.read_stdin`."""
        return await self.read() if self.stdin else b""

    async def write_stdout(self, data: bytes) -> None:
        """As `Streams.write_stdout`."""
        if self.stdout:
            await self._send(STDOUT, data)

    async def write_stderr(self, data: bytes) -> None:
        """As `Streams.write_stderr`."""
        if self.stderr:
            await self._send(STDERR, data)

    async def next_size(self) -> tuple[int, int]:
        """As `Streams.next_size`."""
        while self._size is None:
            await self._resized.wait()
            self._resized.clear()
        size, self._size = self._size, None
        return size

    async def _take(self, frame: Frame) -> None:
        match frame:
            case Data(stream=0, content=content):
                await self._inbox.put(content)
            case Resize(columns, rows):
                self._size = columns, rows
                self._resized.set()
            case _:
                raise InvalidInput("expected stdin or the size of a terminal, found what only an agent sends")

    async def _send(self, stream: int, data: bytes) -> None:
        for start in range(0, len(data), MOST_FRAME - 1):
            await self._socket.send_bytes(bytes([stream]) + data[start : start + MOST_FRAME - 1])
