"""The controller of EndpointSlices: lists the addresses of each Service's pods, and which of them are ready.

The rules are those of kubernetes/pkg/controller/endpointslice; `slices` works out what has to change.
"""

from __future__ import annotations

from typing import Any

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.workloads import pods as podlist
from wasmlet.controlplane.controllers.workloads import slices
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.objects.deletion import Deletion, Options
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Record

_ZONE = "topology.kubernetes.io/zone"
_MANAGER = "kube-controller-manager"


class EndpointSlices:
    """Keeps the slices of Services. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, deletion: Deletion, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._deletion = deletion
        self._queue = Queue(clock, self._settle)
        self._writing = False
        self._store.listeners.append(self._on_change)

    async def run(self) -> None:
        """Follow Services and pods until cancelled."""
        await self._queue.run()

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == "services":
            self._queue.add(record.key)
        elif kind.key == "pods":
            old = event.old.raw if event.old is not None and event.change == "MODIFIED" else None
            if old is None or _projection(old) != _projection(record.raw):
                self._wake(record, *filter(None, (old,)))
        elif kind.key == "endpointslices" and not self._writing:
            labels = record.raw["metadata"].get("labels") or {}
            if labels.get(slices.MANAGED) == slices.MANAGER:
                self._queue.add((record.namespace, str(labels.get(slices.SERVICE))))

    def _wake(self, pod: Record, *before: Object) -> None:
        """Queue the Services whose selector matches a pod now, or matched it before."""
        labels = [raw["metadata"].get("labels") or {} for raw in (pod.raw, *before)]
        for service in list(self._store["services"].spaces.get(pod.namespace, {}).values()):
            wanted = _selector(service)
            if wanted and any(wanted.items() <= have.items() for have in labels):
                self._queue.add(service.key)

    def _settle(self, key: Key) -> None:
        service = self._store["services"].get(*key)
        if service is None or podlist.leaving(service.raw):
            self._queue.forget(key)
            for item in self._slices(key) if service is None else ():
                self._delete(item)
            return
        wanted = _selector(service)
        if not wanted or service.raw["spec"].get("type") == "ExternalName":
            return  # whoever made the Service without a selector makes its slices
        pods = [
            pod
            for pod in list(self._store["pods"].spaces.get(service.namespace, {}).values())
            if wanted.items() <= (pod.raw["metadata"].get("labels") or {}).items()
        ]
        zones = {
            node.name: zone
            for node in self._store["nodes"]
            if (zone := (node.raw["metadata"].get("labels") or {}).get(_ZONE))
        }
        self._carry_out(key[0], slices.reconcile(service, pods, self._slices(key), zones))

    def _slices(self, key: Key) -> list[Record]:
        """The slices of a Service that this controller has made."""
        wanted = {slices.SERVICE: key[1], slices.MANAGED: slices.MANAGER}.items()
        found = list(self._store["endpointslices"].spaces.get(key[0], {}).values())
        return [
            item
            for item in found
            if wanted <= (item.raw["metadata"].get("labels") or {}).items() and not podlist.leaving(item.raw)
        ]

    def _carry_out(self, namespace: str, changes: slices.Changes) -> None:
        kind = core("endpointslices")
        self._writing = True
        try:
            for body in changes.create:
                self._registry.create(Call(kind, namespace, manager=_MANAGER), body)
            for record, body in changes.update:
                self._registry.replace(Call(kind, record.namespace, record.name, manager=_MANAGER), record, body)
            for record in changes.delete:
                self._delete(record)
        finally:
            self._writing = False

    def _delete(self, record: Record) -> None:
        self._deletion.delete(Call(core("endpointslices"), record.namespace, record.name), record, Options())


def _selector(service: Record) -> dict[str, str]:
    spec = service.raw.get("spec") or {}
    return spec.get("selector") or {}


def _projection(pod: Object) -> tuple[Any, ...]:
    """The parts of a pod that an endpoint depends on."""
    spec, status, metadata = pod["spec"], pod.get("status") or {}, pod["metadata"]
    return (
        metadata.get("labels"),
        spec.get("nodeName"),
        status.get("podIP"),
        status.get("podIPs"),
        podlist.ready_since(pod) is not None,
        podlist.leaving(pod),
        podlist.finished(pod),
    )
