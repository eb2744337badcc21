"""What the API server demands of a CustomResourceDefinition (`ValidateCustomResourceDefinition`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs

from wasmlet.controlplane.extensions import jsonpath, rule_checks, structural
from wasmlet.controlplane.extensions.names import established
from wasmlet.controlplane.storage.status import Cause, Object

PLURAL = "customresourcedefinitions"
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_APPROVAL = "api-approved.kubernetes.io"
_PROTECTED = (".k8s.io", ".kubernetes.io")
_SHARED = {
    "schema": "validation",
    "subresources": "subresources",
    "additionalPrinterColumns": "additionalPrinterColumns",
    "selectableFields": "selectableFields",
}
MOST_SELECTABLE = 8
MOST_VERSIONS = 64


def fill(definition: Object) -> None:
    """Fill in the defaults of a definition, in place; what is not of the right type is left to `check`."""
    spec = definition.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.get("names")
    if isinstance(names, dict) and isinstance(kind := names.get("kind"), str) and kind:
        names["singular"] = names.get("singular") or kind.lower()
        names["listKind"] = names.get("listKind") or f"{kind}List"
    if spec.get("conversion") is None:
        spec["conversion"] = {"strategy": "None"}
    if spec.get("preserveUnknownFields") is False:
        del spec["preserveUnknownFields"]


def check(definition: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a definition, after defaults; `old` is what it replaces."""
    spec = definition.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("names"), dict):
        return [Cause.required("spec" if not isinstance(spec, dict) else "spec.names")]
    causes = list(_spec(spec))
    names, name = spec["names"], definition["metadata"].get("name")
    if name != f"{names.get('plural', '')}.{spec.get('group', '')}":
        causes.append(Cause.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    group = str(spec.get("group", ""))
    annotations = definition["metadata"].get("annotations") or {}
    if group.endswith(_PROTECTED) and not annotations.get(_APPROVAL):
        why = 'protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111'
        causes.append(Cause.required(f"metadata.annotations[{_APPROVAL}]", why))
    if old is not None and not causes:
        causes += _changes(spec, old)
    return causes


def _changes(spec: Object, old: Object) -> Iterator[Cause]:
    before, why = old["spec"], "field is immutable"
    if established(old.get("status") or {}):
        if spec["scope"] != before["scope"]:
            yield Cause.invalid("spec.scope", spec["scope"], why)
        if spec["names"]["kind"] != before["names"]["kind"]:
            yield Cause.invalid("spec.names.kind", spec["names"]["kind"], why)
    if spec["group"] != before["group"]:
        yield Cause.invalid("spec.group", spec["group"], why)
    if spec["names"]["plural"] != before["names"]["plural"]:
        yield Cause.invalid("spec.names.plural", spec["names"]["plural"], why)
    there = {version["name"] for version in spec["versions"]}
    for place, name in enumerate((old.get("status") or {}).get("storedVersions") or ()):
        if name not in there:
            why = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions"
                f" until a storage migration ensures no data remains persisted in {name} and removes {name} from "
                "status.storedVersions"
            )
            yield Cause.invalid(f"status.storedVersions[{place}]", name, why)


