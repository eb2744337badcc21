"""Bringing an instance of a container to its end: preStop, its turn, the interrupt, all within one grace period.

WASI has no signals, so a guest is interrupted where a container gets SIGTERM; what is left of the grace period then
goes by before it is killed. A grace period may be shortened while it passes, and never gets longer again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wasmlet.clock import Clock
from wasmlet.concurrency import first_of
from wasmlet.runtime.shim.client import ShimClient
from wasmlet.worker import wire

MINIMUM_SECONDS = 2.0
"""What a guest has after the interrupt even where preStop has used up its grace period, as with a kubelet."""


class GracePeriod:
    """Seconds from now that may become fewer."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds
        self.at_once = seconds <= 0
        self.shortened = asyncio.Event()

    @property
    def left(self) -> float:
        return max(0.0, self._end - self._clock.monotonic())

    def shorten(self, seconds: float) -> None:
        """No more than these, from now."""
        end = self._clock.monotonic() + seconds
        if end < self._end:
            self._end, self.at_once = end, seconds <= 0
            self.shortened.set()

    async def during(self, work: Awaitable[Any]) -> None:
        """Wait for the work until it is over, at the latest until the grace period is; then the work is cancelled."""
        await first_of(work, self._over())

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
        await first_of(client.wait(container_id, wire.ENDED), grace.shortened.wait())
        if (record := client.records.get(container_id)) is None or record.ended:
            return
