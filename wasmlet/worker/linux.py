"""The few calls to Linux that Python's standard library has no name for.

Most are plain functions over prctl(2); an error is an `OSError`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_THREAD = 0x00010000
_CLONE_NEWNET = 0x40000000
_LAST = ctypes.c_uint(-1)

_libc = ctypes.CDLL(None, use_errno=True)
_number, _text = _libc["prctl"], _libc["prctl"]
_number.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_text.argtypes = (ctypes.c_int, ctypes.c_char_p, *[ctypes.c_ulong] * 3)
_close_range = getattr(_libc, "close_range", None)
"""None where the C library is older than the call."""

KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Of the shim's environment, which itself has next to nothing, what its processes get: what an interpreter may need,
and whom TLS trusts."""


def kept_environment() -> dict[str, str]:
    """The environment of a process that the shim starts."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}


def prctl(option: int, argument: int | bytes, third: int = 0) -> None:
    """prctl(2); raises `OSError`."""
    call = _text if isinstance(argument, bytes) else _number
    if call(option, argument, third, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def syscall(number: int, *arguments: Any, check: bool = True) -> int:
    """A system call that libc may have no function for; its result, -1 included unless `check`.

    Raises:
        OSError: it fails.
    """
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0 and check:
        failed = ctypes.get_errno()
        raise OSError(failed, f"system call {number}: {os.strerror(failed)}")
    return result


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process `signal_number` when its parent ends. Not passed on by fork."""
    prctl(_PR_SET_PDEATHSIG, signal_number)


def become(user: int, group: int, groups: list[int]) -> None:
    """Be another user, for good, with none of what root may do. Only for a process of one thread."""
    os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def has_threads() -> bool:
    """Whether this process has more threads than the one that asks."""
    if _libc.unshare(_CLONE_THREAD) == 0:  # this changes nothing, and fails where there are more threads
        return False
    return len(os.listdir("/proc/self/task")) > 1


def close_from(first: int) -> None:
    """Close every descriptor of this process from that number on, also those that were passed on by mistake."""
    if _close_range is not None and _close_range(first, _LAST, 0) == 0:
        return
    for number in map(int, os.listdir("/proc/self/fd")):
        if number >= first:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed already
                os.close(number)


def set_name(name: str) -> None:
    """The name that ps shows for this process; 15 bytes of it."""
    prctl(_PR_SET_NAME, name.encode()[:15])


def become_subreaper() -> None:
    """Have orphans among this process's descendants become its children."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    """Keep this process, and all that it starts, from gaining rights by a set-uid program."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def enter_network(namespace: int) -> None:
    """Have the calling thread make its sockets in this network namespace, a descriptor, from now on.

    Raises:
        OSError: it is none (EINVAL), or this process may not (EPERM).
    """
    if _libc.setns(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWNET)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def join_group(cgroup_fds: Iterable[int]) -> None:
    """Move this process, which has one thread, into the control group of these descriptors; children are born there."""
    for cgroup_fd in cgroup_fds:
        os.write(cgroup_fd, b"0")


def boot_id() -> str:
    """What tells this boot of the machine from every other."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
