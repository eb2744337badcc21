"""Frees memory that this process does not need any more, and gives it back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress

MANY = 250
"""After so many things have ended, what they have left is freed."""
PAUSE_SECONDS = 2.0
"""How long after that: much of what ends, ends together."""


def give_back() -> None:
    """Have the C library return freed memory, most of which it keeps otherwise. Takes some milliseconds."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # not with every C library
            ctypes.CDLL(None).malloc_trim(0)


def free() -> None:
    """Have the garbage collector look at everything, and give back what it frees. Takes some tens of milliseconds."""
    gc.collect()
    give_back()


class Leftovers:
    """Frees what many things have left that have ended, such as pods.

    Exceptions and the calls that they have passed through refer to each other, so that only the garbage collector frees
    what a cancelled task had. A node tells it to run seldom, because it would look at everything that lives.

    Args:
        free: frees it.
    """

    def __init__(self, free: Callable[[], None] = free) -> None:
        self._free = free
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def planned(self) -> bool:
        """Whether it is going to be freed soon."""
        return self._timer is not None

    def add(self) -> None:
        """Something has ended; called on the event loop."""
        self._count += 1
        if self._count >= MANY and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._now)

    def close(self) -> None:
        """Free nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _now(self) -> None:
        self._count, self._timer = 0, None
        self._free()
