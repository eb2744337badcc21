"""Which PersistentVolume a claim gets: the smallest that has all that the claim asks for. Pure.

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


def best(claim: Object, volumes: Iterable[Record], node: Object | None = None) -> Record | None:
    """The volume for a claim: one that is kept for it, else the smallest that fits.

    Args:
        node: where the claim is used, if that counts.
    """
    fitting = [volume for volume in volumes if _fits(claim, volume.raw, node)]
    kept = [volume for volume in fitting if is_for(volume.raw, claim)]
    free = [volume for volume in fitting if not volume.raw["spec"].get("claimRef")]
    found = sorted(kept or free, key=lambda volume: (_size(volume.raw["spec"].get("capacity")), volume.name))
    return found[0] if found else None


def _fits(claim: Object, volume: Object, node: Object | None) -> bool:
    wanted, offered = claim["spec"], volume.get("spec") or {}
    selector, labels = wanted.get("selector"), volume["metadata"].get("labels") or {}
    return (
        "deletionTimestamp" not in volume["metadata"]
        and class_of(claim) == class_of(volume)
        and (wanted.get("volumeMode") or "Filesystem") == (offered.get("volumeMode") or "Filesystem")
        and set(wanted.get("accessModes") or ()) <= set(offered.get("accessModes") or ())
        and _size((wanted.get("resources") or {}).get("requests")) <= _size(offered.get("capacity"))
        and (not selector or all(one.matches(labels) for one in of_object(selector)))
        and reaches(volume, node)
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
