"""The scale subresource: how many replicas a Deployment or a ReplicaSet is to have, as an object of kind Scale.

`kubectl scale` and autoscalers know no more of a kind than this. A write of a Scale is a write of `spec.replicas`.
"""

from __future__ import annotations

from typing import Any

from wasmlet.controlplane.objects.patching import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, UnsupportedMedia
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.objects.workload_rules import count
from wasmlet.controlplane.patches import patch
from wasmlet.controlplane.storage import selectors, status
from wasmlet.controlplane.storage.status import Object, bad_request
from wasmlet.controlplane.storage.store import Record

NAME = "scale"
_VERSION = "autoscaling/v1"
_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(record: Record) -> Object:
    """The Scale of an object."""
    raw = record.raw
    spec, metadata = raw.get("spec") or {}, raw["metadata"]
    return {
        "kind": "Scale",
        "apiVersion": _VERSION,
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
        "spec": {"replicas": spec.get("replicas", 0)},
        "status": {
            "replicas": (raw.get("status") or {}).get("replicas", 0),
            "selector": selectors.text_of(spec.get("selector")),
        },
    }


class Scaling:
    """Writes of Scales."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def update(self, call: Call, body: Any) -> Object:
        """PUT: the Scale as it is then.

        Raises:
            ApiError: 400, 404, 409, 422, as for any update.
        """
        return self._write(call, self._registry.find(call.kind, call.namespace, call.name), body)

    def patch(self, call: Call, media: str, body: Any) -> Object:
        """PATCH by a JSON patch or a merge patch: the Scale as it is then.

        Raises:
            ApiError: as for an update; 415, a media type that is no such patch.
        """
        old = self._registry.find(call.kind, call.namespace, call.name)
        if media == JSON_PATCH:
            return self._write(call, old, patch.json_patch(scale_of(old), body))
        if media not in (MERGE_PATCH, STRATEGIC_PATCH):  # a Scale has no lists that a strategic merge would merge
            raise UnsupportedMedia(media)
        if not isinstance(body, dict):
            raise bad_request("a merge patch of an object is an object")
        return self._write(call, old, patch.merge(scale_of(old), body))

    def _write(self, call: Call, old: Record, scale: Any) -> Object:
        if not isinstance(scale, dict) or scale.get("kind", "Scale") != "Scale":
            raise bad_request("the body is not an object of kind Scale")
        metadata, spec = scale.get("metadata") or {}, scale.get("spec") or {}
        if not isinstance(metadata, dict) or not isinstance(spec, dict):
            raise bad_request("metadata and spec of a Scale are objects")
        replicas = spec.get("replicas", 0)
        if causes := count(replicas, "spec.replicas"):
            raise status.invalid(call.kind, call.name, causes)
        named = {key: metadata[key] for key in ("uid", "resourceVersion") if metadata.get(key)}
        unversioned = {key: value for key, value in old.raw["metadata"].items() if key != "resourceVersion"}
        new = {**old.raw, "metadata": unversioned | named, "spec": {**old.raw["spec"], "replicas": replicas}}
        return scale_of(self._registry.replace(call, old, new))
