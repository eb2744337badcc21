"""Bringing an instance of a container to its end: preStop, its turn, the interrupt, all within one grace period.

WASI has no signals, so a guest is interrupted where a container gets SIGTERM; what is left of the grace period then
goes by before it is killed. A grace period may be shortened while it passes, and never gets longer again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

from wasmlet.clock import Clock
from wasmlet.errors import WasmletError
from wasmlet.runtime import hooks
from wasmlet.runtime.waiting import first_of
from wasmlet.worker import wire

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife
    from wasmlet.runtime.worker import ContainerRecord

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


class Ending:
    """The end of one instance. Whoever wants it to end waits for `task`; it goes on when they no longer do.

    Args:
        message: of the Killing event.
        after: ids of the containers that have to end first.
    """

    def __init__(
        self, life: ContainerLife, record: ContainerRecord, grace: float, message: str, after: Sequence[str]
    ) -> None:
        self.record = record
        self.grace = GracePeriod(life.pod.around.clock, grace)
        self._life = life
        self._after = after
        life.say("Normal", "Killing", message)
        self.task = life.pod.around.background(self._run())

    async def _run(self) -> None:
        client, grace, name = self._life.pod.around.client, self.grace, self.record.id
        if grace.left > 0 and self._has_hook():
            await grace.during(self._pre_stop())
        for other in self._after:
            await grace.during(client.wait(other, wire.ENDED))
        while True:
            grace.shortened.clear()
            await client.stop(name, 0 if grace.at_once else max(grace.left, MINIMUM_SECONDS))
            await first_of(client.wait(name, wire.ENDED), grace.shortened.wait())
            if (record := client.records.get(name)) is None or record.ended:
                return

    def _has_hook(self) -> bool:
        known = self._life.pod.pod is not None and self.record.state == wire.RUNNING
        return known and bool((self._life.spec.raw.get("lifecycle") or {}).get("preStop"))

    async def _pre_stop(self) -> None:
        life = self._life
        try:
            await hooks.run(life, "preStop", self.record)
        except (WasmletError, OSError):
            # What a command has written may be secret: the kubelet does not tell it either.
            life.say("Warning", "FailedPreStopHook", "PreStopHook failed")
