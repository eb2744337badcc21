"""Logs as the shim writes them, with times that are known, and what reads them whole."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import strategies as st

from wasmlet.provider import LogOptions
from wasmlet.runtime.logs.inotify import Watcher
from wasmlet.runtime.logs.reader import Log, read
from wasmlet.worker.supervisor.compression import compress
from wasmlet.worker.supervisor.crilog import MAX_LINE, LogFile, Splitter

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def written(path: Path, *pieces: bytes, ended: bool = True) -> None:
    """A log into which a piece went each second from `START` on."""
    splitter = Splitter("stdout")
    with path.open("ab") as file:
        for number, piece in enumerate(pieces):
            file.write(splitter.feed(piece, nanoseconds(START + timedelta(seconds=number))))
        if ended:
            file.write(splitter.finish(nanoseconds(START + timedelta(seconds=len(pieces)))))


async def never() -> None:
    await asyncio.Event().wait()


async def whole(path: Path, watcher: Watcher, **options: object) -> bytes:
    pieces = read(Log(path, lambda: True, never, watcher), LogOptions(**options))  # type: ignore[arg-type]
    return b"".join([piece async for piece in pieces])


LINE = st.one_of(st.binary(max_size=6), st.integers(MAX_LINE - 2, MAX_LINE * 5).map(lambda n: b"y" * n))


class Rotating:
    """A log as the shim writes it, of which a test decides when a file is full; full files are compressed by it too."""

    def __init__(self, path: Path, max_files: int = 5) -> None:
        self.path = path
        self.splitter = Splitter("stdout")
        self.log = LogFile(str(path), 10**9, max_files)
        self.log.open()
        self.second = 0

    def write(self, data: bytes) -> None:
        self.log.write(self.splitter.feed(data, nanoseconds(START + timedelta(seconds=self.second))))
        self.second += 1

    def rotate(self, *compressed: int) -> None:
        """Begin a new file, and compress those with these numbers."""
        assert self.log._rotate()
        for number in compressed:
            compress(f"{self.path}.{number}")

    def finish(self) -> None:
        self.log.write(self.splitter.finish(nanoseconds(START + timedelta(seconds=self.second))))
        self.log.close()
