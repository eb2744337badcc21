"""The few Linux system calls that Python's standard library does not have.

Most are small functions around prctl(2). They raise `OSError` if a call fails.
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
_PR_GET_CHILD_SUBREAPER = 37
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_THREAD = 0x00010000
_CLONE_NEWNET = 0x40000000
_LAST = ctypes.c_uint(-1)

_libc = ctypes.CDLL(None, use_errno=True)
_number, _text = _libc["prctl"], _libc["prctl"]
_number.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_text.argtypes = (ctypes.c_int, ctypes.c_char_p, *[ctypes.c_ulong] * 3)
_syscall, _unshare = _libc["syscall"], _libc["unshare"]
_syscall.restype, _syscall.argtypes = ctypes.c_long, (ctypes.c_long,)
_unshare.argtypes = (ctypes.c_int,)
_close_range = getattr(_libc, "close_range", None)
"""None where the C library is older than the call."""

KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""The environment variables that the shim passes on to its processes: what an interpreter may need, and the
certificates that TLS trusts. The shim itself has few variables more."""


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
    """Make a system call by number, for calls without a libc function. Returns its result; -1 only without `check`.

    Raises:
        OSError: the call failed, with `check`.
    """
    result = int(_syscall(number, *arguments))
    if result < 0 and check:
        failed = ctypes.get_errno()
        raise OSError(failed, f"system call {number}: {os.strerror(failed)}")
    return result


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process `signal_number` when its parent ends. Not passed on by fork."""
    prctl(_PR_SET_PDEATHSIG, signal_number)


def become(user: int, group: int, groups: list[int]) -> None:
    """Become another user permanently, without root's privileges. Only for a process with one thread."""
    os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def has_threads() -> bool:
    """Whether this process has more than one thread."""
    if _unshare(_CLONE_THREAD) == 0:  # this changes nothing, and fails where there are more threads
        return False
    return len(os.listdir("/proc/self/task")) > 1


def close_from(first: int) -> None:
    """Close all descriptors of this process from this number on, also those that were inherited by mistake."""
    if _close_range is not None and _close_range(first, _LAST, 0) == 0:
        return
    for number in map(int, os.listdir("/proc/self/fd")):
        if number >= first:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed already
                os.close(number)


def set_name(name: str) -> None:
    """Set the name that ps shows for this process; at most 15 bytes are used."""
    prctl(_PR_SET_NAME, name.encode()[:15])


def become_subreaper() -> None:
    """Have orphans among this process's descendants become its children."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def has_subreapers() -> bool:
    """Whether `become_subreaper` can work here: under qemu-user it cannot."""
    found = ctypes.c_int()
    try:
        prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(found))
    except OSError:
        return False
    return True


def no_new_privileges() -> None:
    """Keep this process, and all that it starts, from gaining rights by a set-uid program."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def enter_network(namespace: int) -> None:
    """Move the calling thread into a network namespace, given by a descriptor: its new sockets belong to that.

    Raises:
        OSError: it is no network namespace (EINVAL), or this process has no permission (EPERM).
    """
    if _libc.setns(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWNET)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def join_group(cgroup_fds: Iterable[int]) -> None:
    """Move this process (of one thread) into the control groups of these descriptors. Its children start there, too."""
    for cgroup_fd in cgroup_fds:
        os.write(cgroup_fd, b"0")


def boot_id() -> str:
    """An id of this boot of the machine, which is different after each reboot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
