"""Time, as everything here sees it, so that a test can run a ten-minute back-off in a millisecond.

Code that waits or stamps takes a `Clock`; `SystemClock` is the real one and `wasmlet.testing.FakeClock` the one that a
test moves by hand.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Protocol

import attrs

_RNG = random.Random()
"""For all who bring none of their own: to make one asks the system, and each pod would have several."""


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
        """The wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
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
    """A pause that grows from try to try.

    Attributes:
        initial: the first pause, in seconds.
        factor: how many times as long the next one is.
        cap: the longest pause, in seconds.
        jitter: the share by which a pause may be longer: 0.1 means up to 10 % more. So clients that failed together do
            not return together.
    """

    initial: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.1

    def pauses(self, rng: random.Random | None = None) -> Iterator[float]:
        """Yield the pauses in seconds, without end."""
        spread = rng or _RNG
        pause = self.initial
        while True:
            yield pause * (1 + self.jitter * spread.random())
            pause = min(pause * self.factor, self.cap)


@attrs.frozen
class Pacing:
    """What a caller needs to wait between two tries: the clock, the randomness and the pauses."""

    clock: Clock = attrs.field(factory=SystemClock)
    rng: random.Random = attrs.field(factory=random.Random)
    backoff: Backoff = Backoff(initial=0.2, cap=30, jitter=0.5)


class Retries:
    """When to try again what has failed or has ended, so that nothing is ever repeated without a pause.

        retries = Retries(Backoff(initial=1, cap=30, jitter=0.5), clock, rng)
        while True:
            retries.begin()
            try:
                await follow()
            except SomeError as error:
                log.warning(...)
            await retries.wait()

    Pauses grow from try to try, also after a try that ended without an error. They are short again after a try that
    lasted for `steady` seconds, or after `start_over`.

    Args:
        steady: seconds that a try has to last so that it counts as one that worked.
    """

    def __init__(
        self, backoff: Backoff, clock: Clock, rng: random.Random | None = None, *, steady: float = 10.0
    ) -> None:
        self._backoff = backoff
        self._clock = clock
        self._rng = rng or _RNG
        self._steady = steady
        self._pauses: Iterator[float] | None = None
        """None: the next pause is the first. Most tries need none."""
        self._began = math.inf

    def begin(self) -> None:
        """A try begins now. Without this call `wait` does not know how long a try lasted, and pauses go on growing."""
        self._began = self._clock.monotonic()

    def start_over(self) -> None:
        """The present try has achieved something: the next pause is the first."""
        self._pauses = None

    @property
    def steady(self) -> bool:
        """Whether the present try has lasted so long that it counts as one that worked."""
        return self._clock.monotonic() - self._began >= self._steady

    async def wait(self, *events: asyncio.Event, at_least: float = 0.0) -> None:
        """Wait before the next try.

        Args:
            events: any of them ends the pause.
            at_least: seconds that the other side asks for (`Retry-After`), which nothing cuts short.
        """
        if self.steady:
            self.start_over()
        self._began = math.inf
        if self._pauses is None:
            self._pauses = self._backoff.pauses(self._rng)
        seconds = next(self._pauses)
        if at_least:
            await self._clock.sleep(at_least)
        if seconds > at_least:
            await either(self._clock, seconds - at_least, *events)
