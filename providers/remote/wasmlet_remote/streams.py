"""Exec, attach and port-forward: what a caller sends goes to the agent, and what the agent sends to the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from wasmlet_agent.protocol.failures import error_of
from wasmlet_agent.protocol.frames import MOST_FRAME, STDERR, STDIN, STDOUT, Data, Resize, Result

from wasmlet import Channel, Streams
from wasmlet.concurrency import first_of
from wasmlet_remote.link import Away, Link, Params
from wasmlet_remote.websocket import WebSocket, opened

Write = Callable[[bytes], Awaitable[None]]


async def attached(link: Link, path: str, streams: Streams, params: Sequence[tuple[str, str]]) -> int:
    """Connect a caller's streams to a command or container at the agent; its exit code.

    Raises:
        WasmletError: what the agent's provider raised, or that the connection broke.
        ConnectionError: the caller takes no more output.
    """
    flags = [(name, "true") for name in ("stdin", "stdout", "stderr", "tty") if getattr(streams, name)]
    async with opened(link, path, (*params, *flags)) as socket:
        outputs = {STDOUT: streams.write_stdout, STDERR: streams.write_stderr}
        codes: list[int] = []
        work = [_output(socket, outputs, codes), socket.ping()]
        if streams.stdin:
            work.append(_input(socket, streams.read_stdin))
        if streams.tty:
            work.append(_sizes(socket, streams))
        await first_of(*work)
        return codes[0]


async def forwarded(link: Link, path: str, channel: Channel, params: Sequence[tuple[str, str]]) -> None:
    """Connect a caller's channel to a port at the agent, until the pod's side closes.

    Raises:
        WasmletError: what the agent's provider raised, or that the connection broke.
        ConnectionError: the caller takes no more.
    """
    async with opened(link, path, tuple(params)) as socket:
        await first_of(_output(socket, {STDOUT: channel.write}, []), socket.ping(), _input(socket, channel.read))


async def log_of(link: Link, path: str, params: Params, *, silence: float | None = None) -> AsyncGenerator[bytes, None]:
    """A log, in pieces.

    Raises:
        WasmletError: what the agent's provider raised, or that the connection broke.
    """
    async with link.stream(path, params=params, silence=silence) as response:
        async for piece in response.aiter_raw():
            yield piece


async def until(
    gone: Callable[[], Awaitable[None]], pieces: AsyncGenerator[bytes, None], url: str
) -> AsyncGenerator[bytes, None]:
    """The pieces, until `gone` returns.

    Raises:
        Away: it has returned.
    """
    going = asyncio.ensure_future(gone())
    try:
        async with aclosing(pieces):
            while True:
                coming = asyncio.ensure_future(anext(pieces, None))
                try:
                    await asyncio.wait([coming, going], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
                if coming.cancelled():
                    raise Away(f"agent {url}: it is silent; the pod and its log may go on there")
                if (piece := coming.result()) is None:
                    return
                yield piece
    finally:
        going.cancel()
        await asyncio.wait([going])


async def _output(socket: WebSocket, outputs: Mapping[int, Write], codes: list[int]) -> None:
    """Pass on what the agent sends, until it sends the result."""
    while True:
        match await socket.receive():
            case Result(code, None):
                codes.append(code)
                return
            case Result(_, failure) if failure is not None:
                raise error_of(failure)
            case Data(stream, content) if content and stream in outputs:
                await outputs[stream](content)


async def _input(socket: WebSocket, read: Callable[[], Awaitable[bytes]]) -> None:
    """Pass on what the caller sends; does not end."""
    while data := await read():
        for start in range(0, len(data), MOST_FRAME - 1):
            await socket.send(Data(STDIN, data[start : start + MOST_FRAME - 1]))
    await socket.send(Data(STDIN, b""))
    await asyncio.Event().wait()


async def _sizes(socket: WebSocket, streams: Streams) -> None:
    while True:
        await socket.send(Resize(*await streams.next_size()))
