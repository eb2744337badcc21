"""The columns of volumes, claims and their classes."""

from __future__ import annotations

from datetime import datetime

from wasmlet.controlplane.http.cells import UNSET, Cells, age
from wasmlet.controlplane.storage.status import Object

_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def _modes(modes: list[str] | None) -> str:
    return ",".join(_SHORT.get(mode, mode) for mode in modes or ())


def _phase(obj: Object) -> str:
    return "Terminating" if "deletionTimestamp" in obj["metadata"] else (obj.get("status") or {}).get("phase", "")


def claim(obj: Object, now: datetime) -> Cells:
    spec, status, meta = obj.get("spec") or {}, obj.get("status") or {}, obj["metadata"]
    bound = bool(spec.get("volumeName"))
    return [
        meta["name"],
        _phase(obj),
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or UNSET,
        age(meta.get("creationTimestamp"), now),
        spec.get("volumeMode") or UNSET,
    ]


def volume(obj: Object, now: datetime) -> Cells:
    spec, status, meta = obj.get("spec") or {}, obj.get("status") or {}, obj["metadata"]
    reference = spec.get("claimRef") or {}
    return [
        meta["name"],
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{reference.get('namespace', '')}/{reference.get('name', '')}" if reference else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or UNSET,
        status.get("reason", ""),
        age(meta.get("creationTimestamp"), now),
        spec.get("volumeMode") or UNSET,
    ]


def storage_class(obj: Object, now: datetime) -> Cells:
    meta = obj["metadata"]
    default = (meta.get("annotations") or {}).get(_DEFAULT) == "true"
    return [
        f"{meta['name']} (default)" if default else meta["name"],
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        bool(obj.get("allowVolumeExpansion")),
        age(meta.get("creationTimestamp"), now),
    ]
