"""What has changed, numbered: the newest line about each thing, in the order of their numbers.

It is no log. A reader asks for what is newer than the number that it has, at its own pace; what was overtaken meanwhile
it never sees. So a reader that reads slowly, or not at all, costs nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile

from wasmlet.model.pod import PodKey
from wasmlet.model.status import PodStatus
from wasmlet.provider import NodeStatus, PodEvent
from wasmlet_agent.protocol.messages import EndedLine, EventLine, NodeLine, StatusLine

Numbered = StatusLine | EventLine | NodeLine | EndedLine

MOST_EVENTS = 1000


class Changes:
    """The lines of one process of the agent.

    Attributes:
        instance: of this process; numbers are its own.
        n: the number of the newest change.
        told: set, and replaced, with each change.
    """

    def __init__(self) -> None:
        self.instance = secrets.token_hex(16)
        self.n = 0
        self.told = asyncio.Event()
        self._lines: dict[tuple[str, object], Numbered] = {}
        self._events: deque[tuple[str, object]] = deque()

    def status(self, key: PodKey, status: PodStatus) -> bool:
        """A pod's status is now this; False where it was before."""
        before = self._lines.get(("status", key.uid))
        if isinstance(before, StatusLine) and before.status == status:
            return False
        self._put(("status", key.uid), lambda n: StatusLine(n, key, status))
        return True

    def event(self, event: PodEvent) -> None:
        """Something to tell a pod's owner."""
        entry = ("event", self.n + 1)
        self._put(entry, lambda n: EventLine(n, event))
        self._events.append(entry)
        if len(self._events) > MOST_EVENTS:
            del self._lines[self._events.popleft()]

    def node(self, node: NodeStatus) -> None:
        """The node's status is now this."""
        before = self._lines.get(("node", ""))
        if not (isinstance(before, NodeLine) and before.node == node):
            self._put(("node", ""), lambda n: NodeLine(n, node))

    def ended(self, uid: str, status: PodStatus | None) -> None:
        """Nothing is left of a pod."""
        self._lines.pop(("status", uid), None)
        self._put(("ended", uid), lambda n: EndedLine(n, uid, status))

    def forget(self, uid: str) -> None:
        """Tell nothing of a pod any more."""
        self._lines.pop(("status", uid), None)
        self._lines.pop(("ended", uid), None)

    def newer(self, n: int) -> Iterable[Numbered]:
        """The lines with a greater number, the oldest first."""
        found = list(takewhile(lambda line: line.n > n, reversed(self._lines.values())))
        return reversed(found)

    def _put(self, entry: tuple[str, object], line: Callable[[int], Numbered]) -> None:
        self._lines.pop(entry, None)
        self.n += 1
        self._lines[entry] = line(self.n)
        told, self.told = self.told, asyncio.Event()
        told.set()
