"""Frees memory that this process does not need any more, and gives it back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress

MANY = 250
"""After so many things have ended, memory is given back, and the garbage collector looks at everything."""
MOST = 16 * MANY
"""After so many at the latest it does that, however little it finds."""
LITTLE = 5
"""It finds little where it finds fewer objects than this for each thing that has ended."""
PAUSE_SECONDS = 2.0
"""How long after that: much of what ends, ends together."""


def give_back() -> None:
    """Have the C library return freed memory, most of which it keeps otherwise. Takes some milliseconds."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # not with every C library
            ctypes.CDLL(None).malloc_trim(0)


class Leftovers:
    """Frees what many things have left that have ended, such as pods.

    What ends leaves next to nothing that only the garbage collector frees, as far as it is our own. Errors of other
    libraries, and the calls that they have passed through, may refer to each other. To look for that takes some tens of
    milliseconds, and more the more is alive, and a node has the collector do it seldom. So it is done here, the more
    seldom the less is found.

    Args:
        collect: frees what is in circles of references, and returns how many objects these were.
        trim: gives freed memory back to the system.
    """

    def __init__(self, collect: Callable[[], int] = gc.collect, trim: Callable[[], None] = give_back) -> None:
        self._collect = collect
        self._trim = trim
        self._count = 0
        self._uncollected = 0
        """How many have ended since the last collection."""
        self._often = MANY
        """After so many the next one is made."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def planned(self) -> bool:
        """Whether memory is going to be given back soon."""
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
        self._uncollected += self._count
        self._count, self._timer = 0, None
        if self._uncollected >= self._often:
            little = self._collect() < LITTLE * self._uncollected
            self._often = min(2 * self._often, MOST) if little else MANY
            self._uncollected = 0
        self._trim()
