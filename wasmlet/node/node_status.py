"""What of a Node's status is this node's, and the patch that brings the API to it. But for `machine`, pure functions.

Others write there too: capacities of devices, conditions of a problem detector. These stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from wasmlet.model.pod import Raw
from wasmlet.model.status import Condition
from wasmlet.model.times import rfc3339

_PRESSURE = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "the node has memory to give"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "the node has disk to give"),
    "PIDPressure": ("KubeletHasSufficientPID", "the node has processes to give"),
    "NetworkUnavailable": ("RouteCreated", "guests need no route"),
}


def conditions(of_provider: Sequence[Condition], provider: str, trouble: str) -> list[Condition]:
    """The Node's conditions.

    Args:
        of_provider: those that the provider reports.
        provider: its name.
        trouble: what keeps the node from being ready, or "".
    """
    if trouble:
        ready = Condition("Ready", "False", "KubeletNotReady", trouble)
    else:
        ready = Condition("Ready", "True", "KubeletReady", f"provider {provider} is ready")
    own = {name: Condition(name, "False", reason, message) for name, (reason, message) in _PRESSURE.items()}
    return [*(own | {c.type: c for c in of_provider}).values(), ready]


def stamped(condition: Raw, node: Raw, now: datetime) -> dict[str, Any]:
    """The condition with its times; that of its transition stays while the API's Node says the same."""
    found = (node.get("status") or {}).get("conditions") or ()
    before = next((c for c in found if c.get("type") == condition["type"]), None)
    same = before is not None and before.get("status") == condition["status"]
    changed = (before or {}).get("lastTransitionTime") if same else None
    return {**condition, "lastHeartbeatTime": rfc3339(now), "lastTransitionTime": changed or rfc3339(now)}


def owned(node: Raw, sent: Raw) -> dict[str, Any]:
    """The part of a Node's status that is this node's: that of which it has sent something."""
    status = node.get("status") or {}
    found: dict[str, Any] = {}
    for key, ours in sent.items():
        value = status.get(key)
        if key == "conditions":
            have = {c.get("type"): c for c in value or ()}
            found[key] = [[have.get(c["type"], {}).get(name) for name in c] for c in ours]
        elif isinstance(ours, Mapping):
            found[key] = {name: (value or {}).get(name) for name in ours}
        else:
            found[key] = value or None
    return found


def patch_of(before: Raw, now: Raw) -> dict[str, Any]:
    """What brings a status to `now`, with what takes away that of `before` which is gone: maps and conditions merge."""
    found: dict[str, Any] = dict.fromkeys(before.keys() - now.keys())
    for key, value in now.items():
        if isinstance(value, Mapping):
            value = {**dict.fromkeys((before.get(key) or {}).keys() - value.keys()), **value}
        found[key] = value
    kept = {c["type"] for c in now["conditions"]}
    gone = [c["type"] for c in before.get("conditions") or () if c["type"] not in kept]
    found["conditions"] = [*now["conditions"], *({"type": name, "$patch": "delete"} for name in gone)]
    # Addresses merge by type; replaced as a whole, or an old one would stay for ever.
    found["addresses"] = [*now["addresses"], {"$patch": "replace"}]
    return found


def version_of(node: Raw) -> str:
    return str(node["metadata"].get("resourceVersion", ""))


def machine() -> dict[str, str]:
    """What this machine has, where the provider does not say what it can give."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{memory // 1024}Ki"}
