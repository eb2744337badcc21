"""The instances of one container: the present one, and the earlier ones that the shim still knows.

`container` decides what the container's state is after each record from the shim.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime

from wasmlet.clock import Clock
from wasmlet.model.status import Terminated
from wasmlet.runtime.shim.instances import Labels, state_of
from wasmlet.runtime.shim.records import ContainerRecord


class Seen(enum.Enum):
    """What a record says that was not known."""

    NEW_INSTANCE = "new-instance"
    """There is a newer instance, which is the present one from now on."""
    OTHER_STATE = "other-state"
    """The present instance is in another state than before."""
    NOTHING = "nothing"
    """Nothing that a container's state follows from."""


class InstanceHistory:
    """What is known of a container's instances. Each has a number, its attempt, which counts from 0.

    Attributes:
        record: the present instance, which is the newest; None if and only if there was none.
        labels: those of `record`; None if and only if that is.
        earlier: the instances before it that the shim still has, by their attempt.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.record: ContainerRecord | None = None
        self.labels: Labels | None = None
        self.earlier: dict[int, ContainerRecord] = {}
        self._ended_at: float | None = None
        """When we saw the present instance end, on the monotonic clock; None if it had ended before we looked."""

    @property
    def attempt(self) -> int:
        """The number of the present instance; 0 where there is none."""
        return self.labels.attempt if self.labels else 0

    @property
    def container_id(self) -> str:
        """The present instance, as a status names it; "" where there is none."""
        return f"wasm://{self.record.id}" if self.record else ""

    @property
    def lives(self) -> bool:
        """Whether there is a process of the present instance."""
        return self.record is not None and not self.record.ended

    def saw(self, record: ContainerRecord, labels: Labels) -> Seen:
        """The shim says this of an instance.

        Returns:
            What that tells which was not known.
        """
        if self.labels is None or labels.attempt > self.labels.attempt:
            if self.record is not None and self.labels is not None:
                self.earlier[self.labels.attempt] = self.record
            self.labels, self.record, self._ended_at = labels, record, None
            return Seen.NEW_INSTANCE
        if labels.attempt < self.labels.attempt:
            self.earlier[labels.attempt] = record
            return Seen.NOTHING
        before, self.record = self.record, record
        if before is not None and before.state == record.state:
            return Seen.NOTHING
        self._ended_at = self._clock.monotonic() if record.ended else None
        return Seen.OTHER_STATE

    def age(self) -> float:
        """Seconds since the present instance began; 0 where there is none."""
        now = self._clock.now().timestamp()
        return max(0.0, now - self.record.started) if self.record is not None else 0.0

    def since_end(self, finished: datetime | None) -> float:
        """Seconds since the present instance ended, which was at `finished` by what the shim says."""
        if self._ended_at is not None:
            return self._clock.monotonic() - self._ended_at
        return (self._clock.now() - finished).total_seconds() if finished else 0.0

    def last_end(self, *, next_waits: bool) -> Terminated | None:
        """The end before what the container's status shows.

        Args:
            next_waits: the status shows that the next instance waits: that end is then the present instance's, if it
                has ended.
        """
        record = self.record
        if record is None or not record.ended or not next_waits:
            record = self.earlier.get(self.attempt - 1)
        state = state_of(record) if record else None
        return state if isinstance(state, Terminated) else None

    def before(self, attempt: int) -> dict[int, ContainerRecord]:
        """The instances with smaller numbers than this, by their numbers."""
        return {number: record for number, record in self.earlier.items() if number < attempt}

    def drop(self, attempts: Iterable[int]) -> None:
        """Drop the instances with these numbers."""
        for number in attempts:
            self.earlier.pop(number, None)
