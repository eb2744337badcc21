"""Our ends of the pipes and terminals that are a guest's streams, for reading and writing on the event loop.

The other ends are passed to the guest's process. Our ends do not block, and have at most one reader and one writer.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
from types import TracebackType

from wasmlet.concurrency import ready

CHUNK = 64 * 1024


class Pipe:
    """This side of one. Owns the descriptor."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor

    def __enter__(self) -> Pipe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; may be called again. Reads and writes must have ended."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    async def read(self) -> bytes:
        """What there is, as soon as there is something; b"" once no writer is left."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self.descriptor, CHUNK)
            except BlockingIOError:
                await ready(self.descriptor, loop.add_reader, loop.remove_reader)
            except OSError as error:
                if error.errno == errno.EIO:  # how a terminal ends
                    return b""
                raise

    async def write(self, data: bytes) -> None:
        """Write all of it, as fast as it is read.

        Raises:
            BrokenPipeError: no reader is left.
        """
        loop, rest = asyncio.get_running_loop(), memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:
                await ready(self.descriptor, loop.add_writer, loop.remove_writer)
            except OSError as error:
                if error.errno == errno.EIO:
                    raise BrokenPipeError(error.errno, "the terminal is closed") from error
                raise

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of a terminal."""
        size = struct.pack("HHHH", min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, size)
