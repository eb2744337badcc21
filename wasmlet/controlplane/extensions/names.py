"""The names of custom resources: whether others already use them, and what a definition's status says of that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wasmlet.controlplane.storage.status import Object

_RESOURCES, _KINDS = ("plural", "singular"), ("kind", "listKind")
_REASONS = {
    "plural": "PluralConflict",
    "singular": "SingularConflict",
    "kind": "KindConflict",
    "listKind": "ListKindConflict",
}


def _taken(others: Iterable[Object], group: str) -> tuple[set[str], set[str]]:
    """The names of resources and those of kinds that other definitions of a group have."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        if other["spec"]["group"] == group:
            names = (other.get("status") or {}).get("acceptedNames") or {}
            resources.update(names.get(key, "") for key in _RESOURCES)
            resources.update(names.get("shortNames") or ())
            kinds.update(names.get(key, "") for key in _KINDS)
    return resources, kinds


def accept(definition: Object, others: Iterable[Object], now: str) -> Object:
    """The status of a definition: the names that it has, and its conditions.

    Args:
        others: all other definitions.
        now: the time, as metav1.Time has it.
    """
    status = dict(definition.get("status") or {})
    wanted, had = definition["spec"]["names"], status.get("acceptedNames") or {}
    resources, kinds = _taken(others, definition["spec"]["group"])
    accepted: Object = {**had}
    reason, message = "NoConflicts", "no conflicts found"
    for key, taken in (("plural", resources), ("singular", resources), ("kind", kinds), ("listKind", kinds)):
        if wanted[key] != had.get(key) and wanted[key] in taken:
            reason, message = _REASONS[key], f'"{wanted[key]}" is already in use'
        else:
            accepted[key] = wanted[key]
    used = [
        name for name in wanted.get("shortNames") or () if name in resources and name not in had.get("shortNames", ())
    ]
    if used:
        texts = [f'"{name}" is already in use' for name in used]
        reason, message = "ShortNamesConflict", texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    else:
        accepted["shortNames"] = list(wanted.get("shortNames") or ())
    accepted["categories"] = list(wanted.get("categories") or ())
    status["acceptedNames"] = {key: value for key, value in accepted.items() if value}
    fine = reason == "NoConflicts"
    conditions = list(status.get("conditions") or ())
    put(conditions, "NamesAccepted", fine, reason, message, now)
    if fine:
        put(conditions, "Established", True, "InitialNamesAccepted", "the initial names have been accepted", now)
    elif not established(status):
        put(conditions, "Established", False, "NotAccepted", "not all names are accepted", now)
    status["conditions"] = conditions
    return status


def put(conditions: list[Object], kind: str, is_so: bool, reason: str, message: str, now: str) -> None:
    """Set a condition in a list of them; the time of its last change is kept where its status does not change."""
    old = next((item for item in conditions if item["type"] == kind), None)
    new: dict[str, Any] = {
        "type": kind,
        "status": str(is_so),
        "lastTransitionTime": old["lastTransitionTime"] if old and old["status"] == str(is_so) else now,
        "reason": reason,
        "message": message,
    }
    if old is None:
        conditions.append(new)
    else:
        conditions[conditions.index(old)] = new


def established(status: Object) -> bool:
    """Whether the status of a definition says that its resource is served."""
    return any(item["type"] == "Established" and item["status"] == "True" for item in status.get("conditions") or ())
