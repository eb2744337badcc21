"""Which part of a Node's status this node owns, and the patch that writes it. Pure functions, except `machine`.

Other programs write to the same status: capacities of devices, conditions of a problem detector. These stay as they
are.
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
    """The condition with its times. The transition time stays while the Node in the API has the same status for it."""
    found = (node.get("status") or {}).get("conditions") or ()
    before = next((c for c in found if c.get("type") == condition["type"]), None)
    same = before is not None and before.get("status") == condition["status"]
    changed = (before or {}).get("lastTransitionTime") if same else None
    return {**condition, "lastHeartbeatTime": rfc3339(now), "lastTransitionTime": changed or rfc3339(now)}


def owned(node: Raw, sent: Raw) -> dict[str, Any]:
    """What the Node in the API has in those fields and conditions that this node has `sent`."""
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
    """The patch from status `before` to `now`. The API merges maps and conditions, so it also names what is gone."""
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
    """The CPU and memory of this machine, for a provider that does not say what it can give."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{memory // 1024}Ki"}
