"""Keeps each pod and its newest status on disk, and tells nobody of a pod before it is there."""

from __future__ import annotations

import asyncio
from datetime import datetime

import structlog

from wasmlet.failures import described
from wasmlet.model.status import PodStatus
from wasmlet_agent.changes import Changes
from wasmlet_agent.pods.held import Held
from wasmlet_agent.pods.store import KeptStatus, Store

log = structlog.get_logger(__name__)


class Keeping:
    """Keeps the pods of one agent. Where the disk takes nothing, pods go on without."""

    def __init__(self, store: Store, changes: Changes) -> None:
        self._store = store
        self._changes = changes

    def say(self, held: Held, status: PodStatus) -> None:
        """A pod's status is now this. It is kept at once: what has ended is not to run again in the next process.

        Nobody is told before the pod is on the disk.
        """
        new = status != held.last if held.syncs else self._changes.status(held.key, status)
        held.last = status
        if new:
            self._store.keep_status(held.key.uid, KeptStatus(held.key, status))

    async def keep(self, held: Held, *, ahead: bool = False) -> None:
        """Keep what is known of a pod, or drop it; returns when that is on the disk.

        Args:
            ahead: return already when it outlives this process. `held.syncs` has what is done when it is on the disk.
        """
        uid, kept = held.key.uid, held.kept
        try:
            commit = await (self._store.drop(uid) if kept is None else self._store.keep(uid, kept))
        except OSError as error:
            _not_kept(held, error)
            return
        if not ahead:
            await self._stored(held, commit.written if kept is None else commit.durable)
        elif await self._stored(held, commit.written):
            held.syncs.add(commit.durable)
            commit.durable.add_done_callback(lambda durable: self._synced(held, durable))

    async def keep_ending(self, held: Held, ends_at: datetime, *, keeps: bool) -> None:
        """Keep that a pod is to end, so that the agent's next process goes on with it and does not start it again."""
        commit = self._store.keep_ending(held.key.uid, ends_at, keeps=keeps)
        # A node loop asks for an end until it is told, unless the logs are to stay: so that need not wait for the disk.
        await self._stored(held, commit.durable if keeps else commit.written)

    def _synced(self, held: Held, durable: asyncio.Future[None]) -> None:
        if (error := durable.exception()) is not None:
            _not_kept(held, error)
        held.syncs.discard(durable)
        # The newest of what was held back.
        if not held.syncs and held.here and not held.stopped and held.last is not None:
            self._changes.status(held.key, held.last)

    async def _stored(self, held: Held, stored: asyncio.Future[None]) -> bool:
        """Wait for the disk; whether it has worked."""
        await asyncio.wait([stored])
        if (error := stored.exception()) is not None:
            _not_kept(held, error)
        return error is None


def _not_kept(held: Held, error: BaseException) -> None:
    log.error("a pod cannot be kept: it does not outlive this agent", pod=str(held.key), **described(error))
