"""A container's log, in the format that kubelets and log collectors read (CRI, `pkg/kubelet/kuberuntime/logs`).

One entry per line: `2006-01-02T15:04:05.000000000Z stdout F text`. `F` ends a line of the guest; `P` is a part of a
line that goes on in the next entry of that stream: of one longer than `MAX_LINE` bytes, and of the last one when the
guest wrote no newline at its end. So what the guest wrote can be had back byte for byte, whatever it is.

`Splitter` turns chunks into entries and holds at most one unfinished line; `LogFile` is where they go.
`wasmlet.runtime.logs` reads the result.
"""

from __future__ import annotations

import os
import time

MAX_LINE = 16 * 1024
"""Bytes of a guest's line in one entry, as containerd has it."""


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


class LogFile:
    """The file that one instance of a container logs to. Everything that is to know of rotation will be here.

    A disk that is full loses the guest's output and stops nothing: `lost` counts the bytes.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self.lost = 0

    def write(self, entries: bytes) -> None:
        """Append whole entries. A write that the disk cuts short is taken back, so that no entry is half there."""
        if not entries:
            return
        try:
            written = os.write(self._file, entries)
            if written < len(entries):
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                self.lost += len(entries)
        except OSError:
            self.lost += len(entries)

    def close(self) -> None:
        os.close(self._file)
