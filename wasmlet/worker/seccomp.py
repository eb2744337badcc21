"""seccomp: which system calls a process that runs guests may still make, however its engine is led astray.

An allow-list, as a classic BPF program (seccomp(2)): reading and writing what is open, opening below what landlock
leaves (`landlock`), memory, time, randomness, threads. Of the rest some fails with EPERM, so that a library that tries
something new goes on without it; what nothing here would ever do (`NEVER`: another program, another process's memory,
namespaces, mounts, the kernel itself) ends the process with SIGSYS, and the record of the container says so.

The program is made once, in the zygote; a child adds its pid and installs it (some 20 us).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Mapping

from . import linux

_ARCHITECTURES: Mapping[str, tuple[int, int]] = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Of `os.uname().machine`: what seccomp calls it, and the column of `_NUMBERS`."""

# Numbers of x86_64 and of aarch64; -1 where there is no such call.
_NUMBERS: Mapping[str, tuple[int, int]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, -1), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "ioctl": (16, 29), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "select": (23, -1), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, -1), "nanosleep": (35, 101),
    "getpid": (39, 172), "sendmsg": (46, 211), "recvmsg": (47, 212), "clone": (56, 220), "fork": (57, -1),
    "vfork": (58, -1), "execve": (59, 221), "exit": (60, 93), "kill": (62, 129), "uname": (63, 160), "fcntl": (72, 25),
    "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46), "getcwd": (79, 17), "readlink": (89, -1),
    "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "ptrace": (101, 117), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132), "fstatfs": (138, 44),
    "pivot_root": (155, 41), "prctl": (157, 167), "chroot": (161, 51), "mount": (165, 40), "umount2": (166, 39),
    "reboot": (169, 142), "init_module": (175, 105), "delete_module": (176, 106), "gettid": (186, 178),
    "futex": (202, 98), "sched_getaffinity": (204, 123), "getdents64": (217, 61), "restart_syscall": (219, 128),
    "fadvise64": (221, 223), "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "exit_group": (231, 94), "epoll_wait": (232, -1), "epoll_ctl": (233, 21), "tgkill": (234, 131),
    "kexec_load": (246, 104), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "rename": (82, -1), "mkdir": (83, -1), "rmdir": (84, -1), "unlink": (87, -1),
    "openat": (257, 56), "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38),
    "linkat": (265, 37), "symlinkat": (266, 36), "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72),
    "ppoll": (271, 73),
    "unshare": (272, 97), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "utimensat": (280, 88),
    "epoll_pwait": (281, 22), "fallocate": (285, 47), "eventfd2": (290, 19), "epoll_create1": (291, 20),
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
"""What ends a process that tries it."""

_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020080
"""A thread is allowed, a process is not; nor is any new namespace."""
_PR_SET_NAME = 15
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1033, 1034)
"""Duplicates, flags, locks, seals: nothing that has signals sent."""

_SIGNALS = ("kill", "tgkill")

_LD, _JEQ, _JSET, _JGE, _RET = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_INSTRUCTION = struct.Struct("=HBBI")


class Program:
    """The filter of this machine's architecture; what a process may do beside that is in the arguments.

    Raises:
        OSError: there is none for this architecture.
    """

    def __init__(self) -> None:
        machine = os.uname().machine
        if machine not in _ARCHITECTURES:
            raise OSError(errno.ENOTSUP, f"there is no seccomp program for {machine}")
        self._architecture, self._column = _ARCHITECTURES[machine]
        self._start = self._beginning()
        self._rest = self._listed()

    def install(self) -> None:
        """Bind this process, and all threads it starts from now on, to the program. no_new_privs has to be set.

        Raises:
            OSError: the kernel does not take it.
        """
        code = self._start + self._own(os.getpid()) + self._rest
        buffer = ctypes.create_string_buffer(code, len(code))
        program = _Filter(len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
        linux.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))

    def _number(self, name: str) -> int:
        return _NUMBERS[name][self._column]

    def _beginning(self) -> bytes:
        """Another architecture's numbers mean other calls."""
        known = _code((_LD, 0, 0, _ARCHITECTURE), (_JEQ, 1, 0, self._architecture), (_RET, 0, 0, _KILL))
        x32 = _code((_LD, 0, 0, _NUMBER), (_JGE, 0, 1, _X32), (_RET, 0, 0, _KILL))
        return known + x32

    def _own(self, pid: int) -> bytes:
        """abort() and raise() send a signal to this process, and to no other."""
        return b"".join(self._if(name, _one_of(0, (pid,))) for name in _SIGNALS)

    def _listed(self) -> bytes:
        answers = dict.fromkeys(NEVER, _KILL) | {"clone3": _ERRNO | errno.ENOSYS}  # glibc takes clone then
        checked = {
            "ioctl": _one_of(1, _IOCTLS),
            "fcntl": _one_of(1, _FCNTLS),
            "prctl": _one_of(0, (_PR_SET_NAME,)),
            "prlimit64": _zero(2),  # to ask, not to set
            "clone": _code(
                (_LD, 0, 0, _ARGUMENTS),
                (_JSET, 2, 0, _CLONE_NEW),
                (_JSET, 0, 1, _CLONE_THREAD),
                (_RET, 0, 0, _ALLOW),
                (_RET, 0, 0, _ERRNO | errno.EPERM),
            ),
        }
        plain = [name for name in _NUMBERS if name not in answers and name not in checked and name not in _SIGNALS]
        parts = [self._if(name, _code((_RET, 0, 0, _ALLOW))) for name in plain]
        parts += [self._if(name, part) for name, part in checked.items()]
        parts += [self._if(name, _code((_RET, 0, 0, answer))) for name, answer in answers.items()]
        return b"".join(parts) + _code((_RET, 0, 0, _ERRNO | errno.EPERM))

    def _if(self, name: str, then: bytes) -> bytes:
        """Instructions that are passed over unless it is this call; they end it one way or the other."""
        number = self._number(name)
        return b"" if number < 0 else _code((_JEQ, 0, len(then) // 8, number)) + then


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def available() -> bool:
    """Whether this kernel has seccomp with programs (PR_GET_SECCOMP answers; a filter is not tried)."""
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
            return {"allow", "errno", "kill_process"} <= set(file.read().split())
    except OSError:
        return False


def _code(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


def _one_of(argument: int, values: Iterable[int]) -> bytes:
    """Allowed if the low half of an argument is one of these; that is all of it for an int."""
    allowed = b"".join(_code((_JEQ, 0, 1, value & 0xFFFFFFFF), (_RET, 0, 0, _ALLOW)) for value in values)
    return _code((_LD, 0, 0, _ARGUMENTS + 8 * argument)) + allowed + _code((_RET, 0, 0, _ERRNO | errno.EPERM))


def _zero(argument: int) -> bytes:
    """Allowed if both halves of an argument are zero."""
    low, high = _ARGUMENTS + 8 * argument, _ARGUMENTS + 8 * argument + 4
    return _code(
        (_LD, 0, 0, low),
        (_JEQ, 0, 3, 0),
        (_LD, 0, 0, high),
        (_JEQ, 0, 1, 0),
        (_RET, 0, 0, _ALLOW),
        (_RET, 0, 0, _ERRNO | errno.EPERM),
    )
