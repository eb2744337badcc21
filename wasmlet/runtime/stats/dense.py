"""CPU and memory usage of each container in a dense worker. There the guests are threads of one process.

The CPU time is that of the guest's thread. The kernel only counts the memory of the whole process. So a container's
memory is what its guest has touched of its own linear memory, plus an equal share of the rest (stacks, the engine,
compiled modules). The values of all containers add up to that of the worker. All functions block.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

_PAGE = os.sysconf("SC_PAGE_SIZE")
_ENTRY = 8
"""Bytes of /proc/PID/pagemap for a page; the highest two bits say that it is in memory or in swap."""
_AT_ONCE = 64 * 1024
_HAS_PAGE = bytes(range(0x40, 0x100))


@attrs.frozen
class Thread:
    """A container of a worker: its thread, and the address of its memory (0: not known)."""

    thread: int
    memory: int


def cpu(pid: int, thread: int) -> int:
    """CPU time that a thread has taken, in nanoseconds.

    Raises:
        OSError: it has ended.
    """
    return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text("ascii").split()[0])


def memory(pid: int, total: int, guests: Sequence[Thread]) -> dict[int, int]:
    """Bytes by thread, of a process that has `total` bytes in memory.

    Raises:
        OSError: the process has ended.
    """
    starts, ends = _writable(pid)
    own = {}
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pages:
        for guest in guests:
            own[guest.thread] = sum(_touched(pages.fileno(), *part) for part in _parts(starts, ends, guest.memory))
    share = max(0, total - sum(own.values())) // max(1, len(own))
    return {thread: touched + share for thread, touched in own.items()}


def _writable(pid: int) -> tuple[list[int], list[int]]:
    """Where the writable mappings of a process begin and end, ascending."""
    starts, ends = [], []
    for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
        place, rights = line.split(b" ", 2)[:2]
        if rights.startswith(b"rw"):
            start, _, end = place.partition(b"-")
            starts.append(int(start, 16))
            ends.append(int(end, 16))
    return starts, ends


def _parts(starts: Sequence[int], ends: Sequence[int], address: int) -> Iterable[tuple[int, int]]:
    """The mappings of one linear memory: from its address on without a gap; a guard region comes after it."""
    index = bisect.bisect_left(starts, address)
    while index < len(starts) and starts[index] == address:
        yield address, ends[index]
        address = ends[index]
        index += 1


def _touched(pagemap: int, start: int, end: int) -> int:
    """Bytes of a mapping that have a page."""
    count = 0
    for begin in range(start, end, _AT_ONCE * _PAGE):
        pages = min(_AT_ONCE, (end - begin) // _PAGE)
        highest = os.pread(pagemap, pages * _ENTRY, begin // _PAGE * _ENTRY)[_ENTRY - 1 :: _ENTRY]
        count += len(highest) - len(highest.translate(None, _HAS_PAGE))
    return count * _PAGE
