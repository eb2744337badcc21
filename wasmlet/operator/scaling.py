"""Autoscaling of a pool: one node more while pods find no node, one node less when the last one has long been empty."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs

from wasmlet.clock import Clock, Pacing
from wasmlet.kube import Client, Reflector, Selection, paths
from wasmlet.model.pod import Raw
from wasmlet.model.times import parse
from wasmlet.operator.classes import handlers_of
from wasmlet.operator.pool import LABEL, Autoscaling, Pool
from wasmlet.operator.seen import Member, Seen

LOOK_SECONDS = 30.0
_OURS = ("handler.wasmlet.dev/", "wasmlet.dev/")
_FINISHED = ("Succeeded", "Failed")


@attrs.frozen
class Pending:
    """A pod for which the scheduler has found no node.

    Attributes:
        since: since when the scheduler finds none.
    """

    selector: Mapping[str, str]
    since: datetime

    @classmethod
    def of(cls, raw: Raw) -> Pending | None:
        """The pod if it is pending, else None. Its node selector includes that of its RuntimeClass."""
        spec, status = raw.get("spec") or {}, raw.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
                since = condition.get("lastTransitionTime") or raw["metadata"]["creationTimestamp"]
                return cls(spec.get("nodeSelector") or {}, parse(since))
        return None


class Waiting:
    """The pending pods of the cluster; a reflector's handler. The watch starts when a pool first asks for them."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._found: dict[str, Pending] = {}

    def pods(self) -> Sequence[Pending]:
        """The pods for which there is no node, as far as known. The first call starts the watch."""
        self._asked.set()
        return list(self._found.values())

    async def run(self, client: Client, pacing: Pacing) -> None:
        """Wait for the first call of `pods`, then watch until cancelled."""
        await self._asked.wait()
        await Reflector(client, Selection(paths.PODS, {"fieldSelector": "spec.nodeName="}), self, pacing=pacing).run()

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        self._found = {}
        for item in items:
            self.applied(item)

    def applied(self, item: dict[str, Any]) -> None:
        self.deleted(item)
        if (pending := Pending.of(item)) is not None:
            self._found[item["metadata"]["uid"]] = pending

    def deleted(self, item: dict[str, Any]) -> None:
        self._found.pop(item["metadata"]["uid"], None)


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether this node selector matches these labels, and selects wasmlet's nodes in particular."""
    ours = any(key.startswith(_OURS) for key in selector) or selector.get("kubernetes.io/arch") == "wasm"
    return ours and all(labels.get(key) == value for key, value in selector.items())


def labels_of(pool: Pool, members: Iterable[Member]) -> Mapping[str, str]:
    """The labels that the pool's next node would have: those of an existing node, or those known beforehand."""
    for member in members:
        if member.node is not None:
            return {**member.node.labels, **pool.labels}
    handlers = handlers_of([pool.provider, *pool.engines])
    return {
        "kubernetes.io/os": "wasi",
        "kubernetes.io/arch": "wasm",
        "wasmlet.dev/provider": pool.provider,
        LABEL: pool.name,
        **{f"handler.wasmlet.dev/{handler}": "true" for handler in handlers},
        **pool.labels,
    }


class Scaler:
    """Decides how many nodes one pool is to have."""

    def __init__(self, client: Client, waiting: Waiting, clock: Clock) -> None:
        self._client = client
        self._waiting = waiting
        self._clock = clock
        self._empty: tuple[str, datetime] | None = None
        """The UID of the node with the highest ordinal, and since when it is known to be empty."""

    async def wish(self, pool: Pool, rules: Autoscaling, seen: Seen) -> tuple[int, float]:
        """How many nodes the pool is to have, and in how many seconds to ask again.

        Raises:
            ApiError: the pods of the last node cannot be listed.
        """
        have = pool.replicas or 0
        again = min(LOOK_SECONDS, rules.pending_seconds)
        if not rules.least <= have <= rules.most:
            return min(max(have, rules.least), rules.most), again
        kept = [member for member in seen.members if member.ordinal < have]
        if len(kept) < have or not all(member.available for member in kept):
            return have, again  # the last change is still under way
        labels, now = labels_of(pool, seen.members), self._clock.now()
        waiting = [pod for pod in self._waiting.pods() if selects(pod.selector, labels)]
        if waiting:
            self._empty = None
            # Pods that waited for the newest node may be about to be scheduled there. So the time counts from when it
            # got ready.
            since = [min(pod.since for pod in waiting), *(m.node.since for m in kept if m.node and m.node.since)]
            due = max(since) + timedelta(seconds=rules.pending_seconds)
            return (have + 1 if due <= now and have < rules.most else have), again
        if have > rules.least and await self._long_empty(kept[-1], rules.empty_seconds, now):
            return have - 1, again
        return have, min(again, rules.empty_seconds)

    async def _long_empty(self, last: Member, seconds: float, now: datetime) -> bool:
        assert last.node is not None
        found = await self._client.get(paths.PODS, fieldSelector=f"spec.nodeName={last.name}")
        if any(_counts(pod) for pod in found["items"]):
            self._empty = None
            return False
        if self._empty is None or self._empty[0] != last.node.uid:
            self._empty = last.node.uid, now
        return now - self._empty[1] >= timedelta(seconds=seconds)


def _counts(pod: Raw) -> bool:
    """Whether a node with this pod is in use: pods of DaemonSets and finished pods do not count."""
    owners = pod["metadata"].get("ownerReferences") or ()
    of_set = any(owner.get("kind") == "DaemonSet" for owner in owners)
    return not of_set and (pod.get("status") or {}).get("phase") not in _FINISHED
