"""Decides which module is compiled next: small modules do not wait for big ones, and big ones are not delayed forever.

Compile time grows with a module's size, from milliseconds to minutes. So there are three size classes, and each has
places of its own. If all places of a class are taken, modules wait in a queue. Its order is by the time at which each
module would have been finished if it had been started when it came. So a small module goes before a bigger one, but
nobody can be overtaken without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
from collections.abc import AsyncIterator, Callable

import attrs

ORDERS = (2**20, 8 * 2**20, 2**63)
"""The largest module of each size class, in bytes: compiled in less than a second, in some seconds, and the rest."""

SECONDS_PER_BYTE = 1e-6
"""How long compiling takes, about (measured: 1 s for each MiB of what Go makes)."""


@attrs.define(eq=False)
class _Places:
    """Those of one order of size."""

    free: int
    waiting: list[tuple[float, int, asyncio.Future[None]]] = attrs.field(factory=list)

    def give_back(self) -> None:
        """A place is free: the first of those that wait has it."""
        while self.waiting:
            _, _, place = heapq.heappop(self.waiting)
            if not place.done():  # a cancelled one is left out
                place.set_result(None)
                return
        self.free += 1


def places() -> int:
    """As many as there are processors that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


class Turns:
    """The places in which modules are compiled.

    Args:
        places: how many there are for each order of size.
        now: the monotonic clock, in seconds.

    Attributes:
        reading: holds as many modules as there are places while they are read, before their turn.
    """

    def __init__(self, places: int, now: Callable[[], float]) -> None:
        self.reading = asyncio.Semaphore(places)
        self._orders = [(most, _Places(places)) for most in ORDERS]
        self._now = now
        self._came = 0

    @contextlib.asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Wait for a place for a module of that many bytes, and have it."""
        own = next(order for most, order in self._orders if size <= most)
        if own.free:
            own.free -= 1
        else:
            await self._wait(own, size)
        try:
            yield
        finally:
            own.give_back()

    async def _wait(self, own: _Places, size: int) -> None:
        place = asyncio.get_running_loop().create_future()
        self._came += 1
        heapq.heappush(own.waiting, (self._now() + size * SECONDS_PER_BYTE, self._came, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given a place just now
                own.give_back()
            raise
