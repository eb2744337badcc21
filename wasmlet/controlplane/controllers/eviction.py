"""Evicts pods from nodes with a NoExecute taint: those that do not tolerate it are deleted, at once or after a time.

The rules are those of kubernetes/pkg/controller/tainteviction. A toleration with `tolerationSeconds` counts from when
the pod met the taint; without one, the pod stays. A taint that goes away cancels what is still to come.
"""

from __future__ import annotations

import asyncio

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.timers import Timers
from wasmlet.controlplane.objects.conditions import with_condition
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Event, Record
from wasmlet.model.placement import tolerates

_Key = tuple[str, str, str]
"""Namespace, name and UID of a pod."""


def _key(pod: Record) -> _Key:
    return pod.namespace, pod.name, pod.raw["metadata"]["uid"]


def _no_execute(node: Object) -> list[Object]:
    return [taint for taint in (node.get("spec") or {}).get("taints") or () if taint.get("effect") == "NoExecute"]


def patience(tolerations: list[Object], taints: list[Object]) -> float | None:
    """For how many seconds a pod may stay on a node with these NoExecute taints; None means without end."""
    used = []
    for taint in taints:
        found = [item for item in tolerations if tolerates(item, taint)]
        if not found:
            return 0.0
        used += found[:1]
    limits = [float(item["tolerationSeconds"]) for item in used if item.get("tolerationSeconds") is not None]
    return max(0.0, min(limits)) if limits else None


class TaintEviction:
    """Deletes pods that do not tolerate a NoExecute taint while `run` runs; follows the store from construction on."""

    def __init__(self, registry: Registry, deletion: Deletion, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._deletion = deletion
        self._clock = clock
        self._events = Recorder(registry, "taint-eviction-controller")
        self._due: Timers[_Key] = Timers(clock)
        self._since: dict[_Key, float] = {}
        """For each pod that will be deleted, when its node got the taint."""
        self._store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == "nodes":
            if event.change != "DELETED":
                before = _no_execute(event.old.raw) if event.old is not None else []
                if (taints := _no_execute(record.raw)) != before:
                    for pod in self._store["pods"].on_node(record.name):
                        self._consider(pod, taints)
        elif kind.key == "pods" and record.node:
            if event.change == "DELETED":
                self._cancel(_key(record))
            elif event.old is None or self._concerns(event.old, record):
                node = self._store["nodes"].get("", record.node)
                if node is not None and (taints := _no_execute(node.raw)):
                    self._consider(record, taints)

    @staticmethod
    def _concerns(old: Record, new: Record) -> bool:
        tolerations = [record.raw["spec"].get("tolerations") for record in (old, new)]
        return old.node != new.node or tolerations[0] != tolerations[1]

    def _consider(self, pod: Record, taints: list[Object]) -> None:
        key = _key(pod)
        seconds = patience(pod.raw["spec"].get("tolerations") or [], taints) if taints else None
        if seconds is None:
            if self._cancel(key):
                self._events.tell(pod, "Normal", "TaintManagerEviction", f"Cancelling deletion of Pod {_name(pod)}")
            return
        since = self._since.setdefault(key, self._clock.monotonic())
        self._due.set(key, max(0.0, since + seconds - self._clock.monotonic()))

    def _cancel(self, key: _Key) -> bool:
        self._due.cancel(key)
        return self._since.pop(key, None) is not None

    async def run(self) -> None:
        """Delete each pod when its time has come, until cancelled."""
        while True:
            key = await self._due.next()
            self._since.pop(key, None)
            pod = self._store["pods"].get(*key[:2])
            if pod is not None and _key(pod) == key:
                self._evict(pod)
            await asyncio.sleep(0)

    def _evict(self, pod: Record) -> None:
        self._events.tell(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {_name(pod)}")
        told = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "The pod does not tolerate a NoExecute taint of its node any longer.",
            "lastProbeTime": None,
            "lastTransitionTime": self._registry.now(),
            "observedGeneration": pod.raw["metadata"].get("generation", 1),
        }
        status = pod.raw.get("status") or {}
        new = {**status, "conditions": with_condition(status.get("conditions"), told)}
        marked = self._store.write(core("pods"), {**pod.raw, "status": new})
        try:
            self._deletion.delete(Call(core("pods"), pod.namespace, pod.name), marked, Options())
        except ApiError:
            return  # the pod was deleted meanwhile


def _name(pod: Record) -> str:
    return f"{pod.namespace}/{pod.name}"
