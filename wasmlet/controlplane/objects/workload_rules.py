"""Validation of Deployments and ReplicaSets (`ValidateDeployment`, `ValidateReplicaSet`).

A pod template must follow the rules of a pod, and the selector must match the template's labels.
"""

from __future__ import annotations

import re

import attrs

from wasmlet.controlplane.objects import pod_rules
from wasmlet.controlplane.objects.validation import labels
from wasmlet.controlplane.storage import selectors
from wasmlet.controlplane.storage.status import Cause, Object

PLURALS = ("deployments", "replicasets")
_PERCENT = re.compile(r"[0-9]{1,9}%")  # Python refuses to convert numbers of thousands of digits
_STRATEGIES = ("Recreate", "RollingUpdate")


def check(plural: str, obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with an object of one of these kinds, after defaults; `old` is what it replaces."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return [Cause.required("spec")]
    out = [
        cause
        for field in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
        if spec.get(field) is not None
        for cause in count(spec[field], f"spec.{field}")
    ]
    out += selector(spec, old)
    out += template(spec, "ReplicaSet")
    if plural == "deployments" and not out:
        deadline = spec.get("progressDeadlineSeconds")
        if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
            out.append(Cause.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
        out += _strategy(spec.get("strategy"))
    return out


def count(value: object, field: str) -> list[Cause]:
    """What is wrong with a count, such as the number of replicas."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        return [Cause.invalid(field, value, "must be greater than or equal to 0")]
    return []


def selector(spec: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a selector, which has to choose the pods of its template."""
    chosen = spec.get("selector")
    if not chosen:
        return [Cause.required("spec.selector")]
    try:
        wanted = selectors.of_object(chosen)
    except ValueError as error:
        return [Cause.invalid("spec.selector", chosen, str(error))]
    if not wanted:
        return [Cause.invalid("spec.selector", chosen, "empty selector is invalid for this kind")]
    if old is not None and old["spec"].get("selector") != chosen:
        return [Cause.invalid("spec.selector", chosen, "field is immutable")]
    template_ = spec.get("template")
    metadata = template_.get("metadata") if isinstance(template_, dict) else None
    have = metadata.get("labels") if isinstance(metadata, dict) else None
    have = have if isinstance(have, dict) else {}
    if not all(requirement.matches(have) for requirement in wanted):
        why = "`selector` does not match template `labels`"
        return [Cause.invalid("spec.template.metadata.labels", have, why)]
    return []


def template(spec: Object, kind: str) -> list[Cause]:
    """What is wrong with a template of pods that run for ever; `kind` names its owner in messages."""
    out = pod_template(spec)
    given = spec.get("template")
    pod = given.get("spec") if isinstance(given, dict) else None
    if not isinstance(pod, dict):
        return out
    if (policy := pod.get("restartPolicy")) in ("OnFailure", "Never"):
        out.append(Cause.unsupported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        why = f"activeDeadlineSeconds in {kind} is not Supported"
        out.append(Cause.forbidden("spec.template.spec.activeDeadlineSeconds", why))
    return out


def pod_template(spec: Object) -> list[Cause]:
    """What is wrong with any template of pods."""
    given = spec.get("template")
    if not isinstance(given, dict):
        return [Cause.required("spec.template")]
    metadata = given.get("metadata")
    out = labels(metadata.get("labels"), "spec.template.metadata.labels") if isinstance(metadata, dict) else []
    pod = given.get("spec")
    return out + [attrs.evolve(cause, field=f"spec.template.{cause.field}") for cause in pod_rules.check({"spec": pod})]


def _strategy(strategy: object) -> list[Cause]:
    if not isinstance(strategy, dict):
        return [Cause.invalid("spec.strategy", str(strategy), "must be an object")]
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind not in _STRATEGIES:
        return [Cause.unsupported("spec.strategy", kind, _STRATEGIES)]
    field = "spec.strategy.rollingUpdate"
    if kind == "Recreate":
        why = "may not be specified when strategy `type` is 'Recreate'"
        return [Cause.forbidden(field, why)] if rolling is not None else []
    if not isinstance(rolling, dict):
        return [Cause.required(field, "this should be defaulted and never be nil")]
    out = []
    for name in ("maxUnavailable", "maxSurge"):
        value = rolling.get(name)
        if isinstance(value, str) and not _PERCENT.fullmatch(value):
            why = "a valid percent string must be a numeric string followed by an ending '%'"
            out.append(Cause.invalid(f"{field}.{name}", value, why))
        elif not isinstance(value, str):
            out += count(value, f"{field}.{name}")
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    if not out and unavailable in (0, "0%") and surge in (0, "0%"):
        out.append(Cause.invalid(f"{field}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    if not out and isinstance(unavailable, str) and int(unavailable[:-1]) > 100:
        out.append(Cause.invalid(f"{field}.maxUnavailable", unavailable, "must not be greater than 100%"))
    return out
