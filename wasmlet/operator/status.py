"""Builds the status of a pool: its numbers, its nodes, and conditions with messages for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from wasmlet.model.pod import Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.times import rfc3339
from wasmlet.operator.plan import Plan
from wasmlet.operator.pool import LABEL, Pool, Unusable
from wasmlet.operator.seen import Member, Seen

MOST_NODES = 100
_MOST_NAMED = 3


@attrs.frozen
class Emptying:
    """How far the drain of a node is; see `wasmlet.operator.drain.Drain` for the fields."""

    node: str
    left: int | None
    held: str


@attrs.frozen
class _Condition:
    type: str
    status: bool
    reason: str
    message: str


def status_of(
    pool: Pool, seen: Seen, plan: Plan, emptying: Sequence[Emptying], *, trouble: Unusable | None, removing: bool
) -> dict[str, Any]:
    """The status, without the times of its conditions, which `stamped` adds.

    Args:
        trouble: why the pool's spec cannot be carried out; None where it can.
        removing: whether the pool is being deleted.
    """
    wanted = 0 if removing else pool.wanted
    ready = [member for member in seen.members if member.ordinal < wanted and member.available]
    pods = sum((m.node.pods for m in ready if m.node is not None), Quantity.parse(0))
    unobserved = pool.remote is None and seen.set is not None and not seen.set.revision
    conditions = (
        _ready(wanted, ready, seen.members),
        _progressing(wanted, ready, plan, removing=removing, unobserved=unobserved),
        _draining(emptying),
        _degraded(trouble),
    )
    return {
        "observedGeneration": pool.generation,
        "replicas": sum(member.there for member in seen.members),
        "readyReplicas": len(ready),
        "updatedReplicas": sum(m.there and m.name not in plan.outdated for m in seen.members),
        "selector": f"{LABEL}={pool.name}",
        "capacity": {"pods": str(pods)},
        "nodes": [_node(member, plan) for member in seen.members[:MOST_NODES]],
        "conditions": [_raw(condition, pool.generation) for condition in conditions],
    }


def stamped(status: dict[str, Any], before: Raw, now: datetime) -> dict[str, Any] | None:
    """Add `lastTransitionTime` to each condition; None where the result equals the status `before`."""
    known = {condition["type"]: condition for condition in before.get("conditions") or ()}
    conditions = []
    for condition in status["conditions"]:
        old = known.get(condition["type"], {})
        since = old["lastTransitionTime"] if old.get("status") == condition["status"] else rfc3339(now)
        conditions.append({**condition, "lastTransitionTime": since})
    found = {**status, "conditions": conditions}
    return None if all(before.get(key) == value for key, value in found.items()) else found


def in_words_only(status: Raw, before: Raw) -> bool:
    """Whether two statuses differ only in messages (and in the reason of Draining), but not in facts.

    Two operators that evict the same pods get different answers, and would otherwise overwrite each other's text.
    """

    def facts(raw: Raw) -> Any:
        kept = {key: value for key, value in raw.items() if key != "conditions"}
        return kept, [_facts(condition) for condition in raw.get("conditions") or ()]

    return bool(facts(status) == facts(before))


def _facts(condition: Raw) -> Raw:
    words = ("message", "reason") if condition["type"] == "Draining" else ("message",)
    return {key: value for key, value in condition.items() if key not in words}


def _ready(wanted: int, ready: Sequence[Member], members: Sequence[Member]) -> _Condition:
    message = f"{len(ready)} of {wanted} nodes ready"
    if len(ready) == wanted:
        return _Condition("Ready", True, "NodesReady", message)
    away = [m for m in members if m.ordinal < wanted and not m.available]
    troubles = [f"{m.name}: {trouble}" for m in away if (trouble := _trouble(m))]
    return _Condition("Ready", False, "NodesNotReady", "; ".join([message, *troubles[:_MOST_NAMED]]))


def _trouble(member: Member) -> str:
    if member.remote:
        return "the agent has not joined" if member.node is None else "the agent is away"
    return "" if member.pod is None else member.pod.trouble


def _progressing(wanted: int, ready: Sequence[Member], plan: Plan, *, removing: bool, unobserved: bool) -> _Condition:
    def going(reason: str, message: str) -> _Condition:
        return _Condition("Progressing", True, reason, message)

    if removing:
        return going("Removing", f"{_nodes(len(plan.surplus))} still to end")
    if plan.surplus or plan.replicas > wanted:
        return going("ScalingDown", f"from {plan.replicas} to {_nodes(wanted)}: {some(plan.surplus)} to end")
    if plan.outdated:
        return going("RollingUpdate", f"{some(plan.outdated)} still to be made anew")
    if unobserved:
        return going("Observing", "the controller of StatefulSets has yet to see the last change")
    if len(ready) < wanted:
        return going("ScalingUp", f"{_nodes(wanted - len(ready))} still to be ready")
    return _Condition("Progressing", False, "UpToDate", "nothing is to be done")


def _draining(emptying: Sequence[Emptying]) -> _Condition:
    if not emptying:
        return _Condition("Draining", False, "NoneToEmpty", "no node is being emptied")
    parts = []
    for one in emptying[:_MOST_NAMED]:
        left = "" if one.left is None else f": {one.left} pod{'' if one.left == 1 else 's'} left"
        parts.append(f"{one.node}{left}" + (f", held: {one.held}" if one.held else ""))
    more = f"; and {len(emptying) - _MOST_NAMED} more" if len(emptying) > _MOST_NAMED else ""
    held = any(one.held for one in emptying)
    return _Condition("Draining", True, "Held" if held else "Evicting", "; ".join(parts) + more)


def _degraded(trouble: Unusable | None) -> _Condition:
    if trouble is None:
        return _Condition("Degraded", False, "AsSpecified", "the pool can be as it says")
    return _Condition("Degraded", True, trouble.reason, str(trouble))


def _node(member: Member, plan: Plan) -> dict[str, Any]:
    draining = any(node.name == member.name for node in plan.drain)
    if member.remote and member.node is None:
        state = "Starting"
    elif not member.remote and (member.pod is None or member.pod.ending):
        state = "Ending"
    elif draining:
        state = "Draining"
    elif member.node is None:
        state = "Starting"
    else:
        state = "Ready" if member.available else "NotReady"
    found = {"name": member.name, "ready": state == "Ready", "state": state}
    return found | ({"version": member.node.program} if member.node is not None and member.node.program else {})


def _raw(condition: _Condition, generation: int) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": str(condition.status),
        "reason": condition.reason,
        "message": condition.message[:1024],
        "observedGeneration": generation,
    }


def some(names: Sequence[str]) -> str:
    """The first few of these names, and how many more there are, as text."""
    more = [f"and {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return ", ".join([*names[:_MOST_NAMED], *more])


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"
