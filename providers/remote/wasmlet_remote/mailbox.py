"""What the node loop has not been told yet: the newest status of each pod, events, and whether the Node has changed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from wasmlet import Change, NodeChanged, PodEvent, StatusChanged, WasmletError

MOST_EVENTS = 1000


class Mailbox:
    """Keeps what is told while nobody reads, bounded in size. One reader at a time.

    Args:
        most_pods: of how many pods statuses are kept.
    """

    def __init__(self, most_pods: int) -> None:
        self._most_pods = most_pods
        self._statuses: dict[str, StatusChanged] = {}
        self._events: deque[PodEvent] = deque(maxlen=MOST_EVENTS)
        self._node = False
        self._again = False
        self._over: Exception | None = None
        self._told = asyncio.Event()

    def put(self, change: Change) -> None:
        """Keep a change until the node loop reads it.

        Raises:
            WasmletError: there are statuses of more pods than an agent can have.
        """
        match change:
            case StatusChanged(key):
                if key.uid not in self._statuses and len(self._statuses) >= self._most_pods:
                    raise WasmletError(f"the agent tells of more than {self._most_pods} pods")
                self._statuses[key.uid] = change
            case PodEvent():
                self._events.append(change)
            case NodeChanged():
                self._node = True
        self._told.set()

    def again(self) -> None:
        """The agent has restarted.

        So `changes` ends, and the node loop lists the pods and gives them to the agent again.
        """
        self._again = True
        self._told.set()

    def over(self, error: Exception) -> None:
        """There will be no more changes, because of this."""
        self._over = error
        self._told.set()

    async def changes(self) -> AsyncGenerator[Change, None]:
        """What is told, for ever; ends where the node loop is to list the pods.

        Raises:
            Exception: there will be no more changes.
        """
        while True:
            await self._told.wait()
            self._told.clear()
            while self._statuses:
                yield self._statuses.pop(next(iter(self._statuses)))
            while self._events:
                yield self._events.popleft()
            if self._node:
                self._node = False
                yield NodeChanged()
            if self._over is not None:
                self._told.set()
                raise self._over
            if self._again:
                self._again = False
                return
