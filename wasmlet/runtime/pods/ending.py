"""Ends an instance of a container within one grace period: the preStop hook, its turn, and the interrupt.

WASI has no signals, so a guest is interrupted where a container would get SIGTERM. It is killed when the rest of the
grace period has passed. A running grace period can be shortened, but never extended. Its turn: some containers may
only end after others (`after`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import Breakable, Event, first_of
from wasmlet.runtime.shim.client import ShimClient
from wasmlet.worker import wire

MINIMUM_SECONDS = 2.0
"""The least time after the interrupt, even if preStop has used up the grace period, as with a kubelet."""


class GracePeriod:
    """A grace period that has begun; it can be shortened."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds
        self.at_once = seconds <= 0
        self.shortened = Event()
        self._wait = Breakable()

    @property
    def left(self) -> float:
        return max(0.0, self._end - self._clock.monotonic())

    def shorten(self, seconds: float) -> None:
        """No more than these, from now."""
        end = self._clock.monotonic() + seconds
        if end < self._end:
            self._end, self.at_once = end, seconds <= 0
            self.shortened.set()
            self._wait.break_off()

    async def during(self, work: Awaitable[Any]) -> None:
        """Wait for the work until it is over, at the latest until the grace period is; then the work is cancelled."""
        await first_of(work, self._over())

    async def unless_shortened(self, work: Coroutine[Any, Any, Any]) -> None:
        """Wait for the work until it is over, or the period has been shortened since `shortened` was cleared last."""
        if self.shortened.is_set():
            work.close()
        else:
            await self._wait.finished(work)

    async def _over(self) -> None:
        while (left := self.left) > 0:
            self.shortened.clear()
            await first_of(self._clock.sleep(left), self.shortened.wait())


async def end(
    container_id: str,
    grace: GracePeriod,
    client: ShimClient,
    *,
    pre_stop: Callable[[], Awaitable[None]] | None,
    after: Sequence[str],
) -> None:
    """Bring an instance to its end; return when it has ended.

    Args:
        pre_stop: runs the preStop hook; None where the container has none. It raises nothing.
        after: ids of the containers that have to end first.
    """
    if grace.left > 0 and pre_stop is not None:
        await grace.during(pre_stop())
    for other in after:
        await grace.during(client.wait(other, wire.ENDED))
    while True:
        grace.shortened.clear()
        await client.stop(container_id, 0 if grace.at_once else max(grace.left, MINIMUM_SECONDS))
        await grace.unless_shortened(client.wait(container_id, wire.ENDED))
        if (record := client.records.get(container_id)) is None or record.ended:
            return


@attrs.frozen
class Ending:
    """The end of one instance, which is under way; it goes on when nobody waits for `task` any more."""

    container_id: str
    grace: GracePeriod
    task: asyncio.Task[None]


class Endings:
    """Ends the instances of one container, one after another, and each once, whoever asks for it.

    Args:
        background: runs a task that its caller does not wait for.
    """

    def __init__(
        self, client: ShimClient, clock: Clock, background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self._client = client
        self._clock = clock
        self._background = background
        self._newest: Ending | None = None

    def under_way(self, container_id: str) -> bool:
        """Whether this instance is being brought to its end."""
        newest = self._newest
        return newest is not None and newest.container_id == container_id and not newest.task.done()

    def begin(
        self, container_id: str, grace: float, *, pre_stop: Callable[[], Awaitable[None]] | None, after: Sequence[str]
    ) -> None:
        """Bring an instance to its end, which goes on by itself; see `end`.

        Args:
            grace: its grace period in seconds.
        """
        period = GracePeriod(self._clock, grace)
        work = end(container_id, period, self._client, pre_stop=pre_stop, after=after)
        self._newest = Ending(container_id, period, self._background(work))

    def hurry(self, grace: float) -> None:
        """Give the end that is under way no more than these seconds from now. It never gets more time than it had."""
        assert self._newest is not None
        self._newest.grace.shorten(grace)

    async def ended(self) -> None:
        """Return when the end that was begun last is there. Cancelled: it goes on."""
        assert self._newest is not None
        await asyncio.shield(self._newest.task)
