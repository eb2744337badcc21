"""A container's termination message: the end of a file that the guest may write, or the end of its log.

The rules are the kubelet's. The message is the last 4096 bytes of the file at `terminationMessagePath`. If the file is
empty, the policy is FallbackToLogsOnError and the exit code is not 0, it is the last 80 lines of the log, and at most
2048 bytes. The guest may have replaced the file by a link, a directory or a terabyte of data: reading it never leaves
its mount and never takes long. The shim reads it, so it is on record even if no node loop runs.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Sequence
from typing import Any

from .. import wire
from ..fields import at_least
from .removals import DIRECTORY, Removals

PODS = "pods"
"""The directory with the files of pods, in the state directory."""
MAX_FILE = 4096
MAX_LOG = 2048
MAX_LOG_LINES = 80
_FULL = (errno.ENOSPC, errno.EDQUOT)


def make(wanted: Any, descriptors: list[int], removals: Removals) -> None:
    """Make the directory of a termination message with an empty file, if that is asked, and add it to the mounts.

    Args:
        wanted: as `message` of the operation `run` (see `wire`).
        descriptors: of that operation; what is opened becomes one of them.
        removals: what is still to be removed; an earlier directory of this name goes first.

    Raises:
        wire.WireError: `wanted` is not of that form; or it cannot be made, or is there already.
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
    removals.remove_now(directory)
    try:
        descriptors.insert(2 + mount, _make(directory, name, user))
    except OSError as error:
        more = "; make room on the disk of the node's state directory" if error.errno in _FULL else ""
        raise wire.WireError(f"the file for the termination message cannot be made: {error.strerror}{more}") from error


def _make(directory: str, name: str, user: int | None) -> int:
    """Make a directory with an empty file of this name, both the user's; the directory's descriptor."""
    above, name_of_it = os.path.split(directory)
    with contextlib.suppress(FileExistsError):
        os.mkdir(above, 0o700)
    opened = [os.open(above, DIRECTORY)]
    made = -1
    try:
        os.mkdir(name_of_it, 0o700, dir_fd=opened[0])
        made = os.open(name_of_it, DIRECTORY, dir_fd=opened[0])
        os.chmod(f"/proc/self/fd/{made}", 0o755)  # whatever the umask is
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        opened.append(os.open(name, flags, 0o600, dir_fd=made))
        os.fchmod(opened[1], 0o666)
        if user is not None:
            os.fchown(opened[1], user, user)
            os.chown(name_of_it, user, user, dir_fd=opened[0], follow_symlinks=False)
        return made
    except BaseException:
        if made >= 0:  # or it would be in the way of the next try
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=made)
            os.rmdir(name_of_it, dir_fd=opened[0])
            os.close(made)
        raise
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

    def alone_in(self, directory: str) -> str:
        """The path of the message's file, if nothing but that is in the directory that was made for it; "" otherwise.

        The guest is over, so it stays like this.
        """
        try:
            with os.scandir(directory) as entries:
                found = list(itertools.islice(entries, 2))  # the guest may have left any number
        except OSError:
            return ""
        alone = all(entry.name == self._parts[0] and not entry.is_dir(follow_symlinks=False) for entry in found)
        return f"{directory}/{self._parts[0]}" if alone else ""

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
            opened.append(os.open(part, DIRECTORY, dir_fd=opened[-1]))
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        opened.append(os.open(parts[-1], flags, dir_fd=opened[-1]))
        found = os.fstat(opened[-1])
        if not stat.S_ISREG(found.st_mode):
            return b""
        return os.pread(opened[-1], MAX_FILE, max(0, found.st_size - MAX_FILE))
    finally:
        wire.close(opened[1:])
