"""Validation of roles and of their bindings (kubernetes/pkg/apis/rbac/validation)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wasmlet.controlplane.access.rights import GROUP
from wasmlet.controlplane.objects.validation import segment
from wasmlet.controlplane.storage.status import Cause, Object

_SUBJECTS = ("ServiceAccount", "User", "Group")


def check(plural: str, obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with an object of one of these kinds, after defaults; `old` is what it replaces."""
    if plural in ("roles", "clusterroles"):
        return list(_policies(obj.get("rules"), namespaced=plural == "roles"))
    return list(_binding(obj, old, namespaced=plural == "rolebindings"))


def _policies(policies: Any, *, namespaced: bool) -> Iterator[Cause]:
    if not isinstance(policies, list | None):
        yield Cause.invalid("rules", policies, "must be a list")
        return
    for at, policy in enumerate(policies or ()):
        field = f"rules[{at}]"
        if not isinstance(policy, dict):
            yield Cause.invalid(field, policy, "must be an object")
            continue
        lists = {key: policy.get(key) or [] for key in ("verbs", "apiGroups", "resources", "resourceNames")}
        paths = policy.get("nonResourceURLs") or []
        wrong = [
            key
            for key, value in {**lists, "nonResourceURLs": paths}.items()
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value)
        ]
        if wrong:
            yield from (Cause.invalid(f"{field}.{key}", policy[key], "must be a list of strings") for key in wrong)
            continue
        if not lists["verbs"]:
            yield Cause.required(f"{field}.verbs", "verbs must contain at least one value")
        if paths:
            field = f"{field}.nonResourceURLs"
            if namespaced:
                yield Cause.invalid(field, paths, "namespaced rules cannot apply to non-resource URLs")
            if any(lists[key] for key in ("apiGroups", "resources", "resourceNames")):
                why = "rules cannot apply to both regular resources and non-resource URLs"
                yield Cause.invalid(field, paths, why)
            continue
        if not lists["apiGroups"]:
            yield Cause.required(f"{field}.apiGroups", "resource rules must supply at least one api group")
        if not lists["resources"]:
            yield Cause.required(f"{field}.resources", "resource rules must supply at least one resource")


def _binding(obj: Object, old: Object | None, *, namespaced: bool) -> Iterator[Cause]:
    reference = obj.get("roleRef")
    if not isinstance(reference, dict):
        yield Cause.required("roleRef")
        return
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if reference.get("apiGroup") != GROUP:
        yield Cause.unsupported("roleRef.apiGroup", reference.get("apiGroup"), (GROUP,))
    if reference.get("kind") not in kinds:
        yield Cause.unsupported("roleRef.kind", reference.get("kind"), kinds)
    if not isinstance(reference.get("name"), str) or not reference["name"]:
        yield Cause.required("roleRef.name")
    elif (wrong := segment(reference["name"])) is not None:
        yield Cause.invalid("roleRef.name", reference["name"], wrong)
    if old is not None and old.get("roleRef") != reference:
        yield Cause.invalid("roleRef", reference, "cannot change roleRef")
    subjects = obj.get("subjects")
    if not isinstance(subjects, list | None):
        yield Cause.invalid("subjects", subjects, "must be a list")
        return
    for at, subject in enumerate(subjects or ()):
        yield from _subject(subject, f"subjects[{at}]", namespaced=namespaced)


def _subject(subject: Any, field: str, *, namespaced: bool) -> Iterator[Cause]:
    if not isinstance(subject, dict):
        yield Cause.invalid(field, subject, "must be an object")
        return
    if not isinstance(subject.get("name"), str) or not subject["name"]:
        yield Cause.required(f"{field}.name")
    kind, group = subject.get("kind"), subject.get("apiGroup", "")
    if kind not in _SUBJECTS:
        yield Cause.unsupported(f"{field}.kind", kind, _SUBJECTS)
        return
    wanted = "" if kind == "ServiceAccount" else GROUP
    if group != wanted:
        yield Cause.unsupported(f"{field}.apiGroup", group, (wanted,))
    if kind == "ServiceAccount" and not namespaced and not subject.get("namespace"):
        yield Cause.required(f"{field}.namespace")
