"""Fills the holes in the zygote's memory, so that what its children allocate lies side by side.

Imports and rehearsals free memory here and there. (A rehearsal runs a small guest in the zygote before any real one, so
that Python has adapted its bytecode when children are forked.) A child would get its memory from these
holes, and each of them is on a page that it shares with the zygote until it writes there: a few bytes would cost a
page. So the zygote takes the holes for itself before it forks. That saves a sleeping server 0.5 MiB.
"""

from __future__ import annotations

import ctypes
from typing import Any

_STEP, _LARGEST = 16, 512
"""Bytes: Python's own allocator has pools for blocks of each multiple of the one, up to the other."""
_POOL, _HEADER = 16384, 48
"""Bytes of a pool, and of what it begins with."""
_MOST_BLOCKS = 4096
_HEAP_SIZES = (*(1 << shift for shift in range(16, 9, -1)), *range(_LARGEST, _STEP, -_STEP))
_TCACHE = 1 << 17
"""Bytes: glibc keeps at most so much that it does not count as free, though it gives it away first."""

_taken: list[Any] = []


class _Info(ctypes.Structure):
    """The answer of mallinfo2(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def fill() -> None:
    """Take all holes, for as long as this process lives."""
    _fill_pools()
    _fill_heap()


def _fill_pools() -> None:
    """In the pools of Python's allocator, with objects of each size."""
    empty = b"".__sizeof__()
    for size in range(_STEP, _LARGEST + 1, _STEP):
        before, run, longest, whole = 0, 1, 1, (_POOL - _HEADER) // size
        for count in range(_MOST_BLOCKS):
            # An object of Python's takes 16 bytes, a float 24, and bytes more than 32.
            made: Any = bytes(size - empty) if size > empty else (object(), float(size))[size > _STEP]
            _taken.append(made)
            run = run + 1 if id(made) == before + size else 1
            before = id(made)
            longest = max(longest, run)
            if run == whole:  # all of a pool, so that the next one is new, too
                break
            if longest == 1 and count >= 3 * whole:  # there are no pools, as in a debug build
                break


def _fill_heap() -> None:
    """In the heap of glibc, from the largest size to the smallest one."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return
    malloc, free, end, information = libc.malloc, libc.free, libc.sbrk, libc.mallinfo2
    malloc.argtypes, malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    free.argtypes, free.restype = (ctypes.c_void_p,), None
    end.argtypes, end.restype = (ctypes.c_ssize_t,), ctypes.c_void_p
    information.argtypes, information.restype = (), _Info
    found = information()
    left = found.fordblks - found.keepcost + _TCACHE
    for size in _HEAP_SIZES:
        # Behind all holes is what nobody has used yet.
        unused = end(0) - information().keepcost
        while left >= size and (taken := malloc(size)):
            if taken >= unused:
                free(taken)
                break
            left -= size
