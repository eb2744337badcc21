"""landlock: restricts a process, or one thread, to opening files below the directories that it was given.

It needs no privileges (landlock(7), Linux 5.13). It holds however a file is reached: by a path, by a descriptor, or
through /proc/self/fd. It also keeps read-only mounts read-only. Newer kernels can restrict TCP (ABI 4), and signals and
abstract unix sockets to other processes (ABI 6), too. What a kernel does not support is left out.
"""

from __future__ import annotations

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
"""The rights that a rule for a file (not a directory) may have."""
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All file rights that each ABI version knows. A ruleset first takes away all of them."""
_NET = 3
_SCOPES = 3
READ = _READ_FILE | _READ_DIR
WRITE = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
"""Without the rights to make devices, pipes and sockets: a guest makes none."""


def abi() -> int:
    """The landlock ABI version of this kernel.

    Raises:
        OSError: the kernel has no landlock (ENOSYS), or it is switched off (EOPNOTSUPP).
    """
    return linux.syscall(_CREATE_RULESET, None, 0, _VERSION)


def create(version: int, *, files: bool = True, tcp: bool = True) -> int:
    """Make a ruleset that allows nothing yet; returns its descriptor. It also forbids signals to other processes.

    Args:
        version: the result of `abi`.
        files: whether to restrict files.
        tcp: whether to restrict TCP.

    Raises:
        OSError: the kernel refuses.
    """
    handled = _handled(version) if files else 0
    attributes = struct.pack("=QQQ", handled, _NET if version >= 4 and tcp else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    return linux.syscall(_CREATE_RULESET, attributes, size, 0)


def allow(ruleset: int, descriptor: int, rights: int, version: int) -> None:
    """Add a rule: allow what lies below this directory, or this file, with the rights `READ` or `WRITE`.

    Raises:
        OSError: the kernel refuses.
    """
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _FILE
    rule = struct.pack("=Qi", rights & _handled(version), descriptor)
    try:
        linux.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    except OSError as error:
        if error.errno != errno.EBADFD:  # EBADFD: the file is in memory only, has no path, and is not restricted
            raise


def restrict_self(ruleset: int) -> None:
    """Restrict the calling thread, and everything it starts, to the ruleset, forever. no_new_privs must be set.

    Raises:
        OSError: the kernel refuses.
    """
    linux.syscall(_RESTRICT_SELF, ruleset, 0)


def _handled(version: int) -> int:
    return _HANDLED[min(version, max(_HANDLED))]
