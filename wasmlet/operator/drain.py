"""Drains a node: asks the Eviction API to evict every pod, which refuses while a disruption budget forbids it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import attrs
import structlog

from wasmlet.clock import Backoff, Clock, Pacing, either
from wasmlet.kube import Client, Reflector, Selection, errors, paths

log = structlog.get_logger(__name__)

PAUSES = Backoff(initial=0.5, cap=5, jitter=0.3)
"""The pauses between two tries to evict what a budget protects; kubectl waits 5 s each time."""
LAST_GRACE = 30
"""The longest grace period in seconds of a pod that is deleted, not evicted."""


@attrs.frozen
class _Refusal:
    """Why pods may not leave, when to ask again in seconds of the clock, and the pauses after that."""

    why: str
    due: float
    pauses: Iterator[float]


class Drain:
    """Drains one node. `run` keeps the node empty until cancelled: it evicts also pods that come back.

    Args:
        client: a client that does not itself repeat a request that the API server answers with 429.
        tell: called when `left` or `held` changes.

    Attributes:
        node: the name of the Node.
        left: how many pods are still on the node; None until they have been counted.
        held: why the API server refuses an eviction, with the name of the pod; "" where it refuses none.
    """

    def __init__(self, client: Client, node: str, clock: Clock, rng: random.Random, tell: Callable[[], None]) -> None:
        self.node = node
        self.left: int | None = None
        self.held = ""
        self._client = client
        self._clock = clock
        self._rng = rng
        self._tell = tell
        self._pods: dict[str, dict[str, Any]] = {}
        self._changed = asyncio.Event()
        self._insists = False
        self._refused: dict[Hashable, _Refusal] = {}
        """By group of pods."""

    @property
    def empty(self) -> bool:
        """Whether no pod is left that has to leave."""
        return self.left == 0

    def insist(self) -> None:
        """From now on delete the pods, whatever a disruption budget says."""
        if not self._insists:
            self._insists = True
            self._changed.set()

    async def run(self) -> None:
        """Drain the node, and keep it empty until cancelled."""
        selection = Selection(paths.PODS, {"fieldSelector": f"spec.nodeName={self.node}"})
        reflector = Reflector(self._client, selection, self, pacing=Pacing(self._clock, self._rng))
        async with asyncio.TaskGroup() as group:
            group.create_task(reflector.run())
            await self._evict()

    async def _evict(self) -> None:
        while True:
            if not self._pods:
                self._say("")
                await self._changed.wait()
            self._changed.clear()
            await self._round()
            self._say(next((refusal.why for refusal in self._refused.values()), ""))
            if self._pods:
                now = self._clock.monotonic()
                due = min((refusal.due for refusal in self._refused.values()), default=now + PAUSES.cap)
                await either(self._clock, due - now, self._changed)

    async def _round(self) -> None:
        """Ask each pod to leave. After a refusal, the pods of the same group are not asked until that is due again."""
        refused: dict[Hashable, _Refusal] = {}
        for pod in list(self._pods.values()):
            group = self._group(pod)
            if group in refused or self._leaves_already(pod):
                continue
            before = self._refused.get(group)
            if before is not None and before.due > self._clock.monotonic():
                refused[group] = before
                continue
            try:
                await (self._delete(pod) if self._insists else self._request(pod))
                self._refused.pop(group, None)
            except (errors.ObjectNotFound, errors.Conflict):
                continue  # another pod has that name by now; the watch will report it
            except errors.ApiError as error:
                # 429 from a disruption budget, 500 where several budgets match the pod, 403, or no answer.
                pauses = PAUSES.pauses(self._rng) if before is None else before.pauses
                why = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}: {error}"
                refused[group] = _Refusal(why, self._clock.monotonic() + next(pauses), pauses)
        self._refused = refused

    def _group(self, pod: dict[str, Any]) -> Hashable:
        """What the pod has in common with those that are refused with it. A pod that is deleted is by itself."""
        return self._insists, pod["metadata"]["uid"] if self._insists else _owner(pod)

    def _leaves_already(self, pod: dict[str, Any]) -> bool:
        """Whether the pod ends. One that is to be deleted gets less time, if it has more than `LAST_GRACE`."""
        return _ending(pod) and (
            not self._insists or pod["metadata"].get("deletionGracePeriodSeconds", 0) <= _grace(pod)
        )

    async def _request(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        await self._client.create(f"{_path(metadata)}/eviction", _eviction(metadata))

    async def _delete(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        options = {"gracePeriodSeconds": _grace(pod), "preconditions": {"uid": metadata["uid"]}}
        await self._client.delete(_path(metadata), options)

    def _say(self, held: str) -> None:
        if held != self.held:
            self.held = held
            if held:
                log.info("a pod may not leave yet", node=self.node, why=held)
            self._tell()

    # --- Handler of a reflector

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        self._pods = {pod["metadata"]["uid"]: pod for pod in items if _leaves(pod)}
        self._told()

    def applied(self, item: dict[str, Any]) -> None:
        if _leaves(item):
            self._pods[item["metadata"]["uid"]] = item
            self._told()

    def deleted(self, item: dict[str, Any]) -> None:
        self._pods.pop(item["metadata"]["uid"], None)
        self._told()

    def _told(self) -> None:
        self._changed.set()
        if self.left != len(self._pods):
            self.left = len(self._pods)
            self._tell()


def _leaves(pod: dict[str, Any]) -> bool:
    """Whether the pod has to leave. One of a DaemonSet stays: it tolerates a cordoned node and would come back."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return not any(owner.get("kind") == "DaemonSet" and owner.get("controller") for owner in owners)


def _ending(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _grace(pod: dict[str, Any]) -> int:
    """The grace period in seconds of the pod where it is deleted."""
    return min(int(pod["spec"].get("terminationGracePeriodSeconds", LAST_GRACE)), LAST_GRACE)


def _owner(pod: dict[str, Any]) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return str(next((owner["uid"] for owner in owners if owner.get("controller")), pod["metadata"]["uid"]))


def _path(metadata: dict[str, Any]) -> str:
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _eviction(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "deleteOptions": {"preconditions": {"uid": metadata["uid"]}},
    }
