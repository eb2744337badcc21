"""Counts the ended pods of Jobs. It learns of them from the store's changes, as ended pods may be deleted."""

from __future__ import annotations

import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.batch.indexes import index_of
from wasmlet.controlplane.controllers.workloads.ownership import controller_of, uid_of
from wasmlet.controlplane.controllers.workloads.pods import leaving
from wasmlet.controlplane.storage.status import Object

FIRST_PAUSE, LAST_PAUSE = 10.0, 600.0
"""The pause in seconds after a pod has failed, which doubles with each one in a row, and the longest one."""


@attrs.define
class Ended:
    """The ended pods of one Job, by UID. `spared` are surplus pods that were deleted: they have not failed."""

    succeeded: dict[str, int | None] = attrs.field(factory=dict)
    failed: set[str] = attrs.field(factory=set)
    spared: set[str] = attrs.field(factory=set)
    in_a_row: int = 0
    until: float = 0.0
    """When the next pod may be made, by the monotonic clock."""

    def note(self, pod: Object, now: float, *, gone: bool) -> None:
        """Learn of a change of a pod."""
        uid, phase = uid_of(pod), (pod.get("status") or {}).get("phase")
        if uid in self.succeeded or uid in self.failed:
            return
        if phase == "Succeeded":
            self.succeeded[uid] = index_of(pod)
            self.in_a_row = 0
        elif phase == "Failed" or ((gone or leaving(pod)) and uid not in self.spared):
            self.failed.add(uid)
            self.until = now + min(FIRST_PAUSE * 2 ** min(self.in_a_row, 16), LAST_PAUSE)
            self.in_a_row += 1


class Tally:
    """The ended pods of all Jobs, by the UID of the Job."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, Ended] = {}

    def note(self, pod: Object, *, gone: bool) -> None:
        """Learn of a change of a pod."""
        reference = controller_of(pod)
        if reference is not None and reference.get("kind") == "Job":
            self.of(str(reference.get("uid"))).note(pod, self._clock.monotonic(), gone=gone)

    def of(self, job: str) -> Ended:
        """The ended pods of a Job."""
        return self._jobs.setdefault(job, Ended())

    def forget(self, job: str) -> None:
        """Drop what is known of a Job that is gone."""
        self._jobs.pop(job, None)
