"""seccomp: limits the system calls of a process that runs guests, even if a guest takes control of its engine.

The filter is a list of allowed calls, as a classic BPF program (seccomp(2)). Allowed are: reading and writing open
files, opening files that landlock allows (`landlock`), memory, time, random numbers, threads, and using a socket that
was handed over. Most other calls fail with EPERM, so that a library that tries something new can go on without it. The
calls in `NEVER` (another program, another process's memory, namespaces, mounts, the kernel itself) have no legitimate
use here: they end the process with SIGSYS, and the container's record says so.

No allowed call takes a network address, because the broker makes, binds and connects the sockets of guests. That is why
`sendmsg` is not allowed: it takes an address, and the kernel accepts one also for a connected UDP socket, and for a TCP
socket that is only bound (MSG_FASTOPEN, which landlock does not check). Guests send with `write` and `writev` instead.
`guest_calls` has one exception.

A program is made once, in the zygote. A child puts its pid into it and installs it (about 90 us). The broker has a
program of its own (`broker_calls`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Mapping

from .. import linux

_ARCHITECTURES: Mapping[str, tuple[int, int]] = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""By `os.uname().machine`: seccomp's number of the architecture, and its column in `_NUMBERS`."""

# Numbers of x86_64 and of aarch64; -1 where there is no such call.
_NUMBERS: Mapping[str, tuple[int, int]] = {
    "read": (0, 63), "write": (1, 64), "open": (2, -1), "close": (3, 57), "stat": (4, -1), "fstat": (5, 80),
    "lstat": (6, -1), "poll": (7, -1), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "ioctl": (16, 29), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "select": (23, -1), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, -1), "nanosleep": (35, 101),
    "getpid": (39, 172), "socket": (41, 198), "connect": (42, 203), "sendto": (44, 206), "recvfrom": (45, 207),
    "sendmsg": (46, 211), "recvmsg": (47, 212), "shutdown": (48, 210), "bind": (49, 200), "listen": (50, 201),
    "getsockname": (51, 204), "getpeername": (52, 205), "setsockopt": (54, 208), "getsockopt": (55, 209),
    "clone": (56, 220), "fork": (57, -1),
    "vfork": (58, -1), "execve": (59, 221), "exit": (60, 93), "kill": (62, 129), "uname": (63, 160), "fcntl": (72, 25),
    "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46), "getcwd": (79, 17), "rename": (82, -1),
    "mkdir": (83, -1), "rmdir": (84, -1), "link": (86, -1), "unlink": (87, -1), "symlink": (88, -1),
    "readlink": (89, -1),
    "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "ptrace": (101, 117), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132), "fstatfs": (138, 44),
    "pivot_root": (155, 41), "prctl": (157, 167), "chroot": (161, 51), "mount": (165, 40), "umount2": (166, 39),
    "reboot": (169, 142), "init_module": (175, 105), "delete_module": (176, 106), "gettid": (186, 178),
    "futex": (202, 98), "sched_getaffinity": (204, 123), "getdents64": (217, 61), "restart_syscall": (219, 128),
    "fadvise64": (221, 223), "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "exit_group": (231, 94), "epoll_wait": (232, -1), "epoll_ctl": (233, 21), "tgkill": (234, 131),
    "kexec_load": (246, 104), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "openat": (257, 56), "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38),
    "linkat": (265, 37), "symlinkat": (266, 36), "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72),
    "ppoll": (271, 73),
    "unshare": (272, 97), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "utimensat": (280, 88),
    "epoll_pwait": (281, 22), "fallocate": (285, 47), "accept4": (288, 242), "eventfd2": (290, 19),
    "epoll_create1": (291, 20),
    "dup3": (292, 24), "pipe2": (293, 59), "preadv": (295, 69), "pwritev": (296, 70), "perf_event_open": (298, 241),
    "prlimit64": (302, 261), "open_by_handle_at": (304, 265), "setns": (308, 268), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "finit_module": (313, 273), "renameat2": (316, 276), "getrandom": (318, 278),
    "memfd_create": (319, 279), "kexec_file_load": (320, 294), "bpf": (321, 280), "execveat": (322, 281),
    "userfaultfd": (323, 282), "membarrier": (324, 283), "preadv2": (327, 286), "pwritev2": (328, 287),
    "statx": (332, 291), "rseq": (334, 293), "pidfd_send_signal": (424, 424), "io_uring_setup": (425, 425),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
    "clone3": (435, 435), "openat2": (437, 437), "pidfd_getfd": (438, 438), "faccessat2": (439, 439),
    "process_madvise": (440, 440), "epoll_pwait2": (441, 441), "mount_setattr": (442, 442), "futex_waitv": (449, 449),
}  # fmt: skip

