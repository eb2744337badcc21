"""attach: connects a caller's streams to a running container, until one of the two ends.

Output is read from the log, beginning at its end at the time of the call. While a caller is attached, the shim also
logs unfinished lines, so the caller gets every byte. A slow caller does not slow down the guest, because its output
waits on disk, within the limits of the log. A caller that falls behind further gets an error.

The shim keeps the writable end of the guest's stdin, so that it survives this process, and passes it to each caller.
With `stdinOnce`, the shim closes it when the first caller leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from wasmlet.errors import WasmletError
from wasmlet.provider import Streams
from wasmlet.runtime.logs import files as log_files
from wasmlet.runtime.logs import reader as logs
from wasmlet.runtime.logs.files import Part
from wasmlet.runtime.logs.reader import Log
from wasmlet.runtime.shim.client import ShimClient
from wasmlet.runtime.streams.pipes import Pipe

TOO_SLOW = (
    "the container writes faster than this is read, and its log was rotated past what is unread: attach again, or read "
    "the log"
)


async def attach(client: ShimClient, container_id: str, log: Log, streams: Streams) -> None:
    """Connect the streams; return when the container has ended. Cancelled: leave it.

    Raises:
        WasmletError: the container does not run, or the caller reads too slowly.
        ConnectionError: the caller is gone.
    """
    output, _ = await client.attach(container_id, stdin=False)
    try:
        begin = functools.partial(_open, log, *output.position)
        async with _stdin(client, container_id, streams) as tasks:
            written = asyncio.ensure_future(_write(log, begin, streams))
            try:
                await _first_failure(written, tasks)
            finally:
                written.cancel()
                await asyncio.gather(written, return_exceptions=True)
    finally:
        client.detach(output.token)


async def _first_failure(written: asyncio.Future[None], tasks: list[asyncio.Future[None]]) -> None:
    """Wait for the output's end, and raise what any of them raises."""
    pending: set[asyncio.Future[None]] = {written, *tasks}
    while not written.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    written.result()


@contextlib.asynccontextmanager
async def _stdin(client: ShimClient, container_id: str, streams: Streams) -> AsyncIterator[list[asyncio.Future[None]]]:
    """What feeds the guest's stdin, if it has one and the caller wants it."""
    if not streams.stdin:
        yield []
        return
    stdin, descriptors = await client.attach(container_id, stdin=True)
    if not descriptors:  # the manifest does not ask for it, or it was closed when the first caller left
        client.detach(stdin.token)
        yield []
        return
    with Pipe(descriptors[0]) as pipe, contextlib.ExitStack() as leaving:
        leaving.callback(client.detach, stdin.token)
        work: list[Awaitable[None]] = [_feed(pipe, streams, leaving)]
        if streams.tty:
            work.append(_follow_size(pipe, streams))
        tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(each) for each in work]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            pipe.close()  # before the shim lets go of it: the last of the two ends it


async def _feed(pipe: Pipe, streams: Streams, leaving: contextlib.ExitStack) -> None:
    with contextlib.suppress(BrokenPipeError):  # the guest does not want more
        while data := await streams.read_stdin():
            await pipe.write(data)
    if not streams.tty:  # of a terminal only leaving is the end
        pipe.close()
        leaving.close()


async def _follow_size(terminal: Pipe, streams: Streams) -> None:
    with contextlib.suppress(OSError):  # the container has no terminal, whatever the caller believes
        while True:
            terminal.resize(*await streams.next_size())


def _open(log: Log, number: int, offset: int) -> tuple[Part, int]:
    part = log_files.open_part(log.path, number)
    if part is None and log.path.exists():
        raise WasmletError(TOO_SLOW)
    if part is None:
        raise FileNotFoundError(log.path)
    return part, offset


async def _write(log: Log, begin: Any, streams: Streams) -> None:
    rest, before = b"", 0
    async with contextlib.aclosing(logs.pieces(log, begin, follow=True)) as pieces:
        async for number, data in pieces:
            if before and number > before + 1:
                raise WasmletError(TOO_SLOW)
            before = number
            entries = (rest + data).split(b"\n")
            rest = entries.pop()
            for is_error, text in _joined(entries):
                await (streams.write_stderr(text) if is_error and not streams.tty else streams.write_stdout(text))


def _joined(entries: list[bytes]) -> list[tuple[bool, bytes]]:
    """What the guest wrote, as few pieces as possible: whether to stderr, and the bytes."""
    out: list[tuple[bool, list[bytes]]] = []
    for entry in entries:
        _, stream, tag, text = logs.fields(entry)
        is_error = stream == b"stderr"
        if not out or out[-1][0] != is_error:
            out.append((is_error, []))
        out[-1][1].append(text if tag == b"P" else text + b"\n")
    return [(is_error, b"".join(texts)) for is_error, texts in out]
