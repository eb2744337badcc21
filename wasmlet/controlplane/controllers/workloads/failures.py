"""Counts pods that fail one after the other, and says how long their controller waits before it makes the next one.

Without a pause, pods that every node rejects would be created as fast as they fail.
"""

from __future__ import annotations

import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.controllers.workloads.ownership import controller_of
from wasmlet.controlplane.storage.status import Object

FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
"""The pause in seconds before the second failed pod in a row is replaced, which doubles each time; the longest one."""


@attrs.define
class _Row:
    """How many pods of a controller have failed since one of them was ready."""

    count: int = 0
    until: float = 0.0
    """When the next pod may be made, by the monotonic clock."""


class Failures:
    """Counts the failed pods of each controller of a kind, by the controller's UID."""

    def __init__(self, kind: str, clock: Clock) -> None:
        self._kind = kind
        self._clock = clock
        self._rows: dict[str, _Row] = {}

    def note(self, old: Object | None, pod: Object, *, gone: bool) -> None:
        """Learn of a pod that changed; `old` is what it was before."""
        reference = controller_of(pod)
        if reference is None or reference.get("kind") != self._kind or gone:
            return
        uid = str(reference.get("uid"))
        if podlist.ready_since(pod) is not None:
            self._rows.pop(uid, None)
        elif podlist.finished(pod) and not (old is not None and podlist.finished(old)) and not podlist.leaving(pod):
            row = self._rows.setdefault(uid, _Row())
            pause = min(FIRST_PAUSE * 2 ** min(row.count - 1, 16), LAST_PAUSE) if row.count else 0.0
            row.count += 1
            row.until = self._clock.monotonic() + pause

    def forget(self, uid: str) -> None:
        """Drop what is known of a controller that is gone."""
        self._rows.pop(uid, None)

    def pause(self, uid: str) -> float | None:
        """For how many seconds a controller has to wait before it makes a pod; None where it need not."""
        row = self._rows.get(uid)
        rest = row.until - self._clock.monotonic() if row is not None else 0.0
        return rest if rest > 0 else None
