"""Callers of exec and attach, as the node's API would be: streams that a test feeds and reads."""

from __future__ import annotations

import asyncio

from tests.runtime.harness import PATIENCE


class Caller:
    """What it gets is in `out` and `err`; `slow` stops reading until it is cleared."""

    def __init__(self, *, stdin: bool = False, tty: bool = False) -> None:
        self.stdin, self.stdout, self.stderr, self.tty = stdin, True, not tty, tty
        self.out = self.err = b""
        self.reads = asyncio.Event()
        self.reads.set()
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self._told = asyncio.Condition()

    def type(self, data: bytes) -> None:
        self._input.put_nowait(data)

    def close(self) -> None:
        self._input.put_nowait(b"")

    def resize(self, columns: int, rows: int) -> None:
        self._sizes.put_nowait((columns, rows))

    async def until(self, part: bytes) -> None:
        """Return once it has this in its stdout."""
        async with asyncio.timeout(PATIENCE), self._told:
            await self._told.wait_for(lambda: part in self.out)

    async def read_stdin(self) -> bytes:
        return await self._input.get()

    async def write_stdout(self, data: bytes) -> None:
        await self.reads.wait()
        async with self._told:
            self.out += data
            self._told.notify_all()

    async def write_stderr(self, data: bytes) -> None:
        assert self.stderr, "with a terminal there is one output"
        self.err += data

    async def next_size(self) -> tuple[int, int]:
        return await self._sizes.get()
