"""The log files of one container, as the shim writes them (`wasmlet.worker.supervisor.crilog`), read as one log.

Each file has a number: its number among the full files, or the number that it will get when it is full. The file that
is being written has the highest. Between two calls a file may be renamed, compressed or removed. So each file is
searched for under its old name and under the names that it may have by now. All functions block.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from wasmlet.runtime.files import beneath

LOGS = "logs"
"""Where in the state directory the logs of pods are."""
CHUNK = 64 * 1024
_FULL = re.compile(r"\.([1-9][0-9]{0,17})(\.gz)?")
_TRIES = 20


def of_pod(uid: str) -> str:
    """The beginning of the paths of a pod's logs, relative to the state directory; no other pod's begin with it.

    The container's name, its attempt and `.log` follow. There are 256 directories, which stay. One for each pod would
    take ten times as long, as ext4 looks far for a place for it, and has who removes it wait for the disk.
    """
    name = beneath.file_name(uid)
    return f"{LOGS}/{zlib.crc32(name.encode()) & 0xFF:02x}/{name},"


def remove_of(start: Path) -> None:
    """Remove all logs of a pod, as far as that can be done; `start` is what all their paths begin with."""
    with contextlib.suppress(OSError), os.scandir(start.parent) as entries:
        for entry in entries:
            if entry.name.startswith(start.name):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
    if len(before := start.name.removesuffix(",")) > 2:  # else that is one of the shared directories
        with contextlib.suppress(OSError):  # as earlier versions had them
            beneath.remove(start.parent.parent / before)


def disk_space(start: Path, container: str) -> int:
    """The disk space of all logs of a container, in bytes; its name has no dot."""
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(start.parent) as entries:
        for entry in entries:
            if entry.name.startswith(f"{start.name}{container}."):
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


class Part:
    """One open file of a log. It stays readable whatever becomes of its name."""

    def __init__(self, number: int, file: int, compressed: bool) -> None:
        self.number = number
        self.file = file
        self._stream = gzip.GzipFile(fileobj=open(file, "rb", closefd=False)) if compressed else None  # noqa: SIM115
        found = os.fstat(file)
        self.identity = found.st_dev, found.st_ino

    @property
    def compressed(self) -> bool:
        return self._stream is not None

    @property
    def size(self) -> int:
        """How many bytes there are to read."""
        if self._stream is None:
            return os.fstat(self.file).st_size
        return self._stream.seek(0, os.SEEK_END)

    def read(self, offset: int, size: int = CHUNK) -> bytes:
        """What begins there; reading on from where the last read ended costs least."""
        if self._stream is None:
            return os.pread(self.file, size, offset)
        self._stream.seek(offset)
        return self._stream.read(size)

    def is_current(self, path: Path) -> bool:
        """Whether the shim may add to it: it has not been put aside as full."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    def backwards(self) -> Iterator[tuple[int, bytes]]:
        """Entries from the last to the first, each with its offset."""
        if self._stream is not None:
            self._stream.seek(0)
            whole = self._stream.read()
            end = len(whole)
        else:
            whole, end = b"", os.fstat(self.file).st_size
        rest = b""
        while end > 0:
            begin = max(0, end - CHUNK)
            data = (whole[begin:end] if whole else os.pread(self.file, end - begin, begin)) + rest
            pieces = data.split(b"\n")
            position = begin + len(data)
            while len(pieces) > 1:
                line = pieces.pop()
                position -= len(line)
                if line:
                    yield position, line
                position -= 1
            rest, end = pieces[0], begin
        if rest:
            yield 0, rest

    def close(self) -> None:
        """May be called again."""
        if self._stream is not None:
            self._stream.close()
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def full_numbers(path: Path) -> list[int]:
    """The numbers of the full files that there are, rising."""
    found = set()
    with contextlib.suppress(FileNotFoundError), os.scandir(path.parent) as entries:
        for entry in entries:
            match = entry.name.startswith(path.name) and _FULL.fullmatch(entry.name, len(path.name))
            if match:
                found.add(int(match[1]))
    return sorted(found)


def open_newest(path: Path) -> Part:
    """The file that is written to, or was last.

    Raises:
        FileNotFoundError: the log is gone.
    """
    for _ in range(_TRIES):
        try:
            file = _open(path)
        except FileNotFoundError:
            # There is no such file between two files, or after an error, when the shim could not make the next one.
            numbers = full_numbers(path)
            part = open_part(path, numbers[-1]) if numbers else None
            if part is None:
                raise
            return part
        numbers = full_numbers(path)
        part = Part(numbers[-1] + 1 if numbers else 1, file, False)
        if part.is_current(path):  # so it was while the numbers were listed
            return part
        part.close()
    raise FileNotFoundError(path)


def open_part(path: Path, number: int) -> Part | None:
    """The file with this number; None where it is not there (any more, or yet)."""
    for _ in range(_TRIES):
        for name, compressed in ((f"{path}.{number}", False), (f"{path}.{number}.gz", True)):
            with contextlib.suppress(FileNotFoundError):
                return Part(number, _open(name), compressed)
        numbers = full_numbers(path)
        if number in numbers:
            continue
        if numbers and number <= numbers[-1]:
            return None
        try:
            part = Part(numbers[-1] + 1 if numbers else 1, _open(path), False)
        except FileNotFoundError:
            return None
        if part.number == number and part.is_current(path) and full_numbers(path) == numbers:
            return part
        part.close()
        if full_numbers(path) == numbers:
            return None
    return None


def open_next(path: Path, number: int) -> Part | None:
    """The file after the one with this number, or the oldest that is left; None where there is none."""
    later = [found for found in full_numbers(path) if found > number]
    candidates = [number + 1, *later, later[-1] + 1] if later else [number + 1]
    for candidate in dict.fromkeys(candidates):
        part = open_part(path, candidate)
        if part is not None:
            return part
    return None


def open_oldest(path: Path) -> Part:
    """The oldest file that is left.

    Raises:
        FileNotFoundError: the log is gone.
    """
    return open_next(path, 0) or open_newest(path)


def remove(path: Path) -> None:
    """Remove all files of a log."""
    path.unlink(missing_ok=True)
    for number in full_numbers(path):
        for name in (f"{path}.{number}", f"{path}.{number}.gz"):
            Path(name).unlink(missing_ok=True)


def _open(path: str | Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
