"""Compresses full log files, one at a time, in a separate process, so that no guest's output has to wait for it.

The process is `compress <path>`: it replaces `path` by `path`.gz. If `path` is removed in the meantime, it leaves
neither. A kubelet names its compressed logs in the same way.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import signal
import sys

from .. import linux, wire
from ..log import log_problem


class Compressor:
    """The shim's queue of full log files, which are compressed one at a time, in a process of its own."""

    def __init__(self) -> None:
        self._queue: dict[str, None] = {}
        self._path = ""
        self.pid = 0

    def add(self, path: str) -> None:
        self._queue[path] = None
        self._next()

    def reaped(self, status: int) -> None:
        """The process has ended with this wait status."""
        if status:
            log_problem(f"compressing {self._path} failed with wait status {status}")
        self._let_go()
        self._next()

    def forget(self, log: str) -> None:
        """Compress no more files of this log, and stop compressing the one that is under way."""
        for path in [path for path in self._queue if _log_of(path) == log]:
            del self._queue[path]
        if self.pid and _log_of(self._path) == log:
            self.stop()
            self._next()

    def stop(self) -> None:
        """End the process, and reap it."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f"{self._path}.tmp")
        self.pid, self._path = 0, ""

    def _next(self) -> None:
        while not self.pid and self._queue:
            path = next(iter(self._queue))
            del self._queue[path]
            if not os.path.exists(path):  # removed while it waited
                continue
            command = [sys.executable, "-I", "-S", wire.CODE, "compress", path]
            try:
                environment, default = linux.kept_environment(), (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)
                self.pid = os.posix_spawn(sys.executable, command, environment, setsigmask=(), setsigdef=default)
                self._path = path
            except OSError as error:
                log_problem(f"cannot compress {path}: {error.strerror}")


def _log_of(path: str) -> str:
    return path.rpartition(".")[0]


def main(arguments: list[str]) -> int:
    """Compress one file."""
    linux.die_with_parent(signal.SIGKILL)
    linux.set_name("wasmlet-gzip")
    os.nice(19)
    compress(arguments[0])
    return 0


def compress(path: str) -> None:
    """Put `path`.gz in place of `path`. Where `path` has been removed, nothing is left of either."""
    unfinished, result = f"{path}.tmp", f"{path}.gz"
    try:
        with open(path, "rb") as source:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with (
                open(os.open(unfinished, flags, 0o600), "wb") as target,
                gzip.GzipFile("", "wb", 6, target, 0) as packed,
            ):
                shutil.copyfileobj(source, packed, 1 << 18)
        os.rename(unfinished, result)
    except FileNotFoundError:
        return
    try:
        os.unlink(path)
    except FileNotFoundError:  # the log was removed meanwhile, and its compressed file goes with it
        with contextlib.suppress(FileNotFoundError):
            os.unlink(result)
