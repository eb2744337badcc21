"""Standard output and standard error of a command, where the reader may be gone or the disk full.

A command ends when it cannot write to standard output: without a message where the reader has gone (`| head`), since it
has what it wanted, and with one otherwise. What cannot be written to standard error is dropped: a node goes on when its
log cannot be written.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

import click

from wasmlet.errors import WasmletError

BROKEN_PIPE = 141
"""The exit code of a command whose reader has gone, as shells count SIGPIPE."""


def format_option() -> click.Option:
    """The option `-o`, which a command gets as `output`: lines for people, or JSON."""
    return click.Option(
        ["-o", "--output"],
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="Lines for people, or JSON.",
    )


class OutputLost(WasmletError):
    """Standard output cannot be written to.

    Attributes:
        code: the exit code that this calls for.
        gone: whether its reader has gone, which is no error to tell of.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror}")
        self.gone = error.errno == errno.EPIPE
        self.code = BROKEN_PIPE if self.gone else 1


class _Writer(io.RawIOBase):
    """Writes to a descriptor; after a failure it takes everything and writes nothing, so that cleaning up can go on.

    Args:
        vital: whether the first failure is raised, as `OutputLost`.
    """

    def __init__(self, descriptor: int, *, vital: bool) -> None:
        self._descriptor = descriptor
        self._vital = vital
        self._lost = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        if self._lost:
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            raise
        except OSError as error:
            if not self._vital:
                return len(data)  # this is lost; what comes later may not be
            self._lost = True
            raise OutputLost(error) from None


def guard() -> None:
    """Make both streams of this process behave as the module says. Other streams in their place are left alone."""
    _open_the_closed()
    if (out := sys.__stdout__) is not None and sys.stdout is out:
        sys.stdout = _stream(out, vital=True)
    guard_errors()


def guard_errors() -> None:
    """Make standard error drop what cannot be written. Another stream in its place is left alone."""
    if (err := sys.__stderr__) is not None and sys.stderr is err:
        sys.stderr = _stream(err, vital=False)


def _open_the_closed() -> None:
    """Open /dev/null for each of the descriptors 0 to 2 that the caller has closed (`>&-`).

    Otherwise a socket could get such a number. libuv ends the process when it has to close such a descriptor, and child
    processes would write into the socket.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - they last as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _stream(stream: TextIO, *, vital: bool) -> TextIO:
    stream.flush()
    writer = io.BufferedWriter(_Writer(stream.fileno(), vital=vital))
    return io.TextIOWrapper(
        writer, stream.encoding, stream.errors, line_buffering=stream.isatty() or not vital, write_through=not vital
    )
