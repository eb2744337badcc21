"""Conditions in the status of an object."""

from __future__ import annotations

from wasmlet.controlplane.storage.status import Object


def with_condition(conditions: object, condition: Object) -> list[Object]:
    """Set one condition in a list of conditions; its transition time changes only with its status."""
    out = []
    for item in conditions if isinstance(conditions, list) else ():
        if item.get("type") == condition["type"]:
            if item.get("status") == condition["status"] and "lastTransitionTime" in item:
                condition = {**condition, "lastTransitionTime": item["lastTransitionTime"]}
        else:
            out.append(item)
    return [*out, condition]
