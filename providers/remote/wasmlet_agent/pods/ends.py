"""How pods have ended, kept until a node loop says that the API has it, or until it is too old to be asked for."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from wasmlet.clock import Clock
from wasmlet.failures import described
from wasmlet.model.pod import PodKey
from wasmlet_agent.changes import Changes
from wasmlet_agent.pods.store import END_LIFE, MOST_ENDS, KeptEnd, Store
from wasmlet_agent.pods.writing import Commit

log = structlog.get_logger(__name__)


class Ends:
    """The ends of one agent's pods, by UID: in memory, and on the disk."""

    def __init__(self, store: Store, changes: Changes, clock: Clock) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock
        self._ends: dict[str, KeptEnd] = {}

    def get(self, uid: str) -> KeptEnd | None:
        """How the pod has ended; None where that is not known."""
        return self._ends.get(uid)

    def load(self, ends: Mapping[str, KeptEnd]) -> None:
        """Take on what was on the disk when the agent started, and tell it."""
        for uid, end in sorted(ends.items(), key=lambda entry: entry[1].at):
            self._ends[uid] = end
            self._changes.ended(uid, end.status)
        self._expire()

    async def keep(self, key: PodKey, end: KeptEnd) -> None:
        """Keep how a pod has ended, and the pod no longer; it is on the disk then, if that can be written."""
        self._ends[key.uid] = end
        try:
            await self._store.end(key.uid, end)
        except OSError as error:
            log.error("the end of a pod cannot be kept", pod=str(key), **described(error))
        self._expire()

    def forget(self, uid: str) -> Commit | None:
        """Keep it no longer. Returns None where it is not kept."""
        if self._ends.pop(uid, None) is None:
            return None
        self._changes.forget(uid)
        return self._store.forget(uid)

    def _expire(self) -> None:
        """Let go of ends that nobody has asked for in a long time."""
        since = self._clock.now() - END_LIFE
        while self._ends:
            uid, end = next(iter(self._ends.items()))
            if end.at >= since and len(self._ends) <= MOST_ENDS:
                break
            self.forget(uid)
