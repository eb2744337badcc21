"""landlock: a process, or one thread of it, opens nothing but what lies below the directories that it was given.

It needs no rights (landlock(7), Linux 5.13), holds whatever path or descriptor a file is reached by, /proc/self/fd
among them, and is how a read-only mount stays one. Newer kernels add TCP (ABI 4), and signals and abstract sockets to
processes outside (ABI 6); what a kernel does not know is left out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from . import linux

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
    """The version that this kernel has; 0 where it has none, or is told not to."""
    version = linux.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION), check=False)
    return max(0, version)


def restrict(allowed: Iterable[tuple[int, int]] | None, version: int) -> None:
    """Leave the calling thread, and what it starts, these files and directories only. no_new_privs has to be set.

    Args:
        allowed: descriptors, each with `READ` or `WRITE`; None leaves all files as they are.
        version: what `abi` said.

    Raises:
        OSError: the kernel refuses.
    """
    handled = 0 if allowed is None else _HANDLED[min(version, max(_HANDLED))]
    attributes = struct.pack("=QQQ", handled, _NET if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = linux.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for descriptor, rights in allowed or ():
            _add(ruleset, descriptor, rights & handled)
        linux.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _add(ruleset: int, descriptor: int, rights: int) -> None:
    try:
        _rule(ruleset, descriptor, rights)
    except OSError as error:
        if error.errno == errno.EINVAL:  # no directory
            _rule(ruleset, descriptor, rights & _FILE)
        elif error.errno != errno.EBADFD:  # in memory only: nobody is kept from what has no place in the tree
            raise


def _rule(ruleset: int, descriptor: int, rights: int) -> None:
    rule = struct.pack("=Qi", rights, descriptor)
    linux.syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
