"""The labels, annotations and taints that a pool's template gives to its Nodes. Pure.

The admission plugin NodeRestriction lets a node set only few labels, and does not let it change its taints later. So
the operator sets them. An annotation of the Node lists what came from the template. What is removed from the template
is then removed from the Node, and what others have set stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from wasmlet.operator.node_pod import UNPREPARED
from wasmlet.operator.pool import Pool
from wasmlet.operator.seen import DRESS, MEMBER, NodeSeen

_NAMED = ("labels", "annotations")


def dressed(pool: Pool, node: NodeSeen) -> dict[str, Any] | None:
    """A merge patch that makes the Node match the pool's template; None where it already does."""
    before = _before(node)
    labels = _changes(node.labels, pool.labels, before["labels"])
    wanted = {(taint["key"], taint["effect"]): taint for taint in pool.taints}
    kept = [
        taint
        for taint in node.taints
        if taint.get("key") != UNPREPARED
        and (taint.get("key"), taint.get("effect")) not in wanted
        and [taint.get("key"), taint.get("effect")] not in before["taints"]
    ]
    taints = [*kept, *wanted.values()]
    have = {
        "labels": sorted(pool.labels),
        "annotations": sorted(pool.annotations),
        "taints": sorted(map(list, wanted)),
    }
    text = orjson.dumps(have).decode() if any(have.values()) else None
    own = {} if pool.remote is None else {MEMBER: pool.uid}
    annotations = _changes(node.annotations, {**pool.annotations, **own}, before["annotations"])
    if node.annotations.get(DRESS) != text:
        annotations[DRESS] = text
    metadata: dict[str, Any] = {}
    if labels:
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    different = _keyed(taints) != _keyed(node.taints)
    if not metadata and not different:
        return None
    patch: dict[str, Any] = {"metadata": {**metadata, "uid": node.uid, "resourceVersion": node.version}}
    return patch | ({"spec": {"taints": taints or None}} if different else {})


def _before(node: NodeSeen) -> dict[str, list[Any]]:
    """What the Node has from the template so far, as its annotation says."""
    try:
        found = orjson.loads(node.annotations.get(DRESS, "{}"))
        names = {key: [name for name in found.get(key) or () if isinstance(name, str)] for key in _NAMED}
        return {**names, "taints": list(found.get("taints") or ())}
    except (ValueError, TypeError, AttributeError):
        return {"labels": [], "annotations": [], "taints": []}  # somebody edited the annotation, or the node itself


def _changes(have: Mapping[str, str], wanted: Mapping[str, str], before: list[Any]) -> dict[str, str | None]:
    gone = {key: None for key in before if key not in wanted and key in have}
    return gone | {key: value for key, value in wanted.items() if have.get(key) != value}


def _keyed(taints: Any) -> dict[tuple[str, str], str]:
    return {(taint["key"], taint["effect"]): taint.get("value") or "" for taint in taints}
