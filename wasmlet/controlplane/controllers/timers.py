"""Deadlines of many keys, and one wait for the earliest of them, so that an idle controller costs nothing."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from wasmlet.clock import Clock

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """A deadline for each key, in the clock's monotonic seconds. A later one takes the place of an earlier one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0
        self._wake = asyncio.Event()

    def set(self, key: K, seconds: float) -> None:
        """Set the deadline of a key to this many seconds from now."""
        at = self._clock.monotonic() + seconds
        known = self._due.get(key)
        self._due[key] = at
        if known is None or at < known:
            self._push(key, at)
        # Otherwise the entry in the heap comes up too early and is put back then. So a deadline that moves on with each
        # heartbeat costs nothing here.

    def _push(self, key: K, at: float) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        if self._heap[0][1] == self._count:
            self._wake.set()

    def cancel(self, key: K) -> None:
        """Forget the deadline of a key, if it has one."""
        self._due.pop(key, None)

    def __contains__(self, key: K) -> bool:
        return key in self._due

    async def next(self) -> K:
        """Wait until a key is due, forget its deadline and return it."""
        while True:
            while self._heap and self._due.get(self._heap[0][2], self._heap[0][0] + 1) != self._heap[0][0]:
                _, _, key = heapq.heappop(self._heap)
                if (at := self._due.get(key)) is not None and not any(entry[2] == key for entry in self._heap):
                    self._push(key, at)
            self._wake.clear()
            if not self._heap:
                await self._wake.wait()
                continue
            seconds = self._heap[0][0] - self._clock.monotonic()
            if seconds <= 0:
                _, _, key = heapq.heappop(self._heap)
                del self._due[key]
                return key
            await self._sleep(seconds)

    async def _sleep(self, seconds: float) -> None:
        """Wait for this time, or until an earlier deadline was set."""
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
