"""Writes pod statuses to the API: the newest of each pod, once, for as long as it takes.

A pod's task hands over what is to be written with `put`; a bounded number of writes is under way at a time, one per
pod. A write that fails is repeated with a growing pause until it succeeds, is replaced by a newer one, or the API says
that the pod is no longer there. Nothing is ever forgotten, so an outage only delays.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import structlog

from wasmlet.clock import Pacing
from wasmlet.concurrency import Event
from wasmlet.failures import described
from wasmlet.kube import errors, paths
from wasmlet.kube.client import Client
from wasmlet.kube.recovery import Pauses
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.node.metrics import Metrics

log = structlog.get_logger(__name__)

IN_FLIGHT = 16
"""More at once gains nothing: an API server answers about 400 status patches a second whether it is 10 or 50."""

Compose = Callable[[], dict[str, Any] | None]
"""Makes the patch at the moment it is sent, from what is true then; None says that there is nothing to send."""


@attrs.define
class _Entry:
    key: PodKey
    compose: Compose
    written: Callable[[Raw], None]
    pauses: Pauses
    """Between its tries."""
    dirty: bool = True
    sending: bool = False
    idle: Event = attrs.field(factory=Event)
    gone: bool = False


class StatusWriter:
    """The one place that writes `pods/status`.

    Args:
        group: owns a task for each write that is under way, and for each pod that waits for its next try.
        pacing: its pauses are those between tries of one write.
        in_flight: how many writes are under way at a time, at most.
    """

    def __init__(
        self,
        client: Client,
        group: asyncio.TaskGroup,
        metrics: Metrics,
        *,
        pacing: Pacing | None = None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._client = client
        self._group = group
        self._metrics = metrics
        self._pacing = pacing or Pacing()
        self._in_flight = in_flight
        self._writers = 0
        """How many tasks write what is due; one after the other each, since a task for each pod takes longer."""
        self._due: deque[_Entry] = deque()
        """What is to be written next, in this order."""
        self._entries: dict[str, _Entry] = {}
        self._nonsense: set[str] = set()
        """UIDs of the pods whose last status was not valid, so that it could not be written."""

    @property
    def unwritten(self) -> int:
        """How many pods have a status that the API does not have yet."""
        return len(self._entries)

    def put(self, pod: Pod, compose: Compose, written: Callable[[Raw], None]) -> None:
        """See to it that the API gets what `compose` returns.

        Args:
            compose: called when a connection is free, perhaps several times; the last call counts.
            written: called with the pod as the API server answered it.
        """
        entry = self._entries.get(pod.uid)
        if entry is None:
            pacing = self._pacing
            pauses = self._client.recovery.pauses(pacing.backoff, pacing.clock, pacing.rng)
            entry = self._entries[pod.uid] = _Entry(pod.key, compose, written, pauses)
            self._line_up(entry)
        else:
            entry.compose, entry.written, entry.dirty = compose, written, True

    def sending(self, uid: str) -> bool:
        """Whether a write of the pod has been sent whose answer is not here yet."""
        return (entry := self._entries.get(uid)) is not None and entry.sending

    async def flushed(self, uid: str) -> None:
        """Return when nothing of the pod is left to be written."""
        if (entry := self._entries.get(uid)) is not None:
            await entry.idle.wait()

    def drop(self, uid: str) -> None:
        """The pod is gone from the API: nothing of it needs to be written any more."""
        self._nonsense.discard(uid)
        if (entry := self._entries.pop(uid, None)) is not None:
            entry.gone = True
            entry.idle.set()

    def _line_up(self, entry: _Entry) -> None:
        self._due.append(entry)
        if self._writers < self._in_flight:
            self._writers += 1
            self._group.create_task(self._write_due())

    async def _write_due(self) -> None:
        """Write what is due until nothing is."""
        try:
            while self._due:
                entry = self._due.popleft()
                if not await self._write(entry):
                    self._group.create_task(self._try_again(entry))
                    continue
                if self._entries.get(entry.key.uid) is entry:
                    del self._entries[entry.key.uid]
                entry.idle.set()
        finally:
            self._writers -= 1

    async def _try_again(self, entry: _Entry) -> None:
        await entry.pauses.wait()
        self._line_up(entry)

    async def _write(self, entry: _Entry) -> bool:
        """Write until there is nothing newer; False where that failed and has to be tried again."""
        while entry.dirty and not entry.gone:
            entry.dirty = False
            try:
                patch = entry.compose()
            except Exception as error:
                self._no_status(entry, error)
                continue
            if patch is None:
                continue
            try:
                entry.sending = True
                with self._metrics.status_write():
                    answer = await self._client.patch(f"{paths.pod(entry.key)}/status", patch)
            except errors.ObjectNotFound:
                entry.gone = True
            except TypeError as error:  # something in it that JSON has no word for
                self._no_status(entry, error)
            except errors.ApiError as error:
                # Also a conflict: if another pod has the name by now, the watch says so soon, and `drop` ends this.
                log.warning("status not written, trying again", pod=str(entry.key), error=str(error))
                self._metrics.status_retries.inc()
                entry.dirty = True
                return False
            else:
                self._nonsense.discard(entry.key.uid)
                entry.written(answer)
            finally:
                entry.sending = False
        return True

    def _no_status(self, entry: _Entry, error: Exception) -> None:
        """Log, and write nothing: the provider has reported a status that is not valid, which must not end the node."""
        uid = entry.key.uid
        log.warning(
            "not a status: it is not written", pod=str(entry.key), **described(error, first=uid not in self._nonsense)
        )
        self._nonsense.add(uid)
