"""The stream of changes of a provider: all events in order, and for each pod only its newest status.

However slowly the node loop reads, what waits for it is limited: one status per pod, worked out when it is read, and
`MAX_EVENTS` events; the oldest events are dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Literal

import attrs
import structlog

from wasmlet.failures import described
from wasmlet.model.pod import PodKey
from wasmlet.model.status import PodStatus
from wasmlet.provider import Change, PodEvent, StatusChanged

log = structlog.get_logger(__name__)

MAX_EVENTS = 10_000


@attrs.frozen
class _Teller:
    """Tells messages of one kind of event. Each pod has some, and a closure would take four times the memory."""

    changes: Changes
    key: PodKey
    type: Literal["Normal", "Warning"]
    reason: str

    def __call__(self, message: str) -> None:
        self.changes.event(PodEvent(self.key, self.reason, message, self.type))


class Changes:
    """Holds the changes that were not read yet. `status` and `event` may be called before there is a reader."""

    def __init__(self) -> None:
        self._statuses: dict[PodKey, Callable[[], PodStatus | None]] = {}
        self._events: deque[PodEvent] = deque(maxlen=MAX_EVENTS)
        self._wake = asyncio.Event()

    def status(self, key: PodKey, newest: Callable[[], PodStatus | None]) -> None:
        """The pod's status may be another one; `newest` says which, or None where it has not changed."""
        self._statuses[key] = newest
        self._wake.set()

    def event(self, event: PodEvent) -> None:
        self._events.append(event)
        self._wake.set()

    def teller(self, key: PodKey, type: Literal["Normal", "Warning"], reason: str) -> Callable[[str], None]:  # noqa: A002
        """What tells messages of one kind of event. It knows the pod by its key alone, so that the pod may have it."""
        return _Teller(self, key, type, reason)

    async def stream(self) -> AsyncGenerator[Change, None]:
        """All events and statuses, without end. One reader at a time; the next one continues where the last stopped."""
        while True:
            if self._events:
                yield self._events.popleft()
            elif self._statuses:
                key = next(iter(self._statuses))
                try:
                    status = self._statuses.pop(key)()
                except Exception as error:  # the changes of other pods go on
                    log.error("the status of a pod cannot be worked out", pod=str(key), **described(error))
                    continue
                if status is not None:
                    yield StatusChanged(key, status)
            else:
                self._wake.clear()
                await self._wake.wait()
