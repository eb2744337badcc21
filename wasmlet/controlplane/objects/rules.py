"""Validation of an object by the rules of its kind; those of pods are in `pod_rules`."""

from __future__ import annotations

from wasmlet.controlplane.access.rights import GROUP as RBAC
from wasmlet.controlplane.objects import (
    access_rules,
    budgets,
    job_rules,
    services,
    stateful_rules,
    validation,
    workload_rules,
)
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import Cause, Object


def check(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with an object after defaults; `old` is what it replaces."""
    causes = validation.check(kind, obj, old)
    if kind.key in workload_rules.PLURALS:
        causes += workload_rules.check(kind.key, obj, old)
    elif kind.key == stateful_rules.PLURAL:
        causes += stateful_rules.check(obj, old)
    elif kind.key == job_rules.PLURAL:
        causes += job_rules.check(obj, old)
    elif kind.key == budgets.PLURAL:
        causes += budgets.check(obj, old)
    elif kind.group == RBAC:
        causes += access_rules.check(kind.key, obj, old)
    elif kind.key == "services":
        causes += services.check(obj, old)
    return causes
