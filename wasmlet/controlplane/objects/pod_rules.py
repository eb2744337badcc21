"""Validation of pods: when one is created, when it is changed, and when its status is written.

The update rules are those of `ValidatePodUpdate`. The status rules are those of `ValidateContainerStateTransition`, for
what a node writes. `registry` calls them for each write of a pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from wasmlet.controlplane.objects.validation import (
    DNS_LABEL,
    DNS_SUBDOMAIN,
    LABEL_RULE,
    SUBDOMAIN_RULE,
    data_key,
    labels,
    quantities,
)
from wasmlet.controlplane.storage.status import Cause, Object
from wasmlet.model.quantity import Quantity

_ENV_NAME = re.compile(r"[^=\x00-\x1f\x7f]+")
_POLICIES = ("Always", "OnFailure", "Never")
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
TERMINAL = ("Succeeded", "Failed")


def _objects(value: object, field: str, out: list[Cause]) -> list[tuple[str, Object]]:
    """The elements of a list with their paths; what is not an object is reported."""
    if value is None:
        return []
    if not isinstance(value, list):
        out.append(Cause.invalid(field, str(value), "must be a list"))
        return []
    found = []
    for at, item in enumerate(value):
        if isinstance(item, dict):
            found.append((f"{field}[{at}]", item))
        else:
            out.append(Cause.invalid(f"{field}[{at}]", str(item), "must be an object"))
    return found


def _names(items: Sequence[tuple[str, Object]], seen: set[str], out: list[Cause]) -> None:
    for field, item in items:
        name = item.get("name")
        if not isinstance(name, str) or not name:
            out.append(Cause.required(f"{field}.name"))
        elif not DNS_LABEL.fullmatch(name):
            out.append(Cause.invalid(f"{field}.name", name, LABEL_RULE))
        elif name in seen:
            out.append(Cause.duplicate(f"{field}.name", name))
        else:
            seen.add(name)


def _resources(value: object, field: str) -> list[Cause]:
    if not isinstance(value, dict):
        return []
    out = quantities(value.get("limits"), f"{field}.limits") + quantities(value.get("requests"), f"{field}.requests")
    if not out:
        limits = value.get("limits") or {}
        for name, amount in (value.get("requests") or {}).items():
            if name in limits and Quantity.parse(amount) > Quantity.parse(limits[name]):
                out.append(
                    Cause.invalid(
                        f"{field}.requests",
                        str(amount),
                        f"must be less than or equal to {name} limit of {limits[name]}",
                    )
                )
    return out


def _container(field: str, item: Object, volumes: set[str], out: list[Cause]) -> None:
    if not isinstance(item.get("image"), str) or not item["image"].strip():
        out.append(Cause.required(f"{field}.image"))
    if (policy := item.get("imagePullPolicy")) not in ("Always", "IfNotPresent", "Never"):
        out.append(Cause.unsupported(f"{field}.imagePullPolicy", policy, ("Always", "IfNotPresent", "Never")))
    if (policy := item.get("terminationMessagePolicy")) not in ("File", "FallbackToLogsOnError"):
        choices = ("File", "FallbackToLogsOnError")
        out.append(Cause.unsupported(f"{field}.terminationMessagePolicy", policy, choices))
    for key in ("command", "args"):
        value = item.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            out.append(Cause.invalid(f"{field}.{key}", str(value), "must be a list of strings"))
    for at, env in _objects(item.get("env"), f"{field}.env", out):
        name = env.get("name")
        if not name:
            out.append(Cause.required(f"{at}.name"))
        elif not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            out.append(Cause.invalid(f"{at}.name", name, "is not the name of an environment variable"))
        if env.get("value") and env.get("valueFrom"):
            out.append(Cause.invalid(f"{at}.valueFrom", "", "may not be specified when `value` is not empty"))
        out += _key_references(f"{at}.valueFrom", env.get("valueFrom"))
    for at, port in _objects(item.get("ports"), f"{field}.ports", out):
        number = port.get("containerPort")
        if not isinstance(number, int) or not 0 < number < 65536:
            out.append(Cause.invalid(f"{at}.containerPort", number, "must be between 1 and 65535, inclusive"))
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            out.append(Cause.unsupported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP")))
    paths: set[str] = set()
    for at, mount in _objects(item.get("volumeMounts"), f"{field}.volumeMounts", out):
        if mount.get("name") not in volumes:
            out.append(Cause.not_found(f"{at}.name", mount.get("name")))
        path = mount.get("mountPath")
        if not path:
            out.append(Cause.required(f"{at}.mountPath"))
        elif path in paths:
            out.append(Cause.invalid(f"{at}.mountPath", path, "must be unique"))
        paths.add(str(path))
    out += _resources(item.get("resources"), f"{field}.resources")


def _key_references(field: str, source: object) -> Iterator[Cause]:
    """What is wrong with the keys that a variable's source names."""
    for which in ("configMapKeyRef", "secretKeyRef"):
        reference = source.get(which) if isinstance(source, dict) else None
        if not isinstance(reference, dict):
            continue
        key = reference.get("key")
        if not key:
            yield Cause.required(f"{field}.{which}.key")
        elif why := data_key(key):
            yield Cause.invalid(f"{field}.{which}.key", key, why)


