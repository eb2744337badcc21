"""Directories in memory (tmpfs).

They are used for secrets and tokens, which must not reach a disk; for emptyDir volumes that ask for memory; and for
what is made at each start of a pod or container (`network.address`, `staging`), because memory is faster.

The files of secret, projected and downwardAPI volumes are in one directory of the node in /dev/shm, with mode 0700;
the link `memory` in the state directory leads to it. An emptyDir of medium Memory is a tmpfs of its own if this
process may mount one (root), so that the kernel limits its size. Otherwise it is in /dev/shm, too, and its size is
measured. Without /dev/shm, all of this is in the state directory. All functions but `Memory.at_hand` block.
"""

from __future__ import annotations

import ctypes
import os
import stat
import tempfile
import threading
from pathlib import Path

SHARED = Path("/dev/shm")

_making = threading.Lock()
"""Held while the directory is made: threads of several pods may ask for it at the same time."""

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

_libc = ctypes.CDLL(None, use_errno=True)


class Memory:
    """The memory-backed directory of one state directory.

    Args:
        state_dir: mode 0700, ours alone; the link `memory` is kept there.
    """

    def __init__(self, state_dir: Path) -> None:
        self._link = state_dir / "memory"
        self._fallback = state_dir
        self._known = Path()
        """Where the link led when it was looked at last: a path is long in the making."""
        self._quick = False
        """Whether that is in memory."""

    def find(self) -> Path:
        """The directory; it is made at the first call. Without /dev/shm it is the state directory itself."""
        with _making:
            return self.existing() or self._make()

    def at_hand(self) -> Path | None:
        """The directory where it was found before and is in memory, so that no disk is needed for what is done there.

        None: another method has to find it first, which may block, or there is no such directory.
        """
        try:
            return self._known if self._quick and _is_ours(os.lstat(self._known)) else None
        except OSError:
            return None

    def _make(self) -> Path:
        try:
            if not _in_memory(SHARED):
                return self._fallback
            made = Path(tempfile.mkdtemp(prefix="wasmlet-", dir=SHARED))
        except OSError:
            return self._fallback
        new = self._link.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            new.symlink_to(made)
            new.rename(self._link)
        except OSError:
            made.rmdir()
            raise
        return self.existing() or made

    def existing(self) -> Path | None:
        """The directory, if it exists: after a reboot it is gone, and only the link is left."""
        try:
            where = os.readlink(self._link)
            found = os.lstat(where)
        except OSError:
            return None
        target = self._known
        if str(target) != where:
            target, self._quick = Path(where), False
            self._known = target
            self._quick = target.parent == SHARED and _in_memory(SHARED)
        return target if _is_ours(found) else None

    def close(self) -> None:
        """Remove the directory if nothing is in it."""
        target = self.existing()
        if target is None:
            return
        pods = target / "pods"
        try:
            if pods.exists():
                pods.rmdir()
            target.rmdir()
        except OSError:
            return
        self._link.unlink()


def mount(directory: Path, size: int | None) -> bool:
    """Mount a tmpfs of at most that many bytes on an empty directory; False where this process may not mount."""
    options = "mode=0777" + (f",size={size}" if size is not None else "")
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    target = os.fsencode(directory)
    for text in (f"{options},noswap", options):  # noswap: Linux 6.4
        if _libc.mount(b"tmpfs", target, b"tmpfs", flags, text.encode()) == 0:
            return True
    return False


def unmount(directory: Path) -> None:
    """Take away what is mounted on a directory; its content is gone with the last process that uses it."""
    while directory.is_mount():
        if _libc.umount2(os.fsencode(directory), ctypes.c_int(_MNT_DETACH | _UMOUNT_NOFOLLOW)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))


def _is_ours(found: os.stat_result) -> bool:
    """Whether it is a directory that this user alone may use."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _in_memory(path: Path) -> bool:
    lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    return any(line.split(" ")[4] == str(path) and " - tmpfs " in line for line in lines)
