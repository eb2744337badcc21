"""Validation of objects: the metadata of every kind, and what the API server checks of the kinds used here.

Only rules that a node or a user can run into are checked; unknown fields are accepted. Pods have a module of their own,
`pod_rules`. Every finding is a `Cause`, and all findings are reported together.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

from wasmlet.controlplane.access import certificate_requests
from wasmlet.controlplane.access.rights import GROUP as RBAC
from wasmlet.controlplane.extensions import definition_rules
from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.selectors import valid_label_key, valid_label_value
from wasmlet.controlplane.storage.status import Cause, Object
from wasmlet.model.quantity import Quantity

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
DATA_KEY_RULE = "a valid config key must consist of at most 253 alphanumeric characters, '-', '_' or '.'"
ANNOTATIONS_BYTES = 256 * 1024

SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)


def _name(kind: Kind, name: str) -> str | None:
    """What is wrong with the name of an object."""
    if kind.key == "namespaces":
        return None if DNS_LABEL.fullmatch(name) else LABEL_RULE
    if kind.key == "services":
        return None if _DNS_1035.fullmatch(name) else "a service name is a DNS label that starts with a letter"
    if kind.group == RBAC:
        return segment(name)
    if len(name) > 253 or not DNS_SUBDOMAIN.fullmatch(name):
        return SUBDOMAIN_RULE
    return None


def segment(name: str) -> str | None:
    """What is wrong with a name that only has to be a segment of a URL path (`IsValidPathSegmentName`)."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    return next((f"may not contain '{letter}'" for letter in "/%" if letter in name), None)


def labels(value: object, field: str) -> list[Cause]:
    """What is wrong with a map of labels."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return [Cause.invalid(field, value, "must be a map of strings")]
    out = [Cause.invalid(field, key, "is not a label key") for key in value if not valid_label_key(key)]
    return out + [
        Cause.invalid(field, item, "is not a label value: at most 63 of letters, digits, '-', '_' and '.'")
        for item in value.values()
        if not valid_label_value(item)
    ]


def _annotations(value: object) -> list[Cause]:
    field = "metadata.annotations"
    if value is None:
        return []
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        return [Cause.invalid(field, value, "must be a map of strings")]
    out = [Cause.invalid(field, key, "is not an annotation key") for key in value if not valid_label_key(key.lower())]
    if sum(len(key) + len(item) for key, item in value.items()) > ANNOTATIONS_BYTES:
        out.append(Cause(field, f"Too long: may not be more than {ANNOTATIONS_BYTES} bytes", "FieldValueTooLong"))
    return out


def metadata(kind: Kind, obj: Object) -> list[Cause]:
    """What is wrong with the metadata of an object."""
    meta = obj["metadata"]
    name = meta.get("name")
    if not isinstance(name, str) or not name:
        return [Cause.required("metadata.name", "name or generateName is required")]
    out = []
    if (wrong := _name(kind, name)) is not None:
        out.append(Cause.invalid("metadata.name", name, wrong))
    out += labels(meta.get("labels"), "metadata.labels")
    out += _annotations(meta.get("annotations"))
    finalizers = meta.get("finalizers") or []
    if not isinstance(finalizers, list):
        return [*out, Cause.invalid("metadata.finalizers", finalizers, "must be a list of names")]
    for at, finalizer in enumerate(finalizers):
        if not isinstance(finalizer, str) or not valid_label_key(finalizer):
            out.append(Cause.invalid(f"metadata.finalizers[{at}]", finalizer, "is not a qualified name"))
    owners = meta.get("ownerReferences") or []
    for at, owner in enumerate(owners if isinstance(owners, list) else ()):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(owner, dict) or not owner.get(key):
                out.append(Cause.required(f"metadata.ownerReferences[{at}].{key}"))
    return out


def quantities(value: object, field: str) -> list[Cause]:
    """What is wrong with a map of resources."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return [Cause.invalid(field, value, "must be a map of quantities")]
    out = []
    for name, amount in value.items():
        try:
            if Quantity.parse(amount).value < 0:
                out.append(Cause.invalid(f"{field}.{name}", str(amount), "must be greater than or equal to 0"))
        except (ValueError, ArithmeticError):
            out.append(Cause.invalid(f"{field}.{name}", str(amount), "is not a quantity"))
    return out


def data_key(key: object) -> str | None:
    """What is wrong with a key of a ConfigMap or a Secret (apimachinery's `IsConfigMapKey`)."""
    if not isinstance(key, str) or not _DATA_KEY.fullmatch(key):
        return DATA_KEY_RULE
    if key in (".", ".."):
        return f"must not be '{key}'"
    return "must not start with '..'" if key.startswith("..") else None


