"""PodDisruptionBudgets: their validation, which pods they cover, and what their status says of evictions.

`evictions` asks a budget and counts down its allowance; `controllers.disruption` works the allowance out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from wasmlet.controlplane.objects.workload_rules import count
from wasmlet.controlplane.storage import selectors
from wasmlet.controlplane.storage.status import Cause, Object
from wasmlet.controlplane.storage.store import Record, Store

PLURAL = "poddisruptionbudgets"
ALLOWED = "DisruptionAllowed"
SYNC_FAILED = "SyncFailed"
DELETION_TIMEOUT = timedelta(minutes=2)
"""For how long a pod whose eviction was allowed counts as gone while it is still there."""
_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
_PERCENT = re.compile(r"[0-9]{1,9}%")


def check(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a budget (`ValidatePodDisruptionBudget`)."""
    spec = obj.get("spec") or {}
    out = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        out.append(Cause.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        value, field = spec.get(key), f"spec.{key}"
        if isinstance(value, str) and not _PERCENT.fullmatch(value):
            why = "a valid percent string must be a numeric string followed by an ending '%'"
            out.append(Cause.invalid(field, value, why))
        elif isinstance(value, str):
            if int(value[:-1]) > 100:
                out.append(Cause.invalid(field, value, "must not be greater than 100%"))
        elif value is not None:
            out += count(value, field)
    if spec.get("selector") is not None:
        try:
            selectors.of_object(spec["selector"])
        except ValueError as error:
            out.append(Cause.invalid("spec.selector", spec["selector"], str(error)))
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _POLICIES:
        out.append(Cause.unsupported("spec.unhealthyPodEvictionPolicy", policy, _POLICIES))
    return out


def covers(budget: Object, labels: Mapping[str, str]) -> bool:
    """Whether a budget covers a pod of its namespace with these labels; one without a selector covers none."""
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return False
    return all(requirement.matches(labels) for requirement in selectors.of_object(selector))


def of_pod(store: Store, pod: Record) -> list[Record]:
    """The budgets that cover a pod."""
    labels = pod.raw["metadata"].get("labels") or {}
    found = store[PLURAL].spaces.get(pod.namespace, {}).values()
    return [record for record in found if covers(record.raw, labels)]


def condition(status: Object) -> Object:
    """The condition that tells whether pods may be evicted; empty where there is none yet."""
    found = (item for item in status.get("conditions") or () if item.get("type") == ALLOWED)
    return next(found, {})


def with_condition(status: Object, now: str, failure: str = "") -> Object:
    """The status with its condition brought up to date: whether evictions are allowed, or why that is not known."""
    allowed = status.get("disruptionsAllowed", 0) > 0 and not failure
    known = condition(status)
    told = {
        "type": ALLOWED,
        "status": str(allowed),
        "observedGeneration": status.get("observedGeneration", 0),
        "lastTransitionTime": known.get("lastTransitionTime", now) if known.get("status") == str(allowed) else now,
        "reason": SYNC_FAILED if failure else "SufficientPods" if allowed else "InsufficientPods",
        "message": failure,
    }
    others = [item for item in status.get("conditions") or () if item.get("type") != ALLOWED]
    return {**status, "conditions": [*others, told]}
