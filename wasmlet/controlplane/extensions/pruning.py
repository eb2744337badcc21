"""Pruning and defaulting: what a structural schema removes from an object, and what it adds.

The rules are those of apiextensions-apiserver (`schema/pruning`, `schema/defaulting`). A field that the schema does not
name is removed. A null is removed unless it is allowed or has a default. A default takes the place of a missing value.
"""

from __future__ import annotations

import copy
from typing import Any

from wasmlet.controlplane.storage.status import Object

EMBEDDED = "x-kubernetes-embedded-resource"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
_META = ("apiVersion", "kind", "metadata")
METADATA_FIELDS = frozenset(
    (
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    )
)


def additional(schema: Object) -> Object | None:
    """The schema of a map's values; None where the schema is not of a map. An empty one allows everything."""
    found = schema.get("additionalProperties")
    if found is True:
        return {PRESERVE: True}
    return found if isinstance(found, dict) else None


class Pruner:
    """Prunes one object.

    Attributes:
        unknown: the paths of the fields that were taken out, as `spec.a[0].b`.
    """

    def __init__(self) -> None:
        self.unknown: list[str] = []

    def root(self, obj: Object, schema: Object) -> Object:
        """A copy of a whole object without the fields that the schema does not name."""
        pruned: Object = self.value(obj, {**schema, EMBEDDED: True}, "")
        metadata = pruned.get("metadata")
        if isinstance(metadata, dict):
            self.unknown += [f"metadata.{key}" for key in metadata if key not in METADATA_FIELDS]
            pruned["metadata"] = {key: value for key, value in metadata.items() if key in METADATA_FIELDS}
        self.unknown.sort()
        return pruned

    def value(self, value: Any, schema: Object | None, at: str = "") -> Any:
        """A pruned copy of a value; None for a schema means that nothing below is known."""
        match value:
            case dict():
                return self._object(value, schema, at)
            case list():
                items = schema.get("items") if schema else None
                if items is None and schema and schema.get(PRESERVE):
                    return copy.deepcopy(value)
                return [self.value(item, items, f"{at}[{place}]") for place, item in enumerate(value)]
        return value

    def _object(self, value: Object, schema: Object | None, at: str) -> Object:
        out: Object = {}
        schema = schema if schema is not None else {}
        properties, rest = schema.get("properties") or {}, additional(schema)
        for key, item in value.items():
            below = f"{at}.{key}" if at else key
            if schema.get(EMBEDDED) and key in _META:
                out[key] = copy.deepcopy(item)
            elif key in properties:
                out[key] = self.value(item, properties[key], below)
            elif rest is not None:
                out[key] = self.value(item, rest, below)
            elif schema.get(PRESERVE):
                out[key] = copy.deepcopy(item)
            else:
                self.unknown.append(below)
        return out


def fill(value: Any, schema: Object | None) -> None:
    """Take out nulls that are not allowed, and put defaults in, in place."""
    if not schema:
        return
    match value:
        case dict():
            _fill_object(value, schema)
        case list():
            items = schema.get("items") or {}
            for place, item in enumerate(value):
                if item is None and _replaced(items):
                    value[place] = copy.deepcopy(items["default"])
                fill(value[place], items)


def _replaced(schema: Object) -> bool:
    """Whether a default takes the place of a null."""
    return "default" in schema and not schema.get("nullable")


def _fill_object(value: Object, schema: Object) -> None:
    properties, rest = schema.get("properties") or {}, additional(schema)
    for key, item in list(value.items()):
        below = properties.get(key, rest)
        if item is None and below is not None and not below.get("nullable") and "default" not in below:
            del value[key]
    for key, below in properties.items():
        if "default" in below and (key not in value or (value[key] is None and _replaced(below))):
            value[key] = copy.deepcopy(below["default"])
    for key in list(value):
        below = properties.get(key, rest)
        if below is None:
            continue
        if value[key] is None and _replaced(below):
            value[key] = copy.deepcopy(below["default"])
        fill(value[key], below)
