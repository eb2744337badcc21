"""Conditions in the status of an object."""

from __future__ import annotations

from wasmlet.controlplane.storage.status import Object


def with_condition(conditions: object, condition: Object) -> list[Object]:
    """Conditions with one of them set; its transition time only moves when its status does."""
    out = []
    for item in conditions if isinstance(conditions, list) else ():
        if item.get("type") == condition["type"]:
            if item.get("status") == condition["status"] and "lastTransitionTime" in item:
                condition = {**condition, "lastTransitionTime": item["lastTransitionTime"]}
        else:
            out.append(item)
    return [*out, condition]
