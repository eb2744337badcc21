"""One file of records, each with a name: the newest record of a name counts.

A change is a line at the end: a name, a space and JSON; or a name alone, which takes the record of that name away. So
one write keeps what has become of many pods, and one wait for the disk serves all of them.

What follows the last line break is no record: a write that fails is taken back, and one that this process did not end
is cut off by the next process. When most of the file is of records that count no more, it is written anew, so that it
is at most 4 MiB and one write longer than twice what counted the last time. A second file is there meanwhile. A new
process writes it anew where any record counts no more. Everything blocks.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import orjson
import structlog

from wasmlet import files

log = structlog.get_logger(__name__)

_SPARE = 4 * 1024 * 1024
"""Bytes of records that count no more, in addition to as many as there are of those that count."""
_PIECE = 1024 * 1024


class Journal:
    """Opens the file; it is made where there is none. One caller at a time, but for `sync`.

    Args:
        path: of the file, in a directory that is its owner's alone.

    Raises:
        OSError: it cannot be opened, or read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.new")
        self._replacing = threading.Lock()
        self._named = False
        """Whether the name of the file is on the disk."""
        self._unsure = False
        """A wait for the disk has failed: the next one may pass over what that one did not write."""
        self._torn = False
        """There may be something after `_size`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        try:
            with suppress(OSError):  # of a process that was killed
                self._part.unlink(missing_ok=True)
            self._places, self._size = _read(self._file)
            self._cut()
            self._rewrite_at = self._limit()
            if self._size > self._counting():
                self._rewrite()
            with suppress(OSError):  # whoever waits for the disk next is told
                self.sync()
        except BaseException:
            os.close(self._file)
            raise

    def records(self) -> Iterator[tuple[str, bytes]]:
        """The records that count, by name, in the order in which they were written."""
        for name, (start, length) in self._places.items():
            yield name, _content(os.pread(self._file, length, start))

    def append(self, changes: Mapping[str, bytes | None]) -> None:
        """Write records, by name; None takes one away. What is written outlives this process, but no loss of power.

        Args:
            changes: JSON without line breaks.

        Raises:
            OSError: not all could be written. What was there still counts, and nothing else does.
        """
        if self._torn:
            self._cut()
        if self._unsure or self._size > self._rewrite_at:
            self._rewrite()
        data = bytearray()
        places: dict[str, tuple[int, int] | None] = {}
        for name, content in changes.items():
            line = _line(name, content)
            if content is not None:
                places[name] = self._size + len(data), len(line)
            elif name in self._places:
                places[name] = None
            else:
                continue
            data += line
        self._write(data)
        for name, place in places.items():
            self._places.pop(name, None)
            if place is not None:
                self._places[name] = place

    def sync(self) -> None:
        """Wait until what was written before this call is on the disk.

        Raises:
            OSError: the disk does not take it. It may say later that it has: write it again.
        """
        with self._replacing:
            if self._unsure:
                raise OSError(errno.EIO, "the disk has not taken what was written before")
            if not self._named:
                files.sync_directory(self._path.parent)
                self._named = True
            try:
                os.fdatasync(self._file)
            except OSError:
                self._unsure = True
                raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, data: bytearray) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            self._torn = True
            with suppress(OSError):  # tried again before anything else is written
                self._cut()
            raise
        self._size += len(data)

    def _cut(self) -> None:
        """Cut off what is no whole line, or was not to be kept."""
        os.ftruncate(self._file, self._size)
        self._torn = False

    def _rewrite(self) -> None:
        """Write a new file of the records that count; the old one stays where that fails."""
        try:
            new = os.open(
                self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            self._put_off(error)
            return
        try:
            places, size = self._copied(new)
            os.fsync(new)
            self._part.replace(self._path)
        except OSError as error:
            os.close(new)
            self._part.unlink(missing_ok=True)
            self._put_off(error)
            return
        with self._replacing:
            old, self._file = self._file, new
            os.close(old)
            self._unsure = False
            self._named = False  # a loss of power leaves the old file or the new one, until somebody waits for the disk
        self._places, self._size = places, size
        self._rewrite_at = self._limit()

    def _copied(self, new: int) -> tuple[dict[str, tuple[int, int]], int]:
        places: dict[str, tuple[int, int]] = {}
        size = 0
        with open(new, "wb", _PIECE, closefd=False) as file:
            for name, (start, length) in self._places.items():
                places[name] = size, length
                size += file.write(os.pread(self._file, length, start))
        return places, size

    def _limit(self) -> int:
        return _SPARE + 2 * self._counting()

    def _counting(self) -> int:
        return sum(length for _, length in self._places.values())

    def _put_off(self, error: OSError) -> None:
        log.warning("a file of the state directory grows, for it cannot be written anew", error=str(error))
        self._rewrite_at = self._size + _SPARE


def _line(name: str, content: bytes | None) -> bytes:
    return name.encode() + (b"\n" if content is None else b" " + content + b"\n")


def _content(line: bytes) -> bytes:
    return line.partition(b" ")[2]


def _read(descriptor: int) -> tuple[dict[str, tuple[int, int]], int]:
    """Where the records are that count, and where the last whole line ends.

    A line that makes no sense (the machine went off while it was written) is passed over.
    """
    places: dict[str, tuple[int, int]] = {}
    at = 0
    with open(descriptor, "rb", _PIECE, closefd=False) as file:
        for line in file:
            if not line.endswith(b"\n"):
                log.warning("the last line of the state directory's journal has no end, and is cut off", at=at)
                break
            name, space, content = line.rstrip(b"\n").partition(b" ")
            if _makes_sense(name, content if space else None):
                places.pop(name.decode(), None)
                if space:
                    places[name.decode()] = at, len(line)
            elif name:
                log.warning("a line of the state directory's journal makes no sense, and is passed over", at=at)
            at += len(line)
    return places, at


def _makes_sense(name: bytes, content: bytes | None) -> bool:
    if not name or not name.isascii():
        return False
    try:
        return content is None or isinstance(orjson.loads(content), dict)
    except orjson.JSONDecodeError:
        return False
