"""landlock: a process, or one thread of it, opens nothing but what lies below the directories that it was given.

It needs no rights (landlock(7), Linux 5.13), holds whatever path or descriptor a file is reached by, /proc/self/fd
among them, and is how a read-only mount stays one. Newer kernels add TCP (ABI 4), and signals and abstract sockets to
processes outside (ABI 6); what a kernel does not know is left out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from .. import linux

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
"""What a rule for a file, not a directory, may say."""
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""By ABI, every right to files that is known; all of them are taken away first."""
_NET = 3
_SCOPES = 3
READ = _READ_FILE | _READ_DIR
WRITE = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
"""No devices, no pipes, no sockets: a guest makes none."""


def abi() -> int:
    """The version that this kernel has.

    Raises:
        OSError: it has none (ENOSYS), or is told not to use it (EOPNOTSUPP).
    """
    return linux.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))


def create(version: int, *, files: bool = True, tcp: bool = True) -> int:
    """A ruleset that leaves nothing yet, as a descriptor: no file and no TCP, unless one is false; nobody to signal.

    Args:
        version: what `abi` said.

    Raises:
        OSError: the kernel refuses.
    """
    handled = _handled(version) if files else 0
    attributes = struct.pack("=QQQ", handled, _NET if version >= 4 and tcp else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    return linux.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))


def allow(ruleset: int, descriptor: int, rights: int, version: int) -> None:
    """Leave what lies below this directory, or this file, with `READ` or `WRITE`.

    Raises:
        OSError: the kernel refuses.
    """
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _FILE
    rule = struct.pack("=Qi", rights & _handled(version), descriptor)
    try:
        linux.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
    except OSError as error:
        if error.errno != errno.EBADFD:  # EBADFD: the file is in memory only, has no path, and is not restricted
            raise


def restrict_self(ruleset: int) -> None:
    """Restrict the calling thread, and all that it starts, to the ruleset, for good. no_new_privs has to be set.

    Raises:
        OSError: the kernel refuses.
    """
    linux.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))


def _handled(version: int) -> int:
    return _HANDLED[min(version, max(_HANDLED))]
