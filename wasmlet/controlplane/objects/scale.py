"""The scale subresource: how many replicas an object is to have, as an object of kind Scale.

`kubectl scale` and autoscalers need to know only this of a kind. A write of a Scale sets `spec.replicas`, or the field
that the definition of a custom resource names.
"""

from __future__ import annotations

from typing import Any

from wasmlet.controlplane.extensions import jsonpath
from wasmlet.controlplane.extensions.version import Scale
from wasmlet.controlplane.objects.patching import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, UnsupportedMedia
from wasmlet.controlplane.objects.registry import Call, Registry
from wasmlet.controlplane.objects.workload_rules import count
from wasmlet.controlplane.patches import patch
from wasmlet.controlplane.storage import selectors, status
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import Object, bad_request
from wasmlet.controlplane.storage.store import Record

NAME = "scale"
_VERSION = "autoscaling/v1"
_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


_BUILT_IN = Scale(".spec.replicas", ".status.replicas", "")


def _scale_of(raw: Object, paths: Scale) -> Object:
    """The Scale of an object."""
    metadata = raw["metadata"]
    if paths is _BUILT_IN:
        selector = selectors.text_of((raw.get("spec") or {}).get("selector"))
    else:
        selector = str(jsonpath.first(raw, paths.selector) or "") if paths.selector else ""
    out: Object = {
        "kind": "Scale",
        "apiVersion": _VERSION,
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
        "spec": {"replicas": jsonpath.first(raw, paths.replicas) or 0},
        "status": {"replicas": jsonpath.first(raw, paths.status_replicas) or 0},
    }
    if selector or paths is _BUILT_IN:
        out["status"]["selector"] = selector
    return out


def _set(raw: Object, path: str, value: int) -> Object:
    """A copy of an object with one field set; `path` is dots and names, such as `.spec.replicas`."""
    name, _, rest = path[1:].partition(".")
    below = raw.get(name)
    below = below if isinstance(below, dict) else {}
    return {**raw, name: _set(below, f".{rest}", value) if rest else value}


class Scaling:
    """Reads and writes Scales."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def _paths(self, kind: Kind) -> Scale:
        """The paths of the fields that a kind's Scale shows."""
        version = self._registry.definitions.of(kind)
        return version.scale if version is not None and version.scale is not None else _BUILT_IN

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """The Scale of an object.

        Raises:
            ApiError: 404.
        """
        record = self._registry.find(kind, namespace, name)
        return _scale_of(self._registry.custom.view(kind, record), self._paths(kind))

    def update(self, call: Call, body: Any) -> Object:
        """Carry out a PUT of a Scale. Returns the Scale as it is then.

        Raises:
            ApiError: 400, 404, 409, 422, as for any update.
        """
        return self._write(call, self._registry.find(call.kind, call.namespace, call.name), body)

    def patch(self, call: Call, media: str, body: Any) -> Object:
        """Carry out a JSON patch or a merge patch of a Scale. Returns the Scale as it is then.

        Raises:
            ApiError: as for an update; 415, a media type that is no such patch.
        """
        old = self._registry.find(call.kind, call.namespace, call.name)
        before = _scale_of(self._registry.custom.view(call.kind, old), self._paths(call.kind))
        if media == JSON_PATCH:
            return self._write(call, old, patch.json_patch(before, body))
        if media not in (MERGE_PATCH, STRATEGIC_PATCH):  # a Scale has no lists that a strategic merge would merge
            raise UnsupportedMedia(media)
        if not isinstance(body, dict):
            raise bad_request("a merge patch of an object is an object")
        return self._write(call, old, patch.merge(before, body))

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
        raw, paths = self._registry.custom.view(call.kind, old), self._paths(call.kind)
        unversioned = {key: value for key, value in raw["metadata"].items() if key != "resourceVersion"}
        new = _set({**raw, "metadata": unversioned | named}, paths.replicas, replicas)
        written = self._registry.replace(call, old, new)
        return _scale_of(self._registry.custom.view(call.kind, written), paths)