NEVER = (
    "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "unshare",
    "setns", "chroot", "pivot_root", "mount", "umount2", "open_tree", "move_mount", "fsopen", "fsmount",
    "mount_setattr",
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "open_by_handle_at", "keyctl", "add_key", "request_key",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "process_madvise",
    "pidfd_send_signal",
)  # fmt: skip
"""Calls that end the process."""

_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020080
"""A thread is allowed, a process is not; nor is any new namespace."""
_PR_SET_NAME = 15
_IOCTLS = (0x5401, 0x5411, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCOUTQ, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1033, 1034)
"""Duplicates, flags, locks, seals: no command that makes the kernel send signals."""
_SOCKOPTS = {1: (7, 8, 9), 6: (4, 5, 6, 25), 0: (2,), 41: (16,)}
"""Allowed socket options by level: buffer sizes and keep-alive (socket); keep-alive times and count, and the low-water
mark of unsent data (TCP); hop limits (IPv4, IPv6). None names an address, an interface or another process."""
_MSG_FASTOPEN = 0x20000000
_CLONE_NEWNET = 0x40000000

_NOT_GUESTS = ("socket", "connect", "bind", "sendto", "recvfrom", "setsockopt", "getsockopt", "sendmsg")
"""The calls in `_NUMBERS` that guests may not make."""
_BROKERS = (
    "read", "write", "close", "poll", "ppoll", "mmap", "mprotect", "munmap", "brk", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "mremap", "madvise", "getpid", "socket", "connect", "bind", "sendmsg", "recvmsg", "recvfrom",
    "shutdown", "getsockname", "getpeername", "setsockopt", "getsockopt", "exit", "exit_group", "gettimeofday",
    "getuid", "geteuid", "getppid", "gettid", "sigaltstack", "futex", "restart_syscall", "clock_gettime", "epoll_wait",
    "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_create1", "getrandom", "rseq", "membarrier", "sched_yield",
    "fstat", "newfstatat", "lseek", "getrusage", "sysinfo", "set_robust_list", "uname",
)  # fmt: skip
"""The calls that the broker may make without conditions; `broker_calls` has the others."""

_LD, _JA, _JEQ, _JSET, _JGE, _RET = 0x20, 0x05, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE = _ERRNO | errno.EPERM
_X32 = 0x40000000
"""On x86_64, numbers from here on belong to the x32 ABI; other architectures have no such numbers."""
_OWN = 0xFFFFFFF0
"""Stands for the pid of the process that installs the program."""

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_INSTRUCTION = struct.Struct("=HBBI")
_Instruction = tuple[int, int, int, int]
"""One BPF instruction: code, jump if true, jump if false, value."""
_Code = list[_Instruction]


class Program:
    """A filter program for this machine's architecture.

    Args:
        calls: the program part for each call by name: it allows or refuses. Other calls fail with EPERM.

    Raises:
        OSError: this architecture is not supported.
    """

    def __init__(self, calls: Mapping[str, _Code]) -> None:
        machine = os.uname().machine
        if machine not in _ARCHITECTURES:
            raise OSError(errno.ENOTSUP, f"there is no list of system calls for {machine}")
        architecture, self._column = _ARCHITECTURES[machine]
        # Call numbers of another architecture (32-bit, for example) mean other calls.
        start = [(_LD, 0, 0, _ARCHITECTURE), (_JEQ, 1, 0, architecture), _ends(_KILL), (_LD, 0, 0, _NUMBER)]
        code = start + _tree(self._segments(calls))
        own = [place for place, (_, _, _, value) in enumerate(code) if value == _OWN]
        self._code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)
        # As the kernel takes it, made once: a child shares it with the zygote but for the page that has its pid.
        self._buffer = ctypes.create_string_buffer(self._code, len(self._code))
        base = ctypes.addressof(self._buffer)
        self._own = [ctypes.c_uint32.from_address(base + place * _INSTRUCTION.size + 4) for place in own]
        self._filter = _Filter(len(code), base)
        self._address = ctypes.addressof(self._filter)

    def install(self) -> None:
        """Restrict this process, with all its threads, to the program. no_new_privs must be set.

        Raises:
            OSError: the kernel does not take it.
        """
        linux.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self.program())

    def program(self) -> int:
        """The address of the program for this process, as the kernel takes it."""
        pid = os.getpid()
        for place in self._own:
            place.value = pid
        return self._address

    def _segments(self, calls: Mapping[str, _Code]) -> list[tuple[int, _Code]]:
        """The program as segments, ascending: from which call number on, which code decides."""
        numbered = {_NUMBERS[name][self._column]: code for name, code in calls.items()}
        numbered.pop(-1, None)
        segments: list[tuple[int, _Code]] = [(0, [_ends(_REFUSE)])]
        for number in sorted(numbered):
            for first, code in ((number, numbered[number]), (number + 1, [_ends(_REFUSE)])):
                if segments[-1][0] == first:
                    segments.pop()
                if not segments or segments[-1][1] != code:
                    segments.append((first, code))
        return [*segments, (_X32, [_ends(_KILL)])]


