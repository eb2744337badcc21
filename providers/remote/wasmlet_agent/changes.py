"""The changes that the agent tells its node loop, each with a number: only the newest one about each thing is kept.

So this is no log of all that happened. A reader asks for the changes with greater numbers than the last one that it has
got. Of two changes of the same pod since then it gets the newer one only. Therefore a slow reader, or none, costs no
memory.
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
    """The changes since this process of the agent has started.

    Attributes:
        instance: a random name of this process; numbers of another process mean nothing here.
        n: the number of the newest change.
        told: set when there is a change, and replaced by a new event at the same time.
    """

    def __init__(self) -> None:
        self.instance = secrets.token_hex(16)
        self.n = 0
        self.told = asyncio.Event()
        self._lines: dict[tuple[str, object], Numbered] = {}
        self._events: deque[tuple[str, object]] = deque()
        self._sent = 0

    def status(self, key: PodKey, status: PodStatus) -> bool:
        """A pod has this status now. Returns False if that was its status already."""
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
        """A pod was ended and removed. `status` is its last one."""
        self._lines.pop(("status", uid), None)
        self._put(("ended", uid), lambda n: EndedLine(n, uid, status))

    def sent(self, n: int) -> None:
        """The changes up to this number were written to the connection of the session's node loop."""
        self._sent = max(self._sent, n)

    def new_session(self) -> None:
        """Drop the events that were written to the node loop before this one: the next one tells none a second time.

        Whether it has read them is not known: those that were on their way when it died, or when its link broke, are
        lost. States are not: each node loop is told all of them.
        """
        while self._events and self._lines[self._events[0]].n <= self._sent:
            del self._lines[self._events.popleft()]

    def forget(self, uid: str) -> None:
        """Drop what is kept about a pod."""
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