def _paths_in_volumes(volumes: Sequence[tuple[str, Object]], out: list[Cause]) -> None:
    """What is wrong with the paths of keys in volumes (`ValidateLocalNonReservedPath`)."""
    for field, volume in volumes:
        sources = [(f"{field}.{which}", volume.get(which)) for which in ("configMap", "secret")]
        projected = volume.get("projected")
        projections = projected.get("sources") if isinstance(projected, dict) else None
        for at, source in _objects(projections, f"{field}.projected.sources", out):
            sources += [(f"{at}.{which}", source.get(which)) for which in ("configMap", "secret")]
        for at, found in sources:
            if not isinstance(found, dict):
                continue
            for where, item in _objects(found.get("items"), f"{at}.items", out):
                out += [Cause.required(f"{where}.{name}") for name in ("key", "path") if not item.get(name)]
                path = str(item.get("path", ""))
                if path.startswith("/"):
                    out.append(Cause.invalid(f"{where}.path", path, "must be a relative path"))
                if ".." in path.split("/"):
                    out.append(Cause.invalid(f"{where}.path", path, "must not contain '..'"))
                elif path.startswith(".."):
                    out.append(Cause.invalid(f"{where}.path", path, "must not start with '..'"))


def _tolerations(items: Sequence[tuple[str, Object]], out: list[Cause]) -> None:
    for at, toleration in items:
        operator = toleration.get("operator", "Equal") or "Equal"
        if operator not in ("Equal", "Exists"):
            out.append(Cause.unsupported(f"{at}.operator", operator, ("Equal", "Exists")))
        if not toleration.get("key") and operator != "Exists":
            out.append(Cause.invalid(f"{at}.operator", operator, "operator must be Exists when `key` is empty"))
        if operator == "Exists" and toleration.get("value"):
            out.append(Cause.invalid(f"{at}.operator", operator, "value must be empty when `operator` is 'Exists'"))
        if toleration.get("effect", "") not in _EFFECTS:
            out.append(Cause.unsupported(f"{at}.effect", toleration.get("effect"), _EFFECTS[1:]))
        if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
            out.append(
                Cause.invalid(f"{at}.effect", toleration.get("effect"), "must be NoExecute with tolerationSeconds")
            )


