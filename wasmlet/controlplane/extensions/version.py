"""`Version`: one version of a custom resource, and all that its definition says of the objects."""

from __future__ import annotations

from typing import Any

import attrs

from wasmlet.controlplane.extensions import jsonpath, listtypes, values
from wasmlet.controlplane.extensions.pruning import Pruner, additional, fill
from wasmlet.controlplane.extensions.rules import UNCHECKED, Rules, with_metadata
from wasmlet.controlplane.patches import strategic
from wasmlet.controlplane.patches.apply import Place
from wasmlet.controlplane.patches.strategic import ListRule
from wasmlet.controlplane.storage.kinds import CRUD, SCALE, STATUS, Kind
from wasmlet.controlplane.storage.status import Cause, Object
from wasmlet.controlplane.storage.store import Record

_AGE: Object = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_BLOCKING = (
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    values.TYPE_INVALID,
)
"""Causes of these reasons keep the schema's rules from being evaluated."""


@attrs.frozen
class Scale:
    """Where a custom resource keeps what its scale subresource shows, as JSONPaths; `selector` may be empty."""

    replicas: str
    status_replicas: str
    selector: str


@attrs.frozen
class SchemaFields:
    """The fields of a custom resource, as server-side apply sees them (`patches.apply.Fields`)."""

    schema: Object

    def _at(self, at: Place) -> Object:
        schema = self.schema
        for name in at:
            schema = _element(schema)
            schema = (schema.get("properties") or {}).get(name) or additional(schema) or {}
        return schema

    def rule(self, at: Place) -> ListRule | None:
        if at[:1] == ("metadata",):
            return strategic.rules("").get(".".join(at))
        schema = self._at(at)
        match schema.get("x-kubernetes-list-type"):
            case "map":
                return ListRule(None, tuple(schema.get("x-kubernetes-list-map-keys") or ()))
            case "set":
                return ListRule(None, is_set=True)
        return None

    def atomic(self, at: Place) -> bool:
        return bool(at) and _element(self._at(at)).get("x-kubernetes-map-type") == "atomic"


def _element(schema: Object) -> Object:
    """The schema of a list's elements; for a schema that is not of a list, the schema itself."""
    items = schema.get("items")
    return items if isinstance(items, dict) else schema


class Version:
    """One version of a custom resource.

    Args:
        spec: the `spec` of the definition.
        version: the element of `spec.versions`.
        since: the store's version when this definition took effect; objects from before may lack what it demands now.

    Attributes:
        columns: what `kubectl get` shows beside the name, as `additionalPrinterColumns` have it.
        warning: the warning in answers where the version is deprecated, else None.
    """

    def __init__(self, spec: Object, version: Object, since: int = 0) -> None:
        names, subresources = spec["names"], version.get("subresources") or {}
        scale = subresources.get("scale")
        has_status = subresources.get("status") is not None
        self.schema: Object = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        self.selectable = tuple(item["jsonPath"].removeprefix(".") for item in version.get("selectableFields") or ())
        self.kind = Kind(
            names["kind"],
            names["plural"],
            spec["group"],
            version["name"],
            namespaced=spec["scope"] == "Namespaced",
            short=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            subresources=(*((STATUS,) if has_status else ()), *((SCALE,) if scale else ())),
            fields=self.selectable,
            verbs=CRUD,
            generation=True,
            custom=True,
            named=names["singular"],
            listed=names["listKind"],
        )
        self.columns: list[Object] = version.get("additionalPrinterColumns") or [_AGE]
        self.scale = scale and Scale(
            scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath", "")
        )
        self.fields = SchemaFields(self.schema)
        self._since = since
        self._rules = Rules.of(with_metadata(self.schema))
        self.warning: str | None = None
        if version.get("deprecated"):
            default = f"{self.kind.api_version} {self.kind.kind} is deprecated"
            self.warning = version.get("deprecationWarning") or default

    def read(self, obj: Object) -> tuple[Object, list[str]]:
        """A copy of an object, pruned and with this version's defaults; and the paths of the removed fields."""
        pruner = Pruner()
        out = pruner.root(obj, self.schema)
        fill(out, self.schema)
        return out, pruner.unknown

    def fits(self, record: Record) -> bool:
        """Whether a stored object is already in the form of this version, so that its JSON can be sent unchanged."""
        return record.version > self._since and record.json.startswith(self.kind.head)

    def shown(self, record: Record) -> Object:
        """A stored object in the form of this version."""
        if self.fits(record):
            return record.raw
        return {**self.read(record.raw)[0], "apiVersion": self.kind.api_version}

    def check(self, obj: Object, old: Object | None) -> list[Cause]:
        """What is wrong with an object; `old` is what it replaces."""
        causes = list(values.check(_shown(obj), self.schema, old=values.NEW if old is None else _shown(old)))
        if self.scale is not None:
            causes += _replicas(obj, self.scale.replicas)
        if old is None or not any(listtypes.check(old, self.schema)):
            causes += listtypes.check(obj, self.schema)
        if self._rules is None:
            return causes
        if any(cause.reason in _BLOCKING for cause in causes):
            return [*causes, UNCHECKED]
        return causes + self._rules.check(obj, old)


_GO = {"string": "string", "boolean": "bool", "number": "float64", "object": "map[string]interface {}"}


def _replicas(obj: Object, path: str) -> list[Cause]:
    """What is wrong with the number that a scale shows."""
    found = jsonpath.first(obj, path)
    if found is None:
        return []
    if isinstance(found, bool) or not isinstance(found, int):
        kind = _GO.get(values.kind_of(found), "[]interface {}")
        why = f"{path} accessor error: {found} is of the type {kind}, expected int64"
        return [Cause(path, f"Invalid value: 0: {why}")]
    if found < 0:
        return [Cause(path, f"Invalid value: {found}: should be a non-negative integer")]
    return []


def _shown(obj: Object) -> Any:
    """An object with only those metadata fields that a schema may describe."""
    return {key: value for key, value in obj.items() if key != "metadata"} | {
        "metadata": {key: obj["metadata"][key] for key in ("name", "generateName") if key in obj["metadata"]}
    }
