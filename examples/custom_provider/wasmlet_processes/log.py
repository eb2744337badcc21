"""The log of one run of a container, kept in files. Each line begins with the time when it was written.

The writer and all readers are in one process. So a reader that follows the log waits for an event, and need not look
at the disk again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import weakref
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path

from wasmlet import LogOptions, rfc3339_micro

STAMP = len("2026-01-01T00:00:00.000000Z ")
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")


class _File:
    """One file of a log: the bytes from `begin` to `end` of the whole log.

    It can be read until nobody uses it any more, even when it has been removed from its directory.
    """

    def __init__(self, path: Path, begin: int) -> None:
        self.begin = self.end = begin
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._descriptor)

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.end += len(data)  # only now, so that a reader sees all of it or nothing

    def read(self, begin: int, end: int) -> bytes:
        return os.pread(self._descriptor, end - begin, begin - self.begin)


class Log:
    """The output of one run, in at most two files.

    Once a file has more than `max_bytes`, a new one is begun, and the one before it is dropped.

    Args:
        path: of the newer file; the older one has `.1` after it.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files: list[_File] = []
        self._line_open = False
        self._ended = False
        self._grown = asyncio.Event()

    async def write(self, data: bytes, at: datetime) -> None:
        """Append what the container has written at this time. Only one call may run at a time."""
        stamp = rfc3339_micro(at).encode() + b" "
        lines = [stamp + line for line in _LINES.findall(data)]
        if self._line_open:
            lines[0] = lines[0][STAMP:]
        await asyncio.to_thread(self._append, b"".join(lines))
        self._line_open = not data.endswith(b"\n")
        self._tell()

    def close(self) -> None:
        """The container has ended: nothing more will be written, so readers that follow end, too."""
        self._ended = True
        self._tell()

    async def read(self, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """The part of the log that `options` ask for. With `follow` it goes on until the container has ended."""
        since = rfc3339_micro(options.since_time).encode() if options.since_time else b""
        position, left, tail, wanted = 0, options.limit_bytes, options.tail_lines, True
        line_open = False
        while True:
            ended, grown = self._ended, self._grown
            data, position = await asyncio.to_thread(self._since, position)
            shown = []
            for line in _LINES.findall(data):
                if not line_open:
                    wanted = line[:STAMP] >= since
                begin = STAMP if not line_open and not options.timestamps else 0
                line_open = not line.endswith(b"\n")
                if wanted:
                    shown.append(line[begin:])
            if tail is not None:
                wanted = wanted and tail > 0
                shown, tail = shown[len(shown) - min(tail, len(shown)) :], None
            text = b"".join(shown)[:left]
            if text:
                yield text
            if left is not None and (left := left - len(text)) <= 0:
                return
            if ended or not options.follow:
                return
            await grown.wait()

    def remove(self) -> None:
        """Remove the files. A reader that has begun can still read them. Blocks."""
        for path in (self._path, f"{self._path}.1"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    # --- in a thread

    def _append(self, data: bytes) -> None:
        last = self._files[-1] if self._files else None
        if last is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._files = [_File(self._path, 0)]
        elif last.end - last.begin > self._max_bytes and not self._line_open:  # a file begins with a line's time
            os.replace(self._path, f"{self._path}.1")
            self._files = [last, _File(self._path, last.end)]
        self._files[-1].append(data)

    def _since(self, position: int) -> tuple[bytes, int]:
        """What the files have from this position on, and the position behind it.

        The data of one `write` is returned as a whole, or not at all.
        """
        pieces = []
        for file in self._files:
            begin, end = max(position, file.begin), file.end
            if begin < end:
                pieces.append(file.read(begin, end))
                position = end
        return b"".join(pieces), position

    def _tell(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()
