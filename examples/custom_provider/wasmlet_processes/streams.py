"""Copies the standard streams between a process and the caller of an exec or attach."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from wasmlet import Streams
from wasmlet_processes.process import ProcessGroup

CHUNK = 64 * 1024
LAST_OUTPUT = 1.0
"""How many seconds to wait for more output after a process has ended.

A process that has left the group may hold the streams open for ever."""


async def connect(group: ProcessGroup, streams: Streams) -> int:
    """Pass everything on in both directions until the process has ended; its exit code, negative for a signal.

    Output that waits for a slow caller is waited for: nothing of it is lost.
    """
    stdout, stderr = group.process.stdout, group.process.stderr
    assert stdout is not None
    assert stderr is not None
    waits = 0
    """How many writes wait for the caller."""

    async def copy(source: asyncio.StreamReader, write: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        nonlocal waits
        while data := await source.read(CHUNK):
            waits += 1
            await write(data)
            waits -= 1

    async with asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(feed(group.process.stdin, streams, close=True))
        copying = [
            tasks.create_task(copy(stdout, streams.write_stdout)),
            tasks.create_task(copy(stderr, streams.write_stderr)),
        ]
        code = await group.wait()
        while (await asyncio.wait(copying, timeout=LAST_OUTPUT))[1] and waits:
            pass
        for task in (feeding, *copying):
            task.cancel()
    return code


async def feed(stdin: asyncio.StreamWriter | None, streams: Streams, *, close: bool) -> None:
    """Pass on what the caller sends, to the end of it; `close` then closes the process's stdin, if it has one."""
    if stdin is None:
        return
    with contextlib.suppress(ConnectionError):  # the process does not read on
        while data := await streams.read_stdin():
            stdin.write(data)
            await stdin.drain()
    if close:
        stdin.close()


def exit_code(code: int) -> int:
    """What a shell makes of it: 128 and the number of the signal, where one ended the process."""
    return 128 - code if code < 0 else code
