"""Directories in memory.

They are for secrets and tokens, which should reach no disk, for emptyDir volumes that ask for memory, and for what is
made for each pod and each start of a container (`network.address`, `staging`), because that is quicker.

Files of secret, projected and downwardAPI volumes lie below one directory of the node's own in /dev/shm, mode 0700,
which the link `memory` in the state directory names. An emptyDir of medium Memory is a tmpfs of its own where this
process may mount one (root), so its size is held by the kernel; elsewhere it lies in /dev/shm too, and its size is
measured. Without /dev/shm all of it lies in the state directory. Everything blocks.
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
"""Threads of several pods come at once, by a `Memory` of their own or by the same."""

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

    def find(self) -> Path:
        """The directory, made when first needed; the state directory itself where there is no memory to be had."""
        with _making:
            return self.existing() or self._make()

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
        return made

    def existing(self) -> Path | None:
        """The directory if there is one: it does not outlive the machine, the link does."""
        try:
            target = Path(os.readlink(self._link))
            found = target.lstat()
        except OSError:
            return None
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        return target if ours else None

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


def _in_memory(path: Path) -> bool:
    lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    return any(line.split(" ")[4] == str(path) and " - tmpfs " in line for line in lines)