def _data(obj: Object, old: Object | None) -> list[Cause]:
    out = []
    size = 0
    for where in ("data", "binaryData", "stringData"):
        part = obj.get(where)
        if part is None:
            continue
        if not isinstance(part, dict) or not all(isinstance(value, str) for value in part.values()):
            out.append(Cause.invalid(where, part, "must be a map of strings"))
            continue
        out += [Cause.invalid(f"{where}[{key}]", key, why) for key in part if (why := data_key(key))]
        size += sum(len(value) for value in part.values())
    data, binary = obj.get("data"), obj.get("binaryData")
    if isinstance(data, dict) and isinstance(binary, dict):
        twice = sorted(data.keys() & binary.keys())
        out += [Cause.invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in twice]
    if size > 2**20 * 4 // 3:
        out.append(Cause("", "Too long: may not be more than 1048576 bytes", "FieldValueTooLong"))
    if old is not None and old.get("immutable"):
        if not obj.get("immutable"):
            out.append(Cause.forbidden("immutable", "field is immutable when `immutable` is set"))
        for where in ("data", "binaryData"):
            if obj.get(where) != old.get(where):
                out.append(Cause.forbidden(where, "field is immutable when `immutable` is set"))
    return out


def _secret(obj: Object, old: Object | None) -> list[Cause]:
    out = _data(obj, old)
    data = obj.get("data")
    for key, value in data.items() if isinstance(data, dict) else ():
        try:
            base64.b64decode(value, validate=True)
        except (ValueError, TypeError):
            out.append(Cause.invalid(f"data[{key}]", "...", "is not base64"))
    if old is not None and obj.get("type") != old.get("type"):
        out.append(Cause.invalid("type", obj.get("type"), "field is immutable"))
    return out


def _lease(obj: Object, old: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and (not isinstance(seconds, int) or seconds <= 0):
        return [Cause.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")]
    return []


def _runtime_class(obj: Object, old: Object | None) -> list[Cause]:
    handler = obj.get("handler")
    if not isinstance(handler, str) or not DNS_LABEL.fullmatch(handler):
        return [Cause.invalid("handler", handler, LABEL_RULE)]
    if old is not None and old.get("handler") != handler:
        return [Cause.invalid("handler", handler, "field is immutable")]
    return quantities((obj.get("overhead") or {}).get("podFixed"), "overhead.podFixed")


def _taints(taints: object) -> list[Cause]:
    out, seen = [], set()
    for at, taint in enumerate(taints if isinstance(taints, list) else ()):
        field = f"spec.taints[{at}]"
        if not isinstance(taint, dict):
            out.append(Cause.invalid(field, taint, "must be an object"))
            continue
        if not valid_label_key(str(taint.get("key", ""))):
            out.append(Cause.invalid(f"{field}.key", taint.get("key"), "is not a label key"))
        if taint.get("effect") not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            choices = ("NoSchedule", "PreferNoSchedule", "NoExecute")
            out.append(Cause.unsupported(f"{field}.effect", taint.get("effect"), choices))
        if (key := (taint.get("key"), taint.get("effect"))) in seen:
            out.append(Cause.duplicate(field, taint.get("key")))
        seen.add(key)
    return out


def _node(obj: Object, old: Object | None) -> list[Cause]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    out = _taints(spec.get("taints"))
    for which in ("capacity", "allocatable"):
        out += quantities(status.get(which), f"status.{which}")
    if old is not None:
        provider = (old.get("spec") or {}).get("providerID")
        if provider and spec.get("providerID") != provider:
            out.append(Cause.forbidden("spec.providerID", 'node updates may not change providerID except from ""'))
    return out


def _event(obj: Object, old: Object | None) -> list[Cause]:
    involved = obj.get("involvedObject")
    if not isinstance(involved, dict):
        return [Cause.required("involvedObject")]
    space, own = involved.get("namespace", ""), obj["metadata"].get("namespace", "")
    if (space or "default") != own and not (space == "" and own == "kube-system"):
        return [Cause.invalid("involvedObject.namespace", space, "does not match event.namespace")]
    return []


_CHECKS: dict[str, Callable[[Object, Object | None], list[Cause]]] = {
    "configmaps": _data,
    "secrets": _secret,
    "leases": _lease,
    "runtimeclasses": _runtime_class,
    "nodes": _node,
    "events": _event,
    certificate_requests.PLURAL: certificate_requests.check,
    definition_rules.PLURAL: definition_rules.check,
}


def check(kind: Kind, obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with an object of a kind; `old` is what it replaces."""
    rule = _CHECKS.get(kind.key)
    return metadata(kind, obj) + (rule(obj, old) if rule else [])