def check(obj: Object) -> list[Cause]:
    """What is wrong with a pod, after defaults."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return [Cause.required("spec")]
    out: list[Cause] = []
    volumes: set[str] = set()
    found = _objects(spec.get("volumes"), "spec.volumes", out)
    _names(found, volumes, out)
    _paths_in_volumes(found, out)
    containers = _objects(spec.get("containers"), "spec.containers", out)
    if not containers:
        out.append(Cause.required("spec.containers"))
    initial = _objects(spec.get("initContainers"), "spec.initContainers", out)
    seen: set[str] = set()
    _names([*containers, *initial], seen, out)
    for field, item in [*containers, *initial]:
        _container(field, item, volumes, out)
    if spec.get("ephemeralContainers"):
        out.append(Cause.forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("restartPolicy") not in _POLICIES:
        out.append(Cause.unsupported("spec.restartPolicy", spec.get("restartPolicy"), _POLICIES))
    policies = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
    if spec.get("dnsPolicy") not in policies:
        out.append(Cause.unsupported("spec.dnsPolicy", spec.get("dnsPolicy"), policies))
    grace = spec.get("terminationGracePeriodSeconds")
    if not isinstance(grace, int) or grace < 0:
        out.append(Cause.invalid("spec.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0"))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and (not isinstance(deadline, int) or not 1 <= deadline < 2**31):
        out.append(Cause.invalid("spec.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    for key in ("nodeName", "serviceAccountName", "runtimeClassName", "priorityClassName"):
        value = spec.get(key)
        if value and (not isinstance(value, str) or not DNS_SUBDOMAIN.fullmatch(value)):
            out.append(Cause.invalid(f"spec.{key}", value, SUBDOMAIN_RULE))
    if (hostname := spec.get("hostname")) and not DNS_LABEL.fullmatch(str(hostname)):
        out.append(Cause.invalid("spec.hostname", hostname, LABEL_RULE))
    out += labels(spec.get("nodeSelector"), "spec.nodeSelector")
    _tolerations(_objects(spec.get("tolerations"), "spec.tolerations", out), out)
    if spec.get("schedulingGates") and spec.get("nodeName"):
        out.append(Cause.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
    return out


_RULE = (
    "of a pod that exists only `spec.containers[*].image`, `spec.initContainers[*].image`, "
    "`spec.activeDeadlineSeconds`, `spec.tolerations` (additions only), `spec.schedulingGates` (removals only) and "
    "`spec.terminationGracePeriodSeconds` (to 1, where it was negative) may be changed"
)


def _without(spec: Object) -> Object:
    """A spec without the fields that an update may change."""
    out = {
        key: value
        for key, value in spec.items()
        if key not in ("activeDeadlineSeconds", "tolerations", "schedulingGates", "terminationGracePeriodSeconds")
    }
    for which in ("containers", "initContainers"):
        if which in out:
            out[which] = [{**item, "image": ""} for item in out[which]]
    return out


def check_update(new: Object, old: Object) -> list[Cause]:
    """What is wrong with a change of a pod."""
    now, before = new.get("spec") or {}, old["spec"]
    if now == before:
        return []
    out: list[Cause] = []
    for which in ("containers", "initContainers"):
        for at, item in _objects(now.get(which), f"spec.{which}", out):
            if not isinstance(item.get("image"), str) or not item["image"].strip():
                out.append(Cause.required(f"{at}.image"))
    if out:
        return out
    if _without(now) != _without(before):
        return [Cause.forbidden("spec", _RULE)]
    deadline, limit = now.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if deadline != limit:
        if not isinstance(deadline, int) or not 1 <= deadline < 2**31:
            out.append(Cause.invalid("spec.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647"))
        elif limit is not None and deadline > limit:
            out.append(Cause.invalid("spec.activeDeadlineSeconds", deadline, "must be less than or equal to previous"))
    added = _objects(now.get("tolerations"), "spec.tolerations", out)
    _tolerations(added, out)
    kept = [{**item, "tolerationSeconds": None} for _, item in added]
    for item in before.get("tolerations") or ():
        if {**item, "tolerationSeconds": None} not in kept:
            out.append(
                Cause.forbidden("spec.tolerations", "existing toleration can not be modified except its seconds")
            )
    gates = before.get("schedulingGates") or []
    if any(gate not in gates for gate in now.get("schedulingGates") or ()):
        out.append(Cause.forbidden("spec.schedulingGates", "only deletion is allowed"))
    grace, was = now.get("terminationGracePeriodSeconds"), before.get("terminationGracePeriodSeconds")
    if grace != was and not (grace == 1 and isinstance(was, int) and was < 0):
        out.append(Cause.forbidden("spec", _RULE))
    return out


def _may_restart(policy: str, item: Object | None, code: int) -> bool:
    """Whether a container that ended may run again; its own restart policy goes before the pod's."""
    own = (item or {}).get("restartPolicy") or policy
    if own == "Always" or (item or {}).get("restartPolicyRules"):
        return True
    return own == "OnFailure" and code != 0


