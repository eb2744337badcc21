"""Lets a pod fail as a whole: what is run for it is ended when there is a reason, or its active deadline has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any

import attrs

from wasmlet.clock import Clock
from wasmlet.concurrency import Breakable, Event, first_of
from wasmlet.model.pod import Pod


@attrs.frozen
class PodFailure:
    """Why a pod has to fail, and how long its containers have, in seconds."""

    reason: str
    message: str
    grace: float


Now = Callable[[], tuple[Pod, datetime | None]]
"""The pod as it is, and when it was started."""


class Failing:
    """The failure of one pod.

    Args:
        background: runs a task that its caller does not wait for.
        passed: told the message of its event when the pod's deadline has passed.

    Attributes:
        failure: None while there is no reason to fail.
    """

    def __init__(
        self,
        clock: Clock,
        background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        passed: Callable[[str], None],
    ) -> None:
        self.failure: PodFailure | None = None
        self._clock = clock
        self._background = background
        self._passed = passed
        self._now: Now | None = None
        self._work = Breakable()
        self._changed = Event()
        self._deadline: asyncio.Task[None] | None = None
        """There while work is done for a pod that has a deadline: few have one."""

    def fail(self, failure: PodFailure) -> None:
        """Let the pod fail, unless it is on its way already."""
        if self.failure is None:
            self.failure = failure
            self._work.break_off()

    def pod_changed(self) -> None:
        """The pod may have another deadline."""
        self._changed.set()
        if self._deadline is None and self._left() is not None:
            self._deadline = self._background(self._fail_at_deadline())

    async def unless(self, work: Awaitable[None], now: Now) -> None:
        """Wait for the work; it is cancelled when the pod has to fail."""
        self._now = now  # for this time alone: its owner would be in a circle of references
        try:
            self.pod_changed()
            await self._work.finished(work)
        finally:
            self._now = None
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    def _left(self) -> tuple[Pod, float] | None:
        """The pod, and how many seconds it may go on to be active; None for no limit."""
        if self._now is None:
            return None
        pod, start = self._now()
        seconds = pod.spec.get("activeDeadlineSeconds")
        if seconds is None or start is None:
            return None
        return pod, float(seconds) - (self._clock.now() - start).total_seconds()

    async def _fail_at_deadline(self) -> None:
        while (found := self._left()) is not None:
            self._changed.clear()
            pod, left = found
            if left <= 0:
                message = "Pod was active on the node longer than the specified deadline"
                self._passed(message)
                self.fail(PodFailure("DeadlineExceeded", message, pod.termination_grace_seconds))
                return
            await first_of(self._clock.sleep(left), self._changed.wait())
        self._deadline = None
