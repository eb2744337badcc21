"""Refuses requests that arrive too late: for each pod, the newest request that was taken is remembered."""

from __future__ import annotations

import attrs

from wasmlet_agent.protocol.failures import Stale

MOST = 100_000
"""Pods whose newest request is remembered by itself."""


@attrs.frozen(order=True)
class Fence:
    """The place of a request in the order of all requests: its session, and its sequence number in that session."""

    session: int
    sequence: int


class Fences:
    """The newest request of each pod.

    At most `MOST` pods are remembered; then the oldest entry is dropped. For a pod without an entry, a request has to
    be newer than every entry that was dropped.
    """

    def __init__(self) -> None:
        self._newest: dict[str, Fence] = {}
        self._floor = Fence(0, 0)

    def take(self, uid: str, fence: Fence) -> None:
        """Take a request, before anything is done for it.

        Raises:
            Stale: this request, or a newer one for this pod, was taken already.
        """
        newest = self._newest.get(uid, self._floor)
        if fence <= newest:
            raise Stale(f"request {fence.sequence} is not newer than {newest.sequence}, which was taken")
        self._newest.pop(uid, None)
        self._newest[uid] = fence
        if len(self._newest) > MOST:
            self._floor = max(self._floor, self._newest.pop(next(iter(self._newest))))

    def check(self, uid: str, fence: Fence) -> None:
        """See that no newer request was taken while this one waited.

        Raises:
            Stale: one was.
        """
        if (newest := self._newest.get(uid, self._floor)) > fence:
            raise Stale(f"request {newest.sequence} has overtaken request {fence.sequence}")

    def known(self, uid: str, fence: Fence) -> None:
        """Remember a request that an earlier process of this agent has taken."""
        self._newest[uid] = max(fence, self._newest.get(uid, self._floor))
