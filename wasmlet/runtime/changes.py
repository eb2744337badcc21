"""The stream of changes of a provider: events in order, and of statuses only the newest of each pod.

However slowly the node loop reads, what waits for it is bounded: one status per pod, and `MAX_EVENTS` events, the
oldest of which are dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from wasmlet.model.pod import PodKey
from wasmlet.model.status import PodStatus
from wasmlet.provider import Change, PodEvent, StatusChanged

MAX_EVENTS = 10_000


class Changes:
    """What has happened and has not been read. `status` and `event` may be called before anybody reads."""

    def __init__(self) -> None:
        self._statuses: dict[str, StatusChanged] = {}
        self._events: deque[PodEvent] = deque(maxlen=MAX_EVENTS)
        self._wake = asyncio.Event()

    def status(self, key: PodKey, status: PodStatus) -> None:
        self._statuses[key.uid] = StatusChanged(key, status)
        self._wake.set()

    def event(self, event: PodEvent) -> None:
        self._events.append(event)
        self._wake.set()

    async def stream(self) -> AsyncGenerator[Change, None]:
        """Every event and status, without end. One reader at a time; a later one goes on where the first left off."""
        while True:
            if self._events:
                yield self._events.popleft()
            elif self._statuses:
                yield self._statuses.pop(next(iter(self._statuses)))
            else:
                self._wake.clear()
                await self._wake.wait()
