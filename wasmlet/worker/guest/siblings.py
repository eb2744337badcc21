"""Forks a sibling: a process that is a child of this process's parent, as clone(2) makes it with CLONE_PARENT.

Python and glibc have only fork(2). What they do beside the system call is done here:

- glibc keeps the thread's id in memory, and the kernel is told where. The kernel writes the child's id there
  (CLONE_CHILD_SETTID), and clears it when the child ends, as for any process of glibc's.
- Python's `os.fork` calls `PyOS_BeforeFork` and so on, which run what `os.register_at_fork` was given.

All else that glibc does at a fork is for processes with several threads. So this is only for one with a single thread.
"""

from __future__ import annotations

import ctypes
import os
import signal

from .. import linux

_CLONE = {"x86_64": 56, "aarch64": 220}
"""The number of clone by machine. The last two arguments are in another order on each, so both are the id's address:
the other one of them, the thread-local storage, is not looked at without CLONE_SETTLS."""
_CLONE_PARENT, _CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
_FLAGS = _CLONE_PARENT | _CLONE_CHILD_CLEARTID | _CLONE_CHILD_SETTID | signal.SIGCHLD
_PR_GET_TID_ADDRESS = 40

_before, _after_in_parent, _after_in_child = (
    ctypes.pythonapi[f"PyOS_{name}"] for name in ("BeforeFork", "AfterFork_Parent", "AfterFork_Child")
)
for _function in (_before, _after_in_parent, _after_in_child):
    _function.restype, _function.argtypes = None, ()
_clone = ctypes.PyDLL(None, use_errno=True)["syscall"]  # PyDLL keeps Python's lock, which a fork needs
_clone.restype, _clone.argtypes = ctypes.c_long, (ctypes.c_long,) * 6


class Siblings:
    """Forks siblings of this process, which must have one thread.

    Raises:
        OSError: this machine or its C library has no way to do it.
    """

    def __init__(self) -> None:
        number = _CLONE.get(os.uname().machine)
        if number is None:
            raise OSError(f"the number of clone(2) on {os.uname().machine} is not known")
        place = ctypes.c_void_p()
        linux.prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(place))
        if not place.value or ctypes.c_int.from_address(place.value).value != os.getpid():
            raise OSError("the C library keeps the id of the thread at another place")
        self._arguments = (number, _FLAGS, 0, 0, place.value, place.value)

    def fork(self) -> int:
        """Fork: returns 0 in the child, and its pid in this process.

        Raises:
            OSError: the kernel refuses, or a filter of system calls in front of it.
        """
        _before()
        pid = int(_clone(*self._arguments))
        if pid == 0:
            _after_in_child()
            return 0
        failed = ctypes.get_errno() if pid < 0 else 0
        _after_in_parent()
        if failed:
            raise OSError(failed, os.strerror(failed))
        return pid