def guest_calls(*, datagrams: bool = False) -> Mapping[str, _Code]:
    """The allowed calls of a process that runs guests, by name; every other call is refused.

    Args:
        datagrams: allow `sendmsg` (without MSG_FASTOPEN), for UDP sockets that are bound and not connected: they need
            a destination address. Only for a process in a pod's own network namespace.
    """
    answers = {name: [_ends(_ALLOW)] for name in _NUMBERS if name not in _NOT_GUESTS}
    if datagrams:
        answers["sendmsg"] = _without(2, _MSG_FASTOPEN)
    answers |= {name: [_ends(_KILL)] for name in NEVER}
    # abort() and raise() send a signal to this process; to no other one.
    answers |= {name: _one_of(0, (_OWN,)) for name in ("kill", "tgkill")}
    answers["clone3"] = [_ends(_ERRNO | errno.ENOSYS)]  # glibc then uses clone, whose flags are checked
    answers["clone"] = [
        (_LD, 0, 0, _ARGUMENTS),
        (_JSET, 2, 0, _CLONE_NEW),
        (_JSET, 0, 1, _CLONE_THREAD),
        _ends(_ALLOW),
        _ends(_REFUSE),
    ]
    answers |= {name: _pairs(_SOCKOPTS) for name in ("setsockopt", "getsockopt")}
    answers["ioctl"] = _one_of(1, _IOCTLS)
    answers["fcntl"] = _one_of(1, _FCNTLS)
    answers["prctl"] = _one_of(0, (_PR_SET_NAME,))
    answers["prlimit64"] = _zero(2)  # to read limits, not to set them
    return answers


def broker_calls() -> Mapping[str, _Code]:
    """The allowed calls of the broker: it makes sockets, enters network namespaces, and opens no file."""
    answers = {name: [_ends(_KILL)] for name in NEVER}
    answers |= {name: [_ends(_ALLOW)] for name in _BROKERS}
    answers["setns"] = _one_of(1, (_CLONE_NEWNET,))
    answers["sendto"] = _zero(4)  # no address: where it is connected to
    answers["ioctl"] = _one_of(1, _IOCTLS)
    answers["fcntl"] = _one_of(1, _FCNTLS)
    answers |= {name: _one_of(0, (_OWN,)) for name in ("kill", "tgkill")}
    return answers


def _tree(segments: list[tuple[int, _Code]]) -> _Code:
    """A binary search for the call number. Short paths matter: on install the kernel tests all numbers."""
    if len(segments) == 1:
        return segments[0][1]
    half = len(segments) // 2
    below, above = _tree(segments[:half]), _tree(segments[half:])
    first = segments[half][0]
    if len(below) < 256:
        return [(_JGE, len(below), 0, first), *below, *above]
    return [(_JGE, 0, 1, first), (_JA, 0, 0, len(below)), *below, *above]


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _ends(answer: int) -> _Instruction:
    return (_RET, 0, 0, answer)


def _one_of(argument: int, values: Iterable[int]) -> _Code:
    """Allow if the low 32 bits of an argument are one of these values; for an int, that is the whole argument."""
    code = [(_LD, 0, 0, _ARGUMENTS + 8 * argument)]
    for value in values:
        code += [(_JEQ, 0, 1, value), _ends(_ALLOW)]
    return [*code, _ends(_REFUSE)]


def _pairs(pairs: Mapping[int, Iterable[int]]) -> _Code:
    """Allow if the low 32 bits of the second and third argument are one of these pairs."""
    code = [(_LD, 0, 0, _ARGUMENTS + 8)]
    for first, others in pairs.items():
        found = _one_of(2, others)
        code += [(_JEQ, 0, len(found), first), *found]
    return [*code, _ends(_REFUSE)]


def _without(argument: int, flags: int) -> _Code:
    """Allow if the low 32 bits of an argument have none of these flags."""
    return [(_LD, 0, 0, _ARGUMENTS + 8 * argument), (_JSET, 0, 1, flags), _ends(_REFUSE), _ends(_ALLOW)]


def _zero(argument: int) -> _Code:
    """Allow if an argument (64 bits) is zero."""
    low, high = _ARGUMENTS + 8 * argument, _ARGUMENTS + 8 * argument + 4
    halves = [(_LD, 0, 0, low), (_JEQ, 0, 3, 0), (_LD, 0, 0, high), (_JEQ, 0, 1, 0)]
    return [*halves, _ends(_ALLOW), _ends(_REFUSE)]
