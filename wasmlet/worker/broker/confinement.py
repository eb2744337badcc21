"""What the broker may still do: make sockets, and enter pods' network namespaces. It reads what guests send.

It opens no file (landlock), is left two capabilities where it is root, and has a list of system calls of its own.
"""

from __future__ import annotations

import contextlib
import resource

from .. import linux
from ..guest import confine, landlock, seccomp

_CAPABILITIES = 1 << 10 | 1 << 21
"""CAP_NET_BIND_SERVICE, and CAP_SYS_ADMIN: that is what setns(2) asks for."""


def enter() -> None:
    """Bind this process, which has one thread, for good.

    Raises:
        OSError: the kernel refuses a part that this machine has.
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
