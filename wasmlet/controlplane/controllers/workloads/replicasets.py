"""The controller of ReplicaSets: keeps as many pods of a template as the spec asks for, and writes the status.

The rules are those of kubernetes/pkg/controller/replicaset. A write is visible at once here, so the controller does not
have to wait for its own writes. Unlike in a cluster, pods that fail soon are replaced after a pause that doubles each
time. So pods that every node rejects do not pile up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.controllers.workloads.adoption import adopt
from wasmlet.controlplane.controllers.workloads.failures import Failures
from wasmlet.controlplane.controllers.workloads.ownership import (
    Ownership,
    controller_of,
    uid_of,
)
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage import selectors
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Event, Record

BURST = 50
"""How many pods are made or deleted before others get their turn on the event loop."""


class ReplicaSets:
    """Makes and deletes pods. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, deletion: Deletion, ownership: Ownership, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._deletion = deletion
        self._ownership = ownership
        self._events = Recorder(registry, "replicaset-controller")
        self._queue = Queue(clock, self._settle)
        self._failures = Failures("ReplicaSet", clock)
        self._store.listeners.append(self._on_change)

    async def run(self) -> None:
        """Follow ReplicaSets until cancelled."""
        await self._queue.run()

    # -- what changed

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == "replicasets":
            if event.change == "DELETED":
                self._queue.forget(record.key)
                self._failures.forget(uid_of(record.raw))
            elif event.old is None or _asked(event.old.raw) != _asked(record.raw):
                self._queue.add(record.key)
        elif kind.key == "pods":
            old = event.old.raw if event.old is not None and event.change == "MODIFIED" else None
            if old is None or _projection(old) != _projection(record.raw):
                self._failures.note(old, record.raw, gone=event.change == "DELETED")
                for raw in filter(None, (old, record.raw)):
                    self._wake(raw, record.namespace)

    def _wake(self, pod: Object, namespace: str) -> None:
        """Queue the ReplicaSet that controls a pod; for a pod without a controller, all whose selector matches."""
        reference = controller_of(pod)
        if reference is not None:
            if reference.get("kind") == "ReplicaSet":
                self._queue.add((namespace, str(reference.get("name"))))
            return
        labels = pod["metadata"].get("labels") or {}
        for record in list(self._store["replicasets"].spaces.get(namespace, {}).values()):
            wanted = selectors.of_object(record.raw["spec"].get("selector"))
            if wanted and all(requirement.matches(labels) for requirement in wanted):
                self._queue.add(record.key)

    # -- one ReplicaSet

    def _settle(self, key: Key) -> float | None:
        record = self._store["replicasets"].get(*key)
        if record is None:
            return None
        again: float | None = None
        error: ApiError | None = None
        pods = self._pods(record)
        if not podlist.leaving(record.raw):
            try:
                again = self._manage(record, pods)
            except ApiError as refused:
                error = refused
            pods = self._ownership.controlled(record, "pods")
        self._write(record, pods, error)
        if error is not None:
            raise error
        waits = self._until_available(record, pods)
        return min((seconds for seconds in (again, waits) if seconds is not None), default=None)

    def _pods(self, record: Record) -> list[Record]:
        """The pods of a ReplicaSet, those that it adopts now included."""
        if not podlist.leaving(record.raw):
            wanted = selectors.of_object(record.raw["spec"]["selector"])
            adopt(self._store, self._ownership, record, core("pods"), wanted, podlist.active)
        return self._ownership.controlled(record, "pods")

    def _manage(self, record: Record, pods: Iterable[Record]) -> float | None:
        """Create missing pods, or delete surplus ones. Returns in how many seconds there is more to do, if at all."""
        counted = [pod for pod in pods if podlist.active(pod.raw)]
        missing = int(record.raw["spec"]["replicas"]) - len(counted)
        if missing < 0:
            for pod in podlist.surplus(counted, min(-missing, BURST)):
                self._deletion.delete(Call(core("pods"), pod.namespace, pod.name), pod, Options())
                self._events.tell(record, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")
            return 0.0 if -missing > BURST else None
        if missing and (pause := self._failures.pause(uid_of(record.raw))) is not None:
            return pause
        for _ in range(min(missing, BURST)):  # the first that is refused is the last that is tried
            self._make(record)
        return 0.0 if missing > BURST else None

    def _make(self, record: Record) -> None:
        body = podlist.from_template(record.raw["spec"]["template"], record)
        call = Call(core("pods"), record.namespace, manager="kube-controller-manager")
        try:
            made = self._registry.create(call, body)
        except ApiError as error:
            self._events.tell(record, "Warning", "FailedCreate", f"Error creating: {error.message}")
            raise
        self._events.tell(record, "Normal", "SuccessfulCreate", f"Created pod: {made.name}")

    def _until_available(self, record: Record, pods: Iterable[Record]) -> float | None:
        """In how many seconds the next pod will be available."""
        least, now = int(record.raw["spec"].get("minReadySeconds") or 0), self._registry.clock.now()
        waits = (podlist.seconds_until_available(pod.raw, least, now) for pod in pods if podlist.active(pod.raw))
        return min(filter(None, waits), default=None)

    # -- its status

    def _write(self, record: Record, pods: Iterable[Record], error: ApiError | None) -> None:
        before = record.raw.get("status") or {}
        status = {**before, **self._counts(record, pods), "observedGeneration": record.raw["metadata"]["generation"]}
        status = {key: value for key, value in status.items() if value != 0 or key == "replicas"}
        conditions = [item for item in before.get("conditions") or () if item.get("type") != "ReplicaFailure"]
        if error is not None:
            known = next(
                (item for item in before.get("conditions") or () if item.get("type") == "ReplicaFailure"), None
            )
            conditions.append(
                known
                or {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "lastTransitionTime": self._registry.now(),
                    "reason": "FailedCreate",
                    "message": error.message,
                }
            )
        status["conditions"] = conditions
        if not conditions:
            del status["conditions"]
        if status != before:
            self._store.write(core("replicasets"), {**record.raw, "status": status})

    def _counts(self, record: Record, pods: Iterable[Record]) -> Object:
        spec, now = record.raw["spec"], self._registry.clock.now()
        labels = ((spec["template"].get("metadata") or {}).get("labels") or {}).items()
        counted = [pod.raw for pod in pods if podlist.active(pod.raw)]
        least = int(spec.get("minReadySeconds") or 0)
        waits = [podlist.seconds_until_available(pod, least, now) for pod in counted]
        return {
            "replicas": len(counted),
            "fullyLabeledReplicas": sum(labels <= (pod["metadata"].get("labels") or {}).items() for pod in counted),
            "readyReplicas": sum(wait is not None for wait in waits),
            "availableReplicas": sum(wait == 0 for wait in waits),
        }


def _asked(replica_set: Object) -> tuple[Any, Any]:
    """The parts of a ReplicaSet whose change matters here: all but the status, which this controller writes."""
    metadata = {key: value for key, value in replica_set["metadata"].items() if key != "resourceVersion"}
    return replica_set["spec"], metadata


def _projection(pod: Object) -> tuple[Any, ...]:
    """The parts of a pod that a ReplicaSet depends on."""
    metadata = pod["metadata"]
    return (
        metadata.get("labels"),
        metadata.get("ownerReferences"),
        podlist.leaving(pod),
        podlist.finished(pod),
        podlist.ready_since(pod),
    )