def _spec(spec: Object) -> Iterator[Cause]:
    group = spec.get("group")
    if not group:
        yield Cause.required("spec.group")
    elif not isinstance(group, str) or not _SUBDOMAIN.fullmatch(group) or len(group) > 253:
        yield Cause.invalid("spec.group", group, "a lowercase RFC 1123 subdomain is expected")
    elif "." not in group:
        yield Cause.invalid("spec.group", group, "should be a domain with at least one dot")
    if not (scope := spec.get("scope")):
        yield Cause.required("spec.scope")
    elif scope not in ("Cluster", "Namespaced"):
        yield Cause.unsupported("spec.scope", scope, ("Cluster", "Namespaced"))
    yield from _names(spec["names"])
    yield from _conversion(spec.get("conversion"))
    if spec.get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield Cause.invalid("spec.preserveUnknownFields", True, why)
    versions = spec.get("versions")
    if not isinstance(versions, list) or not all(isinstance(version, dict) for version in versions):
        yield Cause.required("spec.versions", "must be a list of objects")
        return
    if len(versions) > MOST_VERSIONS:
        yield Cause("spec.versions", f"Too many: {len(versions)}: must have at most {MOST_VERSIONS} items")
        return
    found = [version.get("name") for version in versions]
    if any(found.count(name) > 1 for name in found):
        yield Cause.invalid("spec.versions", found, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield Cause.invalid("spec.versions", found, "must have exactly one version marked as storage version")
    same = {name for name in _SHARED if all(version.get(name) == versions[0].get(name) for version in versions)}
    for place, version in enumerate(versions):
        for cause in _version(version, f"spec.versions[{place}]"):
            shared = next((name for name in same if cause.field.startswith(f"spec.versions[{place}].{name}")), None)
            if shared is None:
                yield cause
            elif place == 0:  # an API server reports what all versions share under the definition's own fields
                yield attrs.evolve(cause, field=cause.field.replace(f"versions[0].{shared}", _SHARED[shared], 1))


def _names(names: Object) -> Iterator[Cause]:
    for key in ("plural", "singular", "kind", "listKind"):
        found = names.get(key)
        if not found:
            yield Cause.required(f"spec.names.{key}")
        elif not isinstance(found, str) or not _LABEL.fullmatch(found.lower() if "ind" in key else found):
            mixed = "may have mixed case, but should otherwise match: " if "ind" in key else ""
            yield Cause.invalid(f"spec.names.{key}", found, mixed + _LABEL_RULE)
    for key in ("shortNames", "categories"):
        found = names.get(key) or []
        if not isinstance(found, list):
            yield Cause.invalid(f"spec.names.{key}", found, "must be a list of names")
            continue
        for place, name in enumerate(found):
            if not isinstance(name, str) or not _LABEL.fullmatch(name):
                yield Cause.invalid(f"spec.names.{key}[{place}]", name, _LABEL_RULE)
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        yield Cause.invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")


def _conversion(conversion: Any) -> Iterator[Cause]:
    strategy = conversion.get("strategy") if isinstance(conversion, dict) else None
    if not strategy:
        yield Cause.required("spec.conversion.strategy")
    elif strategy == "Webhook":
        why = "this control plane converts by the strategy None alone: versions differ in apiVersion and schema"
        yield Cause.invalid("spec.conversion.strategy", strategy, why)
    elif strategy != "None":
        yield Cause.unsupported("spec.conversion.strategy", strategy, ("None", "Webhook"))


def _version(version: Object, at: str) -> Iterator[Cause]:
    name = version.get("name")
    if not isinstance(name, str) or not _LABEL.fullmatch(name):
        yield Cause.invalid(f"{at}.name", name or "", _LABEL_RULE)
    for key in ("served", "storage"):
        if not isinstance(version.get(key), bool):
            yield Cause.required(f"{at}.{key}", "true or false")
    schema = version.get("schema")
    schema = schema.get("openAPIV3Schema") if isinstance(schema, dict) else None
    if schema is None:
        yield Cause.required(f"{at}.schema.openAPIV3Schema", "schemas are required")
        return
    wrong = list(structural.check(schema, f"{at}.schema.openAPIV3Schema"))
    yield from sorted(wrong, key=lambda cause: f"{cause.field}: {cause.message}")
    yield from _subresources(version.get("subresources"), f"{at}.subresources")
    yield from _columns(version.get("additionalPrinterColumns"), f"{at}.additionalPrinterColumns")
    if not wrong:
        yield from rule_checks.check(schema, f"{at}.schema.openAPIV3Schema")
        yield from _selectable(version.get("selectableFields"), schema, f"{at}.selectableFields")
    if version.get("deprecationWarning") is not None and not version.get("deprecated"):
        yield Cause.invalid(
            f"{at}.deprecationWarning", version["deprecationWarning"], "can only be set for deprecated versions"
        )


def _subresources(found: Any, at: str) -> Iterator[Cause]:
    if found is None:
        return
    if not isinstance(found, dict) or not isinstance(found.get("scale"), dict | None):
        yield Cause.invalid(at, found, "must be an object with status and scale")
        return
    scale = found.get("scale")
    if scale is None:
        return
    roots = {"specReplicasPath": (".spec.",), "statusReplicasPath": (".status.",)}
    for key, under in (*roots.items(), ("labelSelectorPath", (".spec.", ".status."))):
        path = scale.get(key)
        if not path:
            if key in roots:
                yield Cause.required(f"{at}.scale.{key}")
        elif wrong := _simple(path):
            yield Cause.invalid(f"{at}.scale.{key}", path, wrong)
        elif not str(path).startswith(under):
            either = f"under {under[0][:-1]}" if len(under) == 1 else "under either .spec or .status"
            yield Cause.invalid(f"{at}.scale.{key}", path, f"should be a json path {either}")


def _simple(path: Any) -> str:
    """What is wrong with a path of names and dots."""
    if not isinstance(path, str) or not path.startswith("."):
        return "must be a simple json path starting with ."
    return "" if re.fullmatch(r"(\.[^.\[\]\s]+)+", path) else "must be a json path in the dot notation"


def _columns(columns: Any, at: str) -> Iterator[Cause]:
    if not isinstance(columns, list | None):
        yield Cause.invalid(at, columns, "must be a list of columns")
        return
    for place, column in enumerate(columns or ()):
        here = f"{at}[{place}]"
        if not isinstance(column, dict):
            yield Cause.invalid(here, column, "must be an object")
            continue
        if not column.get("name"):
            yield Cause.required(f"{here}.name")
        kind, form = column.get("type"), column.get("format")
        if not kind:
            yield Cause.required(f"{here}.type", f"must be one of {','.join(_COLUMN_TYPES)}")
        elif kind not in _COLUMN_TYPES:
            yield Cause.invalid(f"{here}.type", kind, f"must be one of {','.join(_COLUMN_TYPES)}")
        if form and form not in _COLUMN_FORMATS:
            yield Cause.invalid(f"{here}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}")
        path = column.get("jsonPath")
        if not path:
            yield Cause.required(f"{here}.JSONPath")
            continue
        try:
            jsonpath.parse(str(path))
        except ValueError as error:
            yield Cause.invalid(f"{here}.JSONPath", path, str(error))


def _selectable(fields: Any, schema: Object, at: str) -> Iterator[Cause]:
    if not isinstance(fields, list | None):
        yield Cause.invalid(at, fields, "must be a list of paths")
        return
    if fields and len(fields) > MOST_SELECTABLE:
        yield Cause(at, f"Too many: {len(fields)}: must have at most {MOST_SELECTABLE} items", "FieldValueTooMany")
    seen = set()
    for place, field in enumerate(fields or ()):
        here, path = f"{at}[{place}].jsonPath", field.get("jsonPath") if isinstance(field, dict) else None
        if not path:
            yield Cause.required(here)
            continue
        below: Any = schema
        for step in str(path).removeprefix(".").split("."):
            below = (below.get("properties") or {}).get(step) if isinstance(below, dict) else None
        if str(path).startswith(".metadata"):
            yield Cause.invalid(here, path, "must not point to fields in metadata")
        elif _simple(path) or not isinstance(below, dict):
            yield Cause.invalid(here, path, "is an invalid path: does not point to a field of the schema")
        elif below.get("type") not in ("string", "boolean", "integer"):
            why = (
                "must point to a field of type string, boolean or integer. "
                "Enum string fields and strings with formats are allowed."
            )
            yield Cause.invalid(here, path, why)
        if path in seen:
            yield Cause.duplicate(here, path)
        seen.add(path)