def check_status(new: Object, old: Object) -> list[Cause]:
    """What is wrong with a change of a pod's status: containers that come back although the policy forbids it.

    Every kubelet leaves a phase of Succeeded or Failed unchanged; here that is enforced.
    """
    out: list[Cause] = []
    spec = old["spec"]
    status, before = new.get("status") or {}, old.get("status") or {}
    if not isinstance(status, dict):
        return [Cause.invalid("status", str(status), "must be an object")]
    phase, was = status.get("phase"), before.get("phase")
    if phase not in ("Pending", "Running", "Succeeded", "Failed", "Unknown"):
        out.append(Cause.unsupported("status.phase", phase, ("Failed", "Pending", "Running", "Succeeded", "Unknown")))
    elif was in TERMINAL and phase != was:
        out.append(Cause.forbidden("status.phase", f"a pod that {was.lower()} cannot become {phase}"))
    for which, declared in (("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")):
        out += _transitions(
            _objects(status.get(which), f"status.{which}", out),
            before.get(which) or [],
            {item["name"]: item for item in spec.get(declared) or ()},
            spec.get("restartPolicy", "Always"),
        )
    generation = status.get("observedGeneration", 0)
    if not isinstance(generation, int) or generation < 0:
        out.append(Cause.invalid("status.observedGeneration", generation, "must be greater than or equal to 0"))
    return out


def _transitions(
    new: list[tuple[str, Object]], old: list[Any], declared: dict[str, Object], policy: str
) -> list[Cause]:
    if policy == "Always":
        return []
    now = {item.get("name"): (field, item) for field, item in new}
    out = []
    for item in old:
        ended = (item.get("state") or {}).get("terminated")
        found = now.get(item.get("name"))
        if ended is None or found is None:
            continue
        if _may_restart(policy, declared.get(item.get("name")), ended.get("exitCode", 0)):
            continue
        field, present = found
        if (present.get("state") or {}).get("terminated") is None:
            out.append(Cause.forbidden(f"{field}.state", "may not be transitioned to non-terminated state"))
    return out


def keep_observed(new: Object, old: Object) -> None:
    """Keep the old observedGeneration where the writer gives none; changes `new`, a status."""
    if not new.get("observedGeneration") and old.get("observedGeneration"):
        new["observedGeneration"] = old["observedGeneration"]
    known = {
        item.get("type"): item["observedGeneration"]
        for item in old.get("conditions") or ()
        if item.get("observedGeneration")
    }
    if known:
        new["conditions"] = [
            {**item, "observedGeneration": known[item.get("type")]}
            if not item.get("observedGeneration") and item.get("type") in known
            else item
            for item in new.get("conditions") or ()
        ]


def check_write(sub: str, new: Object, old: Object) -> list[Cause]:
    """What is wrong with an update of a pod, or of a subresource that changes its spec."""
    if sub == "ephemeralcontainers":
        had = old["spec"].get("ephemeralContainers") or []
        now = new["spec"].get("ephemeralContainers") or []
        if now[: len(had)] != had:
            return [Cause.forbidden("spec.ephemeralContainers", "existing ephemeral containers may not be changed")]
        rest = {**new, "spec": {**new["spec"], "ephemeralContainers": had}}
        if not had:
            rest["spec"].pop("ephemeralContainers")
        return check_update(rest, old)
    if sub == "resize":
        return check_update(_with_resources_of(new, old), old)
    return check_update(new, old)


def _with_resources_of(new: Object, old: Object) -> Object:
    """The new pod with the old pod's resources, so that a comparison shows what else a resize changed."""
    spec = dict(new["spec"])
    for which in ("containers", "initContainers"):
        before = {item["name"]: item for item in old["spec"].get(which) or ()}
        if which in spec:
            spec[which] = [
                {**item, "resources": before.get(item.get("name"), {}).get("resources", {})} for item in spec[which]
            ]
    return {**new, "spec": spec}
