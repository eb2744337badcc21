"""Drains a node: asks the Eviction API to evict every pod, which refuses while a disruption budget forbids it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from wasmlet.clock import Backoff, Clock, Pacing, either
from wasmlet.kube import Client, Reflector, Selection, errors, paths

log = structlog.get_logger(__name__)

PAUSES = Backoff(initial=0.5, cap=5, jitter=0.3)
"""The pauses between two tries to evict what a budget protects; kubectl waits 5 s each time."""
LAST_GRACE = 30
"""The longest grace period in seconds of a pod that is deleted, not evicted."""


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
        pauses = PAUSES.pauses(self._rng)
        while True:
            if not self._pods:
                self._say("")
                await self._changed.wait()
            self._changed.clear()
            before = len(self._pods)
            pods = list(self._pods.values())
            held = await (self._delete(pods) if self._insists else self._round([p for p in pods if not _ending(p)]))
            self._say(held)
            if not self._pods:
                continue
            await either(self._clock, next(pauses), self._changed)
            if len(self._pods) < before:
                pauses = PAUSES.pauses(self._rng)

    async def _round(self, pods: Sequence[dict[str, Any]]) -> str:
        """Request the eviction of each pod. After one refusal, the other pods of the same owner are not tried."""
        held, refused = "", set()
        for pod in pods:
            metadata = pod["metadata"]
            group = (metadata["namespace"], _owner(pod))
            if group in refused:
                continue
            try:
                await self._client.create(f"{_path(metadata)}/eviction", _eviction(metadata))
            except errors.ObjectNotFound:
                continue
            except errors.Conflict:
                continue  # another pod has that name by now; the watch will report it
            except errors.ApiError as error:
                # 429 from a disruption budget, 500 where several budgets match the pod, or no answer: the next round
                # tries again.
                refused.add(group)
                held = held or f"{metadata['namespace']}/{metadata['name']}: {error}"
        return held

    async def _delete(self, pods: Sequence[dict[str, Any]]) -> str:
        """Delete each pod. One that ends already gets less time, if it has more than `LAST_GRACE`."""
        held = ""
        for pod in pods:
            metadata = pod["metadata"]
            grace = min(pod["spec"].get("terminationGracePeriodSeconds", LAST_GRACE), LAST_GRACE)
            if _ending(pod) and metadata.get("deletionGracePeriodSeconds", 0) <= grace:
                continue
            options = {"gracePeriodSeconds": grace, "preconditions": {"uid": metadata["uid"]}}
            try:
                await self._client.delete(_path(metadata), options)
            except (errors.ObjectNotFound, errors.Conflict):
                continue
            except errors.ApiError as error:
                held = held or f"{metadata['namespace']}/{metadata['name']}: {error}"
        return held

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
