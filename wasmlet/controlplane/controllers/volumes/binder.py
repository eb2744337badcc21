"""Binds claims to existing volumes, and keeps the status of both. Nothing here creates volumes (no provisioner).

A claim of a class with volumeBindingMode WaitForFirstConsumer is bound when a pod that uses it has a node. When a claim
is deleted, its volume becomes Released. With the reclaim policy Delete it becomes Failed, as nothing here can delete a
volume's data. The rules and words are those of kubernetes/pkg/controller/volume/persistentvolume.
"""

from __future__ import annotations

from typing import Any

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.volumes.matching import best, class_of, is_for, mismatch
from wasmlet.controlplane.controllers.workloads.pods import finished
from wasmlet.controlplane.controllers.workloads.queue import Key, Queue
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Record

VOLUMES, CLAIMS, CLASSES = "persistentvolumes", "persistentvolumeclaims", "storageclasses"
BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
COMPONENT = "persistentvolume-controller"


class Binder:
    """Binds claims. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._store = registry.store
        self._events = Recorder(registry, COMPONENT)
        self._queue = Queue(clock, self._settle)
        self._told: dict[str, str] = {}
        """The reason why a claim is not bound that the last Event gave, by the claim's UID."""
        self._store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        record, gone = event.record, event.change == "DELETED"
        if kind.plural == CLAIMS:
            if gone:
                self._queue.forget(record.key)
                self._told.pop(record.raw["metadata"]["uid"], None)
            else:
                self._queue.add(record.key)
            if name := (record.raw.get("spec") or {}).get("volumeName"):
                self._queue.add(("", str(name)))
        elif kind.plural == VOLUMES:
            if gone:
                self._queue.forget(record.key)
            else:
                self._queue.add(record.key)
            self._look_at_claims(str(((record.raw.get("spec") or {}).get("claimRef") or {}).get("name") or ""))
        elif kind.plural == CLASSES:
            self._look_at_claims("")
        elif kind.plural == "pods" and record.node and (event.old is None or not event.old.node):
            for name in claims_of(record.raw):
                self._queue.add((record.namespace, name))

    def _look_at_claims(self, name: str) -> None:
        """Queue the claims that are not bound, and those of that name."""
        for claim in self._store[CLAIMS]:
            if claim.name == name or (claim.raw.get("status") or {}).get("phase") == "Pending":
                self._queue.add(claim.key)

    async def run(self) -> None:
        """Bind claims until cancelled."""
        await self._queue.run()

    def _settle(self, key: Key) -> None:
        if key[0]:
            if (claim := self._store[CLAIMS].get(*key)) is not None:
                self._settle_claim(claim)
        elif (volume := self._store[VOLUMES].get(*key)) is not None:
            self._settle_volume(volume)

    # --- claims

    def _settle_claim(self, claim: Record) -> None:
        spec = claim.raw["spec"]
        if (claim.raw["metadata"].get("annotations") or {}).get(BIND_COMPLETED):
            volume = self._store[VOLUMES].get("", str(spec.get("volumeName") or ""))
            if volume is None or not is_for(volume.raw, claim.raw):
                self._lost(claim)
            else:
                self._bind(claim, volume)
        elif name := spec.get("volumeName"):
            volume = self._store[VOLUMES].get("", str(name))
            if volume is None:
                return
            taken = bool(volume.raw["spec"].get("claimRef"))
            if taken and not is_for(volume.raw, claim.raw):
                self._tell(claim, "Warning", "FailedBinding", f'volume "{name}" already bound to a different claim.')
            elif not taken and (why := mismatch(claim.raw, volume.raw)):
                message = f'Cannot bind to requested volume "{name}": {why}'
                self._tell(claim, "Warning", "VolumeMismatch", message)
            else:
                self._bind(claim, volume)
        elif "deletionTimestamp" not in claim.raw["metadata"]:
            self._find(claim)

    def _find(self, claim: Record) -> None:
        name = class_of(claim.raw)
        found = self._store[CLASSES].get("", name) if name else None
        waits = found is not None and found.raw.get("volumeBindingMode") == "WaitForFirstConsumer"
        node = self._node_of(claim) if waits else None
        volume = best(claim.raw, self._store[VOLUMES], node, free=not waits or node is not None)
        if volume is None and waits and node is None:
            message = "waiting for first consumer to be created before binding"
            self._tell(claim, "Normal", "WaitForFirstConsumer", message)
            return
        if volume is not None:
            self._bind(claim, volume)
        elif not name:
            message = "no persistent volumes available for this claim and no storage class is set"
            self._tell(claim, "Normal", "FailedBinding", message)
        elif found is None:
            message = f'storageclass.storage.k8s.io "{name}" not found'
            self._tell(claim, "Warning", "ProvisioningFailed", message)
        else:
            provisioner = found.raw.get("provisioner")
            message = (
                f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by "
                "the system administrator. If volume creation is delayed, please verify that the provisioner is "
                "running and correctly registered."
            )
            self._tell(claim, "Normal", "ExternalProvisioning", message)

    def _node_of(self, claim: Record) -> Object | None:
        """The node of a pod that uses the claim."""
        for pod in self._store["pods"]:
            uses = pod.namespace == claim.namespace and claim.name in claims_of(pod.raw)
            if uses and pod.node and not finished(pod.raw):
                node = self._store["nodes"].get("", pod.node)
                return node.raw if node is not None else None
        return None

    def _bind(self, claim: Record, volume: Record) -> None:
        """Bind the two: each gets the other's name, the volume first; then the status of both becomes Bound."""
        meta = claim.raw["metadata"]
        reference = volume.raw["spec"].get("claimRef") or {}
        if reference.get("uid") != meta["uid"]:
            full = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace}
            full |= {"name": claim.name, "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
            spec = {**volume.raw["spec"], "claimRef": full}
            volume = self._write(volume, VOLUMES, {} if reference else {BY_CONTROLLER: "yes"}, spec)
        self._phase(volume, VOLUMES, {"phase": "Bound"})
        by_name = bool(claim.raw["spec"].get("volumeName"))
        if not by_name or not (meta.get("annotations") or {}).get(BIND_COMPLETED):
            notes = {BIND_COMPLETED: "yes"} | ({} if by_name else {BY_CONTROLLER: "yes"})
            claim = self._write(claim, CLAIMS, notes, {**claim.raw["spec"], "volumeName": volume.name})
        offered = volume.raw["spec"]
        given = {"accessModes": offered.get("accessModes") or [], "capacity": offered.get("capacity") or {}}
        self._phase(claim, CLAIMS, {"phase": "Bound", **given})
        self._told.pop(meta["uid"], None)

    def _lost(self, claim: Record) -> None:
        if (claim.raw.get("status") or {}).get("phase") != "Lost":
            self._phase(claim, CLAIMS, {"phase": "Lost"})
            message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            self._events.tell(claim, "Warning", "ClaimLost", message)

    # --- volumes

    def _settle_volume(self, volume: Record) -> None:
        spec, phase = volume.raw["spec"], (volume.raw.get("status") or {}).get("phase")
        reference = spec.get("claimRef") or {}
        if not reference.get("uid"):  # free, or kept for a claim by name
            self._phase(volume, VOLUMES, {"phase": "Available"})
            return
        claim = self._store[CLAIMS].get(str(reference.get("namespace")), str(reference.get("name")))
        if claim is not None and claim.raw["metadata"]["uid"] == reference["uid"]:
            return  # the claim is looked at, which binds the two
        if spec.get("persistentVolumeReclaimPolicy") != "Delete":
            self._phase(volume, VOLUMES, {"phase": "Released"})
        elif phase != "Failed":
            what = f'error getting deleter volume plugin for volume "{volume.name}"'
            message = f"{what}: no deletable volume plugin matched"
            self._phase(volume, VOLUMES, {"phase": "Failed", "message": message})
            self._events.tell(volume, "Warning", "VolumeFailedDelete", message)

    # --- writing

    def _write(self, record: Record, plural: str, notes: dict[str, str], spec: Object) -> Record:
        meta = record.raw["metadata"]
        annotations = {**(meta.get("annotations") or {}), **notes}
        new = {**record.raw, "metadata": {**meta, "annotations": annotations} if annotations else meta, "spec": spec}
        return self._registry.replace(Call(core(plural), record.namespace, record.name), record, new)

    def _phase(self, record: Record, plural: str, status: dict[str, Any]) -> None:
        """Write the status if it has changed."""
        before = record.raw.get("status") or {}
        if plural == VOLUMES and status["phase"] != before.get("phase"):
            status = {**status, "lastPhaseTransitionTime": self._registry.now()}
        elif {**before, **status} == before:
            return
        new = {**record.raw, "status": {**before, **status}}
        self._registry.replace(Call(core(plural), record.namespace, record.name, sub="status"), record, new)

    def _tell(self, claim: Record, kind: Any, reason: str, message: str) -> None:
        """Record an Event that says why a claim is not bound, unless the last one said the same."""
        uid = claim.raw["metadata"]["uid"]
        if self._told.get(uid) != message:
            self._told[uid] = message
            self._events.tell(claim, kind, reason, message)


def claims_of(pod: Object) -> set[str]:
    """The names of the claims that a pod uses; those of ephemeral volumes have the pod's name in them."""
    found = set()
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        if source := volume.get("persistentVolumeClaim"):
            found.add(str(source.get("claimName")))
        elif "ephemeral" in volume:
            found.add(f"{pod['metadata']['name']}-{volume['name']}")
    return found
