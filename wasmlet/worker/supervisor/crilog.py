"""Writes a container's log, in the format that kubelets and log collectors read (CRI, `pkg/kubelet/kuberuntime/logs`).

Each line of the file is an entry: `2006-01-02T15:04:05.000000000Z stdout F text`. `F` means that the text ends a line
of the guest. `P` means that the line continues in the next entry of the same stream: because it is longer than
`MAX_LINE` bytes, or because the guest's last output had no newline at its end. So the exact bytes that the guest wrote
can be recovered.

`Splitter` turns chunks of output into entries, and holds at most one unfinished line. `LogFile` writes the entries and
limits how much disk space they take. `wasmlet.runtime.logs.reader` reads the files.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping

MAX_LINE = 16 * 1024
"""Bytes of a guest's line in one entry, as containerd has it."""

MAX_SIZE = 10 * 1024 * 1024
MAX_FILES = 5
"""The kubelet's defaults: bytes of one file, and files of one log, the one that is written to among them."""


def stamp(nanoseconds: int) -> bytes:
    """RFC 3339 in UTC with nine digits, so that stamps sort as text."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z".encode()


class Splitter:
    """The entries of one stream (`stdout` or `stderr`), from chunks as they come out of the pipe."""

    def __init__(self, stream: str) -> None:
        self._stream = stream.encode()
        self._rest = b""

    def feed(self, data: bytes, nanoseconds: int) -> bytes:
        """The entries that this chunk completes, all with the one time at which it was read."""
        lines = (self._rest + data).split(b"\n")
        rest = lines.pop()
        opening = stamp(nanoseconds) + b" " + self._stream
        full, part = opening + b" F ", opening + b" P "
        out = []
        if lines and max(map(len, lines)) > MAX_LINE:
            for line in lines:
                while len(line) > MAX_LINE:
                    out.append(part + line[:MAX_LINE] + b"\n")
                    line = line[MAX_LINE:]
                out.append(full + line + b"\n")
        elif lines:
            out.append(full + (b"\n" + full).join(lines) + b"\n")
        while len(rest) > MAX_LINE:
            out.append(part + rest[:MAX_LINE] + b"\n")
            rest = rest[MAX_LINE:]
        self._rest = rest
        return b"".join(out)

    def finish(self, nanoseconds: int) -> bytes:
        """The entry of an unfinished last line, if there is one."""
        rest, self._rest = self._rest, b""
        return stamp(nanoseconds) + b" " + self._stream + b" P " + rest + b"\n" if rest else b""


_SHARED = 2
"""How long the name of a directory is that the logs of many pods are in, and that stays."""


class LogFile:
    """The log files of one instance of a container: `path`, and the full files `path`.1, `path`.2 and so on.

    As with a kubelet, the newest full file stays uncompressed for its readers, and older ones are compressed
    (`compression`) to `path`.N.gz. A file counts as full before an entry would make it larger than `max_size`. So a
    log takes at most `max_files` times `max_size` bytes.

    If the disk is full, output of the guest is lost (`lost` counts the bytes), but nothing stops. What is in a file is
    never changed, because a reader may have read it. If only a part of an entry could be written, the rest of it is
    written before anything else.

    Args:
        compress: called with the name of each file that is to be compressed; it may be removed before or meanwhile.
    """

    def __init__(
        self,
        path: str,
        max_size: int = MAX_SIZE,
        max_files: int = MAX_FILES,
        compress: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._path = path
        self._max_size = max_size
        self._max_files = max_files
        self._compress = compress
        self._file = -1
        self._size = 0
        self._cut = b""
        """The rest of the last entry, if only a part of it could be written; `_size` includes it."""
        self._cut_at = 0
        """Where that entry begins."""
        self.rotated = 0
        """How many files were full so far; this is also the number of the last full file."""
        self.lost = 0

    def open(self) -> None:
        """Make the file, with the directories above it. Where that is not possible, it is tried again with each entry.

        The first entry does that, too. But a container that writes nothing is to have a log, too.
        """
        with contextlib.suppress(OSError):
            if self._file < 0:
                self._open()

    @property
    def position(self) -> tuple[int, int]:
        """Where the next entry goes: the number that its file will have once it is full, and how much is in it."""
        return self.rotated + 1, self._size

    def write(self, entries: bytes) -> None:
        """Append whole entries."""
        if len(entries) <= self._max_size - self._size:
            self._append(entries)
            return
        begin = 0
        while begin < len(entries):
            end = entries.rfind(b"\n", begin, begin + max(0, self._max_size - self._size)) + 1
            if not end and self._size:
                if not self._rotate():
                    self.lost += len(entries) - begin
                    return
                continue
            end = end or entries.find(b"\n", begin) + 1  # one that is longer than a whole file may be
            self._append(entries[begin:end])
            begin = end

    def close(self) -> None:
        if self._file >= 0:
            if not self._completed():
                self.lost += self._size - self._cut_at
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._cut_at)
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            _make_directory(os.path.dirname(self._path))
            self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def _append(self, entries: bytes) -> None:
        """Write the entries. Where the disk takes a part of them, the entry at its end is completed later."""
        if not entries:
            return
        try:
            if self._file < 0:  # it could not be made before
                self._open()
            written = os.write(self._file, entries) if self._completed() else 0
        except OSError:
            written = 0
        begin, end = entries.rfind(b"\n", 0, written) + 1, written
        if begin < written:
            end = entries.index(b"\n", written) + 1
            self._cut, self._cut_at = entries[written:end], self._size + begin
        self._size += end
        self.lost += len(entries) - end

    def _completed(self) -> bool:
        """Whether the file's last entry is whole, now that what it lacks was tried again."""
        if self._cut:
            with contextlib.suppress(OSError):
                self._cut = self._cut[os.write(self._file, self._cut) :]
        return not self._cut

    def _rotate(self) -> bool:
        """Put the full file aside and begin another; False where that is not possible."""
        number = self.rotated + 1
        if not self._completed():
            return False
        try:
            os.rename(self._path, f"{self._path}.{number}")
        except OSError:
            return False
        self.close()
        self.rotated, self._size = number, 0
        oldest = number - self._max_files + 1
        for name in (f"{self._path}.{oldest}", f"{self._path}.{oldest}.gz"):
            with contextlib.suppress(OSError):
                os.unlink(name)
        if number - 1 > max(0, oldest):
            self._compress(f"{self._path}.{number - 1}")
        self.open()
        return True


def remove(logs: Mapping[str, str]) -> set[str]:
    """Remove these logs, as far as each is one file.

    Args:
        logs: the paths, by any names.

    Returns:
        The names of those beside which no log of the same pod is left.
    """
    for path in logs.values():
        with contextlib.suppress(OSError):
            os.unlink(path)
    left = {directory: _left_in(directory) for directory in {os.path.dirname(path) for path in logs.values()}}
    return {name for name, path in logs.items() if not _has(left[os.path.dirname(path)], os.path.basename(path))}


def _has(names: list[str] | None, log: str) -> bool:
    """Whether there is a log of the same pod among these: of a shim that died, there may be one that nobody knows."""
    pod = log[: log.find(",") + 1]  # "" where all in the directory is one pod's
    return names is None or any(name.startswith(pod) for name in names)


def _left_in(directory: str) -> list[str] | None:
    """The files of a directory of logs, which goes if it is one pod's, as earlier versions made them, and empty."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError:  # nobody knows; the node loop looks itself
        return None
    if not names and len(os.path.basename(directory)) > _SHARED:
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return names


def _make_directory(path: str) -> None:
    """Make a directory for this user alone, and those above it."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_directory(os.path.dirname(path))
        os.mkdir(path, 0o700)
