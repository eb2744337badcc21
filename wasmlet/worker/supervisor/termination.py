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
from ..fields import at_least

PODS = "pods"
"""The directory with the files of pods, in the state directory."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_FILE = 4096
MAX_LOG = 2048
MAX_LOG_LINES = 80


def make(wanted: Any, descriptors: list[int]) -> None:
    """Make the directory of a termination message with an empty file, if that is asked, and add it to the mounts.

    Args:
        wanted: as `message` of the operation `run` (see `wire`).
        descriptors: of that operation; what is opened becomes one of them.

    Raises:
        wire.WireError: `wanted` is not of that form.
        OSError: it cannot be made, or is there already.
    """
    directory = (wanted or {}).get("make")
    if directory is None:
        return
    mount, name, user = wanted.get("mount"), wanted.get("path"), wanted.get("user")
    parts = directory.split("/") if isinstance(directory, str) else []
    if (
        len(parts) != 3
        or parts[0] != PODS
        or not all(_is_name(part) for part in (*parts, name))
        or not at_least(user, 0)
        or type(mount) is not int
        or not 0 <= mount <= len(descriptors) - 2
    ):
        raise wire.WireError(f"expected a directory to make below {PODS}/, found {str(wanted)[:200]!r}")
    above, name_of_it = os.path.split(directory)
    with contextlib.suppress(FileExistsError):
        os.mkdir(above, 0o700)
    opened = [os.open(above, _DIRECTORY)]
    try:
        os.mkdir(name_of_it, 0o700, dir_fd=opened[0])
        made = os.open(name_of_it, _DIRECTORY, dir_fd=opened[0])
        descriptors.insert(2 + mount, made)
        os.chmod(f"/proc/self/fd/{made}", 0o755)  # whatever the umask is
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        opened.append(os.open(name, flags, 0o600, dir_fd=made))
        os.fchmod(opened[1], 0o666)
        if user is not None:
            os.fchown(opened[1], user, user)
            os.chown(name_of_it, user, user, dir_fd=opened[0], follow_symlinks=False)
    finally:
        wire.close(opened)


def made_of(wanted: Any) -> str:
    """The directory that was made; "" for none."""
    return (wanted or {}).get("make") or ""


def _is_name(part: Any) -> bool:
    return isinstance(part, str) and part not in ("", ".", "..") and "/" not in part and "\0" not in part


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
            not isinstance(mount, int) or not 0 <= mount < len(mounts) or not parts or not all(map(_is_name, parts))
        ):
            raise wire.WireError(f"expected the number of a mount and a path in it, found {str(wanted)[:200]!r}")
        self._parts = parts
        self._mount = -1 if mount is None else mounts[mount]
        self._tail: bytes | None = b"" if wanted.get("logs") else None

    def feed(self, data: bytes) -> None:
        """The container has written this to its log."""
        if self._tail is not None:
            self._tail = (self._tail + data[-MAX_LOG:])[-MAX_LOG:]

    def clear(self, directory: str) -> bool:
        """Remove the directory that was made for the message, and the one above it if it is empty.

        Returns:
            Whether it is gone; False where the guest has left more in it.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._parts[0], dir_fd=self._mount)
            os.rmdir(directory)
        except OSError:
            return False
        with contextlib.suppress(OSError):  # others are in it
            os.rmdir(os.path.dirname(directory))
        return True

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
            opened.append(os.open(part, _DIRECTORY, dir_fd=opened[-1]))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        opened.append(os.open(parts[-1], flags, dir_fd=opened[-1]))
        found = os.fstat(opened[-1])
        if not stat.S_ISREG(found.st_mode):
            return b""
        return os.pread(opened[-1], MAX_FILE, max(0, found.st_size - MAX_FILE))
    finally:
        wire.close(opened[1:])
