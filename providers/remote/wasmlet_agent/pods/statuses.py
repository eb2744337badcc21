"""The newest status of each pod: told among the changes, and kept on disk as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from wasmlet.clock import Backoff, Clock, Retries
from wasmlet.concurrency import in_thread
from wasmlet.failures import described
from wasmlet.model.status import PodStatus
from wasmlet_agent.changes import Changes
from wasmlet_agent.pods.held import Held
from wasmlet_agent.pods.store import KeptStatus, Store

log = structlog.get_logger(__name__)

_AGAIN = Backoff(initial=1.0, cap=30.0)
"""Pauses between tries to keep a status."""


class Statuses:
    """The statuses of one agent's pods."""

    def __init__(self, store: Store, changes: Changes, clock: Clock) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock
        self._unsaved: dict[str, KeptStatus] = {}
        self._touched = asyncio.Event()

    def say(self, held: Held, status: PodStatus) -> None:
        """A pod's status is now this. Nobody is told before the pod is on the disk: see `synced`."""
        held.last = status
        if not held.syncs and self._changes.status(held.key, status):
            self._unsaved[held.key.uid] = KeptStatus(held.key, status)
            self._touched.set()

    def synced(self, held: Held) -> None:
        """The pod is on the disk: say the newest of what was held back."""
        if held.here and not held.stopped and held.last is not None:
            self.say(held, held.last)

    def drop(self, uid: str) -> None:
        """The pod has ended: its status need not be kept any more."""
        self._unsaved.pop(uid, None)

    async def save(self, pods: Mapping[str, Held]) -> None:
        """Keep statuses on disk as they change, until cancelled; what cannot be written is written later.

        Args:
            pods: the pods that there are, by UID.
        """
        retries, first = Retries(_AGAIN, self._clock), True
        while True:
            await self._touched.wait()
            self._touched.clear()
            unsaved, self._unsaved = self._unsaved, {}
            if not (failed := await in_thread(self._store.keep_statuses, unsaved)):
                retries.start_over()
                first = True
                continue
            error = next(iter(failed.values()))
            if first:
                log.warning("statuses of pods cannot be kept, trying again", pods=len(failed), **described(error))
            first = False
            await retries.wait()
            for uid in failed:
                held = pods.get(uid)
                if held is not None and held.last == unsaved[uid].status:  # neither overtaken nor ended meanwhile
                    self._unsaved.setdefault(uid, unsaved[uid])
            if self._unsaved:
                self._touched.set()
