"""The controller of PodDisruptionBudgets: counts healthy pods, and works out how many may be evicted.

The rules are those of kubernetes/pkg/controller/disruption. A budget in percent, or with `maxUnavailable`, needs the
number of pods that there should be. It gets that from the controllers of the pods; an Event tells of pods without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.controllers.workloads.ownership import Ownership, controller_of
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.objects import budgets
from wasmlet.controlplane.objects.registry import Registry
from wasmlet.controlplane.storage.kinds import SCALE, Kind, core
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Record
from wasmlet.model.times import parse


class Disruptions:
    """Keeps the status of budgets. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, ownership: Ownership, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._ownership = ownership
        self._events = Recorder(registry, "controllermanager")
        self._queue = Queue(clock, self._settle)
        self._store.listeners.append(self._on_change)

    async def run(self) -> None:
        """Follow budgets until cancelled."""
        await self._queue.run()

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == budgets.PLURAL:
            if event.change == "DELETED":
                self._queue.forget(record.key)
            else:
                self._queue.add(record.key)
        elif kind.key == "pods" and self._store[budgets.PLURAL].spaces.get(record.namespace):
            old = event.old.raw if event.old is not None and event.change == "MODIFIED" else None
            if old is None or _projection(old) != _projection(record.raw):
                for raw in filter(None, (old, record.raw)):
                    self._wake(raw, record.namespace)

    def _wake(self, pod: Object, namespace: str) -> None:
        labels = pod["metadata"].get("labels") or {}
        for budget in self._store[budgets.PLURAL].spaces.get(namespace, {}).values():
            if budgets.covers(budget.raw, labels):
                self._queue.add(budget.key)

    # -- one budget

    def _settle(self, key: Key) -> float | None:
        record = self._store[budgets.PLURAL].get(*key)
        if record is None:
            return None
        before = record.raw.get("status") or {}
        space = self._store["pods"].spaces.get(record.namespace, {}).values()
        pods = [pod for pod in space if budgets.covers(record.raw, pod.raw["metadata"].get("labels") or {})]
        if not pods and (before.get("observedGeneration") is None or before.get("expectedPods")):
            self._events.tell(record, "Normal", "NoPods", "No matching pods found")
        disrupted, again = self._disrupted(record, before.get("disruptedPods") or {}, pods)
        try:
            expected, desired, unmanaged = self._wanted(record.raw["spec"], pods)
        except LookupError as error:
            self._fail(record, str(error))
            return again
        healthy = sum(
            podlist.ready_since(pod.raw) is not None and not podlist.leaving(pod.raw) and pod.name not in disrupted
            for pod in pods
        )
        status = {
            "observedGeneration": record.raw["metadata"]["generation"],
            "disruptionsAllowed": max(0, healthy - desired) if expected > 0 else 0,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            **({"disruptedPods": disrupted} if disrupted else {}),
            **({"conditions": before["conditions"]} if before.get("conditions") else {}),
        }
        status = budgets.with_condition(status, self._registry.now())
        if status != before:
            if unmanaged and before.get("observedGeneration") is None:
                self._tell_unmanaged(record)
            self._store.write(core(budgets.PLURAL), {**record.raw, "status": status})
        return again

    def _wanted(self, spec: Object, pods: Sequence[Record]) -> tuple[int, int, bool]:
        """How many pods there should be, how many of them healthy, and whether some have no controller.

        Raises:
            LookupError: something controls a pod that has no size.
        """
        most, least = spec.get("maxUnavailable"), spec.get("minAvailable")
        if most is None and (least is None or isinstance(least, int)):
            return (0, 0, False) if least is None else (len(pods), least, False)
        expected, unmanaged = self._sizes(pods)
        desired = _part(least, expected) if most is None else max(0, expected - _part(most, expected))
        return expected, desired, unmanaged

    def _sizes(self, pods: Sequence[Record]) -> tuple[int, bool]:
        """The sizes of the controllers of these pods, added up; and whether some pods have no controller."""
        sizes: dict[str, int] = {}
        unmanaged = False
        for pod in pods:
            reference = controller_of(pod.raw)
            if reference is None:
                unmanaged = True
            elif str(reference.get("uid")) not in sizes:
                uid, size = self._size(reference, pod)
                sizes[uid] = size
        return sum(sizes.values()), unmanaged

    def _size(self, reference: Object, pod: Record) -> tuple[str, int]:
        """UID and size of what controls the number of pods like this one: for a ReplicaSet's pod, its Deployment."""
        found = self._ownership.find(str(reference.get("uid")))
        while found is not None and SCALE in self._store.catalog.of_key(found[0]).subresources:
            raw = found[1].raw
            above = controller_of(raw)
            higher = self._ownership.find(str(above.get("uid"))) if above is not None else None
            if higher is None or higher[0] != "deployments":
                return str(raw["metadata"]["uid"]), int(raw["spec"].get("replicas") or 0)
            found = higher
        raise LookupError(f'found no controllers for pod "{pod.name}"')

    def _disrupted(
        self, record: Record, known: dict[str, str], pods: Sequence[Record]
    ) -> tuple[dict[str, str], float | None]:
        """The pods whose eviction was allowed and that are still there; in how many seconds the first counts again."""
        now: datetime = self._registry.clock.now()
        out, waits = {}, []
        for pod in pods:
            if pod.name not in known or podlist.leaving(pod.raw):
                continue
            rest = (parse(known[pod.name]) + budgets.DELETION_TIMEOUT - now).total_seconds()
            if rest >= 0:
                out[pod.name] = known[pod.name]
                waits.append(rest + 0.001)
            else:
                message = f"Pod was expected by PDB {record.namespace}/{record.name} to be deleted but it wasn't"
                self._events.tell(pod, "Warning", "NotDeleted", message)
        return out, min(waits, default=None)

    # -- what cannot be worked out

    def _fail(self, record: Record, why: str) -> None:
        before = record.raw.get("status") or {}
        if budgets.condition(before).get("message") == why and not before.get("disruptionsAllowed"):
            return
        message = f"Failed to calculate the number of expected pods: {why}"
        self._events.tell(record, "Warning", "CalculateExpectedPodCountFailed", message)
        status = budgets.with_condition({**before, "disruptionsAllowed": 0}, self._registry.now(), why)
        self._store.write(core(budgets.PLURAL), {**record.raw, "status": status})

    def _tell_unmanaged(self, record: Record) -> None:
        selector = record.raw["spec"].get("selector")
        message = (
            f"Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a "
            "result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To "
            'account for these pods please set ".spec.minAvailable" field of the PDB to an integer value.'
        )
        self._events.tell(record, "Warning", "UnmanagedPods", message)


def _part(value: Any, total: int) -> int:
    """A number, or a share of `total` in percent, rounded up."""
    return math.ceil(int(value.rstrip("%")) * total / 100) if isinstance(value, str) else int(value)


def _projection(pod: Object) -> tuple[object, ...]:
    """The parts of a pod that a budget depends on."""
    owner = (controller_of(pod) or {}).get("uid")
    return pod["metadata"].get("labels"), owner, podlist.leaving(pod), podlist.ready_since(pod) is not None
