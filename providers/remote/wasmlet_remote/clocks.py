"""How far the agent's clock is from this machine's clock, and the agent's times converted to this machine's."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

import attrs

from wasmlet import ContainerStatus, PodStatus, Running, Terminated
from wasmlet.model.status import ContainerState

STEADY_SECONDS = 1.0
"""Differences up to this are taken for the time that lines need on their way."""
SKEW_SECONDS = 5.0
"""A difference from which on it is told."""
_MEASURES = 3


class Offset:
    """How far the agent's clock is ahead of ours; negative if it is behind."""

    def __init__(self) -> None:
        self.value = timedelta()
        # A line that was long on its way makes the agent's clock look late, never early: the largest is the truest.
        self._measured: deque[timedelta] = deque(maxlen=_MEASURES)

    def measured(self, theirs: datetime, ours: datetime) -> bool:
        """Take one measurement: a line that arrives now says that the agent's clock was `theirs` when it was sent.

        Returns:
            Whether the offset has changed.
        """
        self._measured.append(theirs - ours)
        found = max(self._measured)
        if abs(found) <= timedelta(seconds=STEADY_SECONDS):
            found = timedelta()
        if abs(found - self.value) <= timedelta(seconds=STEADY_SECONDS):
            return False
        self.value = found
        return True

    @property
    def skewed(self) -> bool:
        """Whether the clocks differ so much that it is to be told."""
        return abs(self.value) > timedelta(seconds=SKEW_SECONDS)

    def theirs(self, time: datetime) -> datetime:
        """A time of our clock, as the agent's clock has it."""
        return _shifted(time, self.value)

    def ours(self, status: PodStatus) -> PodStatus:
        """The status, with times of our clock."""
        if not self.value:
            return status
        return attrs.evolve(
            status,
            containers=tuple(map(self._container, status.containers)),
            init_containers=tuple(map(self._container, status.init_containers)),
            ephemeral_containers=tuple(map(self._container, status.ephemeral_containers)),
            start_time=self._time(status.start_time),
        )

    def _container(self, status: ContainerStatus) -> ContainerStatus:
        last = None if status.last_state is None else self._ended(status.last_state)
        return attrs.evolve(status, state=self._state(status.state), last_state=last)

    def _state(self, state: ContainerState) -> ContainerState:
        if isinstance(state, Running):
            return Running(_shifted(state.started_at, -self.value))
        return self._ended(state) if isinstance(state, Terminated) else state

    def _ended(self, state: Terminated) -> Terminated:
        return attrs.evolve(state, started_at=self._time(state.started_at), finished_at=self._time(state.finished_at))

    def _time(self, time: datetime | None) -> datetime | None:
        return None if time is None else _shifted(time, -self.value)


def _shifted(time: datetime, by: timedelta) -> datetime:
    """A time with a difference added, as far as there are years for it."""
    try:
        return time + by
    except OverflowError:
        return time
