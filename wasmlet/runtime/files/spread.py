"""Has the file system put the directories in a directory far apart, as they have nothing to do with each other.

ext4 puts a directory and its files beside those of its parent, and gives an inode that was freed to nobody for the next
one to five minutes. So where many directories come and go, as those of pods do, each new file makes it look through all
that have gone: with a thousand pods that takes a millisecond of CPU for each. Below a directory that has the attribute
T (chattr(1)), each directory has a place of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS, where a long has eight bytes."""
_TOP = 0x00020000
"""FS_TOPDIR_FL."""
_FLAGS = struct.Struct("l")


def make(top: Path, *names: str) -> None:
    """Make a directory for this user alone, and these in it; what is made in any of them is put far apart. Blocks.

    Raises:
        OSError: they cannot be made.
    """
    top.mkdir(mode=0o700, parents=True, exist_ok=True)
    spread(top)
    for name in names:
        (top / name).mkdir(mode=0o700, exist_ok=True)
        spread(top / name)


def spread(directory: Path) -> bool:
    """Have what is made in this directory put far apart; False where the file system does not know that. Blocks.

    Raises:
        OSError: there is no such directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            (flags,) = _FLAGS.unpack(fcntl.ioctl(descriptor, _GET_FLAGS, _FLAGS.pack(0)))
            if not flags & _TOP:
                fcntl.ioctl(descriptor, _SET_FLAGS, _FLAGS.pack(flags | _TOP))
            return True
        return False
    finally:
        os.close(descriptor)
