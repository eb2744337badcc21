"""A clock that stands still until a test moves it, so that a ten-minute back-off takes no time."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

ROUNDED = 1e-6
"""How many seconds a sum of seconds may be wrong because of rounding."""


class FakeClock:
    """Time as a test tells it (a `wasmlet.clock.Clock`).

    Args:
        start: the wall-clock time at first; by default the real one, since others in the test use real timestamps.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or datetime.now(UTC)
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._changed = asyncio.Event()

    def now(self) -> datetime:
        """The wall-clock time, aware, in UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds of this clock: until `advance` has moved it so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper = (self._elapsed + seconds, asyncio.Event())
        self._sleepers.append(sleeper)
        self._changed.set()
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    def advance(self, seconds: float) -> None:
        """Move the time on by so many seconds; sleeps that end by then return."""
        self._elapsed += seconds
        for deadline, event in self._sleepers:
            if deadline <= self._elapsed:
                event.set()

    async def next_sleep(self, at_least: float = 0.0, at_most: float = math.inf) -> float:
        """Wait until a task sleeps on this clock; return how many seconds the shortest sleep has left.

        With bounds: wait until what the shortest sleep has left is within them, apart from rounding.
        """
        while True:
            due = [deadline - self._elapsed for deadline, event in self._sleepers if not event.is_set()]
            if due and at_least - ROUNDED <= min(due) <= at_most + ROUNDED:
                return min(due)
            self._changed.clear()
            await self._changed.wait()

    async def until_asleep(self, sleepers: int = 1) -> float:
        """Wait until so many tasks sleep at once; return how many seconds the shortest sleep has left."""
        while True:
            due = [deadline - self._elapsed for deadline, event in self._sleepers if not event.is_set()]
            if len(due) >= sleepers:
                return min(due)
            self._changed.clear()
            await self._changed.wait()
