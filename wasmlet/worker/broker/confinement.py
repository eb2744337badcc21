"""Restricts the broker's process to what it needs: making sockets and entering network namespaces.

The broker reads what guests send, so an attack on it must not lead further. It
opens no file (landlock), keeps two capabilities if it runs as root, and has its own list of allowed system calls.
"""

from __future__ import annotations

import contextlib
import resource

from .. import linux
from ..guest import confine, landlock, seccomp

_CAPABILITIES = 1 << 10 | 1 << 21
"""CAP_NET_BIND_SERVICE for low ports, and CAP_SYS_ADMIN, which setns(2) requires."""


def enter() -> None:
    """Restrict this process, for the rest of its life. It must have one thread.

    Raises:
        OSError: the kernel refuses a restriction that this machine supports.
    """
    linux.no_new_privileges()
    missing = confine.missing()
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_NPROC):
        with contextlib.suppress(ValueError):
            resource.setrlimit(limit, (0, 0))
    if not missing["landlock"]:
        landlock.restrict_self(landlock.create(landlock.abi(), tcp=False))
    confine.keep_capabilities(_CAPABILITIES)
    if not missing["seccomp"]:
        seccomp.Program(seccomp.broker_calls()).install()
