"""Validation of StatefulSets (`ValidateStatefulSet`, `ValidateStatefulSetUpdate`)."""

from __future__ import annotations

from typing import Any

from wasmlet.controlplane.objects.validation import DNS_LABEL, LABEL_RULE
from wasmlet.controlplane.objects.workload_rules import count, selector, template
from wasmlet.controlplane.storage.status import Cause, Object

PLURAL = "statefulsets"
_POLICIES = ("OrderedReady", "Parallel")
_STRATEGIES = ("RollingUpdate", "OnDelete")
_KEPT = ("Retain", "Delete")
_CHANGEABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def check(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a StatefulSet, after defaults; `old` is what it replaces."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return [Cause.required("spec")]
    out = [Cause.invalid("metadata.name", name, LABEL_RULE)] if (name := _bad_name(obj)) else []
    if (policy := spec.get("podManagementPolicy")) not in _POLICIES:
        out.append(Cause.invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    out += _strategy(spec.get("updateStrategy"))
    out += _retention(spec.get("persistentVolumeClaimRetentionPolicy"))
    for field in ("replicas", "minReadySeconds"):
        if spec.get(field) is not None:
            out += count(spec[field], f"spec.{field}")
    ordinals = spec.get("ordinals")
    if isinstance(ordinals, dict):
        out += count(ordinals.get("start", 0), "spec.ordinals.start")
    elif ordinals is not None:
        out.append(Cause.invalid("spec.ordinals", ordinals, "must be an object"))
    service = spec.get("serviceName")
    if service and (not isinstance(service, str) or not DNS_LABEL.fullmatch(service)):
        out.append(Cause.invalid("spec.serviceName", service, LABEL_RULE))
    out += _claims(spec.get("volumeClaimTemplates"))
    if not out:
        out += selector(spec, None)
        out += template({"template": _as_made(spec)}, "StatefulSet")
    if old is not None and _fixed(spec) != _fixed(old["spec"]):
        names = f"{', '.join(repr(name) for name in _CHANGEABLE[:-1])} and {_CHANGEABLE[-1]!r}"
        out.append(Cause.forbidden("spec", f"updates to statefulset spec for fields other than {names} are forbidden"))
    return out


def _bad_name(obj: Object) -> str | None:
    """The name of a StatefulSet where no pod can be named after it."""
    name = obj["metadata"].get("name")
    return name if isinstance(name, str) and name and not DNS_LABEL.fullmatch(name) else None


def _fixed(spec: Object) -> Object:
    return {key: value for key, value in spec.items() if key not in _CHANGEABLE and value not in (None, "", [])}


def _strategy(strategy: object) -> list[Cause]:
    field = "spec.updateStrategy"
    if not isinstance(strategy, dict):
        return [Cause.invalid(field, strategy, "must be an object")]
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind not in _STRATEGIES:
        return [Cause.invalid(field, strategy, "must be 'RollingUpdate' or 'OnDelete'")]
    if rolling is None:
        return []
    if kind == "OnDelete":
        why = "only allowed for updateStrategy 'RollingUpdate'"
        return [Cause.invalid(f"{field}.rollingUpdate", rolling, why)]
    if not isinstance(rolling, dict):
        return [Cause.invalid(f"{field}.rollingUpdate", rolling, "must be an object")]
    return count(rolling.get("partition"), f"{field}.rollingUpdate.partition")


def _retention(policy: object) -> list[Cause]:
    field = "spec.persistentVolumeClaimRetentionPolicy"
    if not isinstance(policy, dict):
        return [Cause.invalid(field, policy, "must be an object")]
    return [
        Cause.unsupported(f"{field}.{when}", policy.get(when), _KEPT)
        for when in ("whenDeleted", "whenScaled")
        if policy.get(when) not in _KEPT
    ]


def _claims(claims: Any) -> list[Cause]:
    field = "spec.volumeClaimTemplates"
    if not isinstance(claims, list | None):
        return [Cause.invalid(field, claims, "must be a list")]
    out = []
    for at, claim in enumerate(claims or ()):
        metadata, spec = (claim.get(key) if isinstance(claim, dict) else None for key in ("metadata", "spec"))
        if not isinstance(metadata, dict) or not isinstance(spec, dict):
            out.append(Cause.invalid(f"{field}[{at}]", claim, "must be an object with metadata and spec"))
            continue
        if not isinstance(metadata.get("name"), str) or not DNS_LABEL.fullmatch(metadata["name"]):
            out.append(Cause.invalid(f"{field}[{at}].metadata.name", metadata.get("name"), LABEL_RULE))
        if not spec.get("accessModes"):
            out.append(Cause.required(f"{field}[{at}].spec.accessModes", "at least 1 access mode is required"))
        resources = spec.get("resources")
        requests = resources.get("requests") if isinstance(resources, dict) else None
        if not isinstance(requests, dict) or "storage" not in requests:
            out.append(Cause.required(f"{field}[{at}].spec.resources[storage]"))
    return out


def _as_made(spec: Object) -> Any:
    """The pod template as the controller will use it: without hostname and subdomain, with the claims as volumes."""
    given = spec.get("template")
    pod = given.get("spec") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(pod, dict):
        return given
    names = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates") or ()]
    volumes: Any = pod.get("volumes") or []
    if names and isinstance(volumes, list):
        kept = [item for item in volumes if not (isinstance(item, dict) and item.get("name") in names)]
        volumes = [*({"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names), *kept]
    made = {key: value for key, value in pod.items() if key not in ("hostname", "subdomain")}
    return {**given, "spec": {**made, "volumes": volumes}}
