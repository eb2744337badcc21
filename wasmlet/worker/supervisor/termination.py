"""A container's termination message: the end of a file that the guest may write, or the end of its log.

The rules are the kubelet's. The message is the last 4096 bytes of the file at `terminationMessagePath`. If the file is
empty, the policy is FallbackToLogsOnError and the exit code is not 0, it is the last 80 lines of the log, and at most
2048 bytes. The guest may have replaced the file by a link, a directory or a terabyte of data: reading it never leaves
its mount and never takes long. The shim reads it, so it is on record even if no node loop runs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import Any

from .. import wire

MAX_FILE = 4096
MAX_LOG = 2048
MAX_LOG_LINES = 80


class TerminationMessage:
    """The message of one container.

    Args:
        wanted: as `message` of the operation `run` (see `wire`).
        mounts: the container's mounts, which stay the caller's, open until `take` was called.

    Raises:
        wire.WireError: `wanted` is not of that form.
    """

    def __init__(self, wanted: Any, mounts: Sequence[int]) -> None:
        wanted = wanted or {}
        mount, path = wanted.get("mount"), wanted.get("path", "")
        parts = path.split("/") if isinstance(path, str) else []
        if mount is not None and (
            not isinstance(mount, int)
            or not 0 <= mount < len(mounts)
            or not parts
            or any(part in ("", ".", "..") or "\0" in part for part in parts)
        ):
            raise wire.WireError(f"expected the number of a mount and a path in it, found {str(wanted)[:200]!r}")
        self._parts = parts
        self._mount = -1 if mount is None else mounts[mount]
        self._tail: bytes | None = b"" if wanted.get("logs") else None

    def feed(self, data: bytes) -> None:
        """The container has written this to its log."""
        if self._tail is not None:
            self._tail = (self._tail + data[-MAX_LOG:])[-MAX_LOG:]

    def take(self, exit_code: int) -> str:
        """The message of a container that has ended with this code."""
        data = b""
        if self._mount >= 0:
            with contextlib.suppress(OSError):  # the file was never made, was removed, or is not a file any more
                data = _read(self._mount, self._parts)
        if not data and self._tail and exit_code != 0:
            data = b"".join(self._tail.splitlines(keepends=True)[-MAX_LOG_LINES:])
        return data.decode(errors="replace")


def _read(mount: int, parts: list[str]) -> bytes:
    """The end of a regular file, without following a link on the way to it."""
    opened = [mount]
    try:
        for part in parts[:-1]:
            opened.append(os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened[-1]))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        opened.append(os.open(parts[-1], flags, dir_fd=opened[-1]))
        found = os.fstat(opened[-1])
        if not stat.S_ISREG(found.st_mode):
            return b""
        return os.pread(opened[-1], MAX_FILE, max(0, found.st_size - MAX_FILE))
    finally:
        wire.close(opened[1:])
