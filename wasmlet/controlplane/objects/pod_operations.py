"""The POSTs to a pod's subresources: bindings and evictions."""

from __future__ import annotations

from collections.abc import Mapping

from wasmlet.controlplane.objects.conditions import with_condition
from wasmlet.controlplane.objects.deletion import Deletion
from wasmlet.controlplane.objects.evictions import Evictions
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.kinds import core
from wasmlet.controlplane.storage.status import Object, bad_request
from wasmlet.controlplane.storage.store import Record

_DONE: Mapping[str, object] = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Success",
    "code": 201,
}


class PodOperations:
    """Binds pods to nodes and evicts them."""

    def __init__(self, registry: Registry, deletion: Deletion) -> None:
        self._registry = registry
        self._evictions = Evictions(registry, deletion)

    def post(self, call: Call, body: Object) -> Object:
        """Carry out a POST to `pods/binding`, `pods/eviction` or `bindings`.

        Raises:
            ApiError: 400, 403, 404, 409; 429 and 500, see `Evictions`.
        """
        name = call.name or str((body.get("metadata") or {}).get("name", ""))
        record = self._registry.find(core("pods"), call.namespace, name)
        if call.sub == "eviction":
            self._evictions.evict(call, record, body)
        else:
            node = (body.get("target") or {}).get("name")
            if not isinstance(node, str) or not node:
                raise bad_request("a binding names its node in target.name")
            uid = (body.get("metadata") or {}).get("uid")
            if uid and uid != record.raw["metadata"]["uid"]:
                raise status.conflict(core("pods"), name, f"Precondition failed: UID in precondition: {uid}")
            self.bind(record, node, (body.get("metadata") or {}).get("annotations") or {})
        return dict(_DONE)

    def bind(self, record: Record, node: str, annotations: Object | None = None) -> Record:
        """Bind a pod to a node.

        Raises:
            ApiError: 409, it is on a node already, is being deleted, or has scheduling gates.
        """
        raw = record.raw
        if raw["spec"].get("nodeName"):
            why = f'pod {record.name} is already assigned to node "{record.node}"'
            raise status.conflict(core("pods"), record.name, why)
        if "deletionTimestamp" in raw["metadata"]:
            raise status.conflict(core("pods"), record.name, f"pod {record.name} is being deleted, cannot be assigned")
        if raw["spec"].get("schedulingGates"):
            raise status.conflict(core("pods"), record.name, f"pod {record.name} has non-empty .spec.schedulingGates")
        meta = dict(raw["metadata"])
        if annotations:
            meta["annotations"] = {**(meta.get("annotations") or {}), **annotations}
        condition = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": self._registry.now(),
            "observedGeneration": meta.get("generation", 1),
        }
        state = dict(raw.get("status") or {})
        state["conditions"] = with_condition(state.get("conditions"), condition)
        bound = {**raw, "metadata": meta, "spec": {**raw["spec"], "nodeName": node}, "status": state}
        return self._registry.store.write(core("pods"), bound)
