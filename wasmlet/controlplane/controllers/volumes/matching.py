"""Chooses the PersistentVolume for a claim: the smallest one that has all that the claim asks for. Pure.

The rules are those of kubernetes/pkg/controller/volume/persistentvolume (`FindMatchingVolume`).
"""

from __future__ import annotations

from collections.abc import Iterable

from wasmlet.controlplane.storage.selectors import of_object
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Record
from wasmlet.model.placement import selects
from wasmlet.model.quantity import Quantity

_CLASS = "volume.beta.kubernetes.io/storage-class"


def class_of(raw: Object) -> str:
    """The StorageClass of a claim or a volume; "" for none."""
    annotated = (raw["metadata"].get("annotations") or {}).get(_CLASS)
    return str(annotated or (raw.get("spec") or {}).get("storageClassName") or "")


def is_for(volume: Object, claim: Object) -> bool:
    """Whether the volume is bound to the claim, or kept for it by name."""
    reference = (volume.get("spec") or {}).get("claimRef") or {}
    meta = claim["metadata"]
    named = (reference.get("namespace"), reference.get("name")) == (meta["namespace"], meta["name"])
    return named and reference.get("uid") in (None, "", meta["uid"])


def best(claim: Object, volumes: Iterable[Record], node: Object | None = None, *, free: bool = True) -> Record | None:
    """The volume for a claim: one that is kept for it, whatever its class and labels, else the smallest that fits.

    Args:
        node: the node where the claim is used; None where the node does not matter.
        free: whether a volume that is not reserved for the claim may be chosen.
    """
    fitting = [
        volume for volume in volumes if reaches(volume.raw, node) and not mismatch(claim, volume.raw, any_class=True)
    ]
    kept = [volume for volume in fitting if is_for(volume.raw, claim)]
    others = [volume for volume in fitting if free and _is_free(volume.raw) and _chosen(claim, volume.raw)]
    found = sorted(kept or others, key=lambda volume: (_size(volume.raw["spec"].get("capacity")), volume.name))
    return found[0] if found else None


def mismatch(claim: Object, volume: Object, *, any_class: bool = False) -> str:
    """Why the volume is not what the claim asks for, in the words of the events that say so; "" where it is.

    Args:
        any_class: whether to ignore the volume's class.
    """
    wanted, offered = claim["spec"], volume.get("spec") or {}
    if "deletionTimestamp" in volume["metadata"]:
        return f'the volume is marked for deletion "{volume["metadata"]["name"]}"'
    if _size(offered.get("capacity")) < _size((wanted.get("resources") or {}).get("requests")):
        return "requested PV is too small"
    if not any_class and class_of(claim) != class_of(volume):
        return "storageClassName does not match"
    if (wanted.get("volumeMode") or "Filesystem") != (offered.get("volumeMode") or "Filesystem"):
        return "incompatible volumeMode"
    if not set(wanted.get("accessModes") or ()) <= set(offered.get("accessModes") or ()):
        return "incompatible accessMode"
    return ""


def _is_free(volume: Object) -> bool:
    return not (volume.get("spec") or {}).get("claimRef")


def _chosen(claim: Object, volume: Object) -> bool:
    """Whether the volume matches the claim's class and label selector."""
    selector, labels = claim["spec"].get("selector"), volume["metadata"].get("labels") or {}
    return class_of(claim) == class_of(volume) and (
        not selector or all(one.matches(labels) for one in of_object(selector))
    )


def reaches(volume: Object, node: Object | None) -> bool:
    """Whether a node may use the volume (`nodeAffinity`)."""
    required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
    if not required or node is None:
        return True
    return selects({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}, node)


def _size(amounts: object) -> Quantity:
    text = amounts.get("storage") if isinstance(amounts, dict) else None
    return Quantity.parse(str(text or 0))
