"""Time, as everything here sees it, so that a test can run a ten-minute back-off in a millisecond.

Code that waits or stamps takes a `Clock`; `SystemClock` is the real one and `wasmlet.testing.FakeClock` the one that a
test moves by hand.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Protocol

import attrs


class Clock(Protocol):
    """Wall time, monotonic time and waiting."""

    def now(self) -> datetime:
        """The wall-clock time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; their zero means nothing."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds; cancellation ends the wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def either(clock: Clock, seconds: float, *events: asyncio.Event) -> None:
    """Return when the time is over or one of the events is set."""
    waits = [asyncio.ensure_future(wait) for wait in (clock.sleep(seconds), *(event.wait() for event in events))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


@attrs.frozen
class Backoff:
    """A pause that grows by `factor` from `initial` up to `cap` (seconds), spread by `jitter`.

    `jitter` is the share by which a pause may be longer: 0.1 means up to 10 % more, so that many clients that failed
    together do not return together.
    """

    initial: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.1

    def pauses(self, rng: random.Random | None = None) -> Iterator[float]:
        """Yield the pauses in seconds, without end."""
        spread = rng or random.Random()
        pause = self.initial
        while True:
            yield pause * (1 + self.jitter * spread.random())
            pause = min(pause * self.factor, self.cap)
