"""Checks that a schema is structural, that is, that objects can be pruned and given defaults by it.

The rules and messages are those of apiextensions-apiserver: `schema/validation.go` and
`ValidateCustomResourceDefinitionOpenAPISchema`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from wasmlet.controlplane.extensions import values
from wasmlet.controlplane.extensions.patterns import compiled
from wasmlet.controlplane.extensions.pruning import EMBEDDED, PRESERVE, Pruner
from wasmlet.controlplane.storage.status import Cause, Object

INT_OR_STRING = "x-kubernetes-int-or-string"
LIST_TYPE, LIST_KEYS, MAP_TYPE = "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"
VALIDATIONS = "x-kubernetes-validations"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_ANY_OF = [{"type": "integer"}, {"type": "string"}]
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_NESTED_EMPTY = ("type", "title", "description", LIST_KEYS, VALIDATIONS)
_NESTED_UNDEFINED = ("additionalProperties", "default", LIST_TYPE, MAP_TYPE)
_NESTED_FALSE = ("nullable", PRESERVE, EMBEDDED, INT_OR_STRING)
Level = Literal["root", "item", "field"]
_EMPTY = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}
DEEPEST = 64
"""How deep a schema may be nested."""


def check(schema: Any, at: str, level: Level = "root", depth: int = 0) -> Iterator[Cause]:
    """What is wrong with a schema; `at` is its path in the definition."""
    if not isinstance(schema, dict):
        yield Cause.invalid(at, schema, "must be a schema object")
        return
    if depth > DEEPEST:
        yield Cause.invalid(at, "...", f"must not be nested more than {DEEPEST} deep")
        return
    wrong = list(_shape(schema, at))
    yield from wrong
    if wrong:
        return
    yield from _type(schema, at, level)
    yield from _extensions(schema, at)
    yield from _junctors(schema, at, depth)
    for name, below in (schema.get("properties") or {}).items():
        if name == "metadata" and level == "root":
            yield from _metadata(below, f"{at}.properties[metadata]")
        else:
            yield from check(below, f"{at}.properties[{name}]", "field", depth + 1)
    if isinstance(rest := schema.get("additionalProperties"), dict):
        yield from check(rest, f"{at}.additionalProperties", "field", depth + 1)
    if "items" in schema:
        yield from check(schema["items"], f"{at}.items", "item", depth + 1)


_MAPS = ("properties",)
_LISTS = ("required", "enum", "anyOf", "oneOf", "allOf", LIST_KEYS, VALIDATIONS)
_NUMBERS = ("maximum", "minimum", "multipleOf")
_COUNTS = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")
_TEXTS = ("type", "format", "pattern", "title", "description", LIST_TYPE, MAP_TYPE)


def _shape(schema: Object, at: str) -> Iterator[Cause]:
    """Fields of a schema that are of the wrong type."""
    wanted: list[tuple[tuple[str, ...], type | tuple[type, ...], str]] = [
        (_MAPS, dict, "an object"),
        (_LISTS, list, "a list"),
        (_NUMBERS, (int, float), "a number"),
        (_COUNTS, int, "an integer"),
        (_TEXTS, str, "text"),
    ]
    for names, types, what in wanted:
        for name in names:
            found = schema.get(name)
            if found is not None and (not isinstance(found, types) or isinstance(found, bool)):
                yield Cause.invalid(f"{at}.{name}", found, f"must be {what}")


def _type(schema: Object, at: str, level: Level) -> Iterator[Cause]:
    kind = schema.get("type", "")
    if kind and kind not in _TYPES:
        yield Cause.unsupported(f"{at}.type", kind, _TYPES)
    if schema.get(EMBEDDED) and kind != "object":
        yield Cause.required(f"{at}.type", f"must be object if {EMBEDDED} is true")
    elif not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        yield Cause.required(f"{at}.type", _EMPTY[level])
    if level == "root" and kind and kind != "object":
        yield Cause.invalid(f"{at}.type", kind, "must be object at the root")
    if level == "root" and schema.get("nullable"):
        yield Cause.forbidden(f"{at}.nullable", "nullable cannot be true at the root")
    if kind == "array" and not schema.get("items"):
        yield Cause.required(f"{at}.items", "must be specified")
    if isinstance(schema.get("items"), list):
        yield Cause.forbidden(f"{at}.items", "items must be a schema object and not an array")
    rest = schema.get("additionalProperties")
    if rest is not None and level == "root":
        yield Cause.forbidden(f"{at}.additionalProperties", "must not be used at the root")
    if rest is not None and schema.get("properties") and rest is not True:
        yield Cause.forbidden(f"{at}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    for name in _UNSUPPORTED:
        if schema.get(name):
            yield Cause.forbidden(f"{at}.{name}", f"{name} is not supported")
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield Cause.forbidden(f"{at}.uniqueItems", why)
    yield from _pattern(schema, at)
    if "default" in schema:
        yield from _default(schema, at)


def _pattern(schema: Object, at: str) -> Iterator[Cause]:
    try:
        compiled(schema.get("pattern") or "")
    except ValueError as error:
        why = f"must be a valid regular expression, but isn't: {error}"
        yield Cause.invalid(f"{at}.pattern", schema["pattern"], why)


def _default(schema: Object, at: str) -> Iterator[Cause]:
    """What is wrong with a default: it has to fit its own schema, and to have nothing that is pruned."""
    default = schema["default"]
    if any(True for _ in check({key: item for key, item in schema.items() if key != "default"}, at, "field")):
        return
    pruner = Pruner()
    pruner.value(default, schema)
    if pruner.unknown:
        why = f"must not have unknown fields: {', '.join(pruner.unknown)}"
        yield Cause.invalid(f"{at}.default", default, why)
    yield from values.check(default, schema, f"{at}.default")


def _metadata(schema: Any, at: str) -> Iterator[Cause]:
    if not isinstance(schema, dict) or schema.get("type") != "object":
        found = schema.get("type", "") if isinstance(schema, dict) else schema
        yield Cause.invalid(f"{at}.type", found, "must be object")
        return
    properties = schema.get("properties") or {}
    ignored = ("type", "properties", "description")
    if properties.keys() - {"name", "generateName"} or any(schema[key] for key in schema if key not in ignored):
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield Cause.forbidden(at, why)


def _extensions(schema: Object, at: str) -> Iterator[Cause]:
    if schema.get(INT_OR_STRING):
        for name in (PRESERVE, EMBEDDED):
            if schema.get(name):
                yield Cause.invalid(f"{at}.{name}", True, f"must be false if {INT_OR_STRING} is true")
    if schema.get(PRESERVE) is False:
        yield Cause.invalid(f"{at}.{PRESERVE}", False, "must be true or undefined")
    if schema.get(EMBEDDED) and not schema.get(PRESERVE) and not schema.get("properties"):
        why = f"must not be empty if {EMBEDDED} is true without {PRESERVE}"
        yield Cause.required(f"{at}.properties", why)
    kind, list_type, map_type = schema.get("type"), schema.get(LIST_TYPE), schema.get(MAP_TYPE)
    for found, wanted, name in ((map_type, "object", MAP_TYPE), (list_type, "array", LIST_TYPE)):
        if found is not None and kind != wanted:
            why = f"must be {wanted} if {name} is specified"
            yield Cause.invalid(f"{at}.type", kind, why) if kind else Cause.required(f"{at}.type", why)
    if map_type not in (None, "atomic", "granular"):
        yield Cause.unsupported(f"{at}.{MAP_TYPE}", map_type, ("atomic", "granular"))
    if list_type not in (None, "atomic", "set", "map"):
        yield Cause.unsupported(f"{at}.{LIST_TYPE}", list_type, ("atomic", "set", "map"))
    if list_type == "set":
        yield from _set(schema.get("items"), f"{at}.items")
    if list_type == "map":
        yield from _list_map(schema, at)
    elif schema.get(LIST_KEYS):
        why = f"must be map if {LIST_KEYS} is non-empty"
        yield (
            Cause.invalid(f"{at}.{LIST_TYPE}", list_type, why)
            if list_type
            else Cause.required(f"{at}.{LIST_TYPE}", why)
        )


def _set(items: Any, at: str) -> Iterator[Cause]:
    if not isinstance(items, dict):
        return
    why = f"must be atomic as item of a list with {LIST_TYPE}=set"
    if items.get("nullable"):
        yield Cause.forbidden(f"{at}.nullable", f"cannot be nullable when {LIST_TYPE} is set")
    if items.get("type") == "array" and items.get(LIST_TYPE) not in (None, "atomic"):
        yield Cause.invalid(f"{at}.{LIST_TYPE}", items[LIST_TYPE], why)
    if items.get("type") == "object" and items.get(MAP_TYPE) != "atomic":
        yield Cause.invalid(f"{at}.{MAP_TYPE}", items.get(MAP_TYPE), why)


def _list_map(schema: Object, at: str) -> Iterator[Cause]:
    keys, items = schema.get(LIST_KEYS) or [], schema.get("items")
    if not keys:
        yield Cause.required(f"{at}.{LIST_KEYS}", f"must not be empty if {LIST_TYPE} is map")
    if not isinstance(items, dict):
        yield Cause.required(f"{at}.items", f"must have a schema if {LIST_TYPE} is map")
        return
    if items.get("type") != "object":
        why = f"must be object if parent array's {LIST_TYPE} is map"
        yield Cause.invalid(f"{at}.items.type", items.get("type", ""), why)
        return
    if items.get("nullable"):
        yield Cause.forbidden(f"{at}.items.nullable", f"cannot be nullable when {LIST_TYPE} is map")
    properties, required = items.get("properties") or {}, items.get("required") or ()
    for place, key in enumerate(keys):
        found = properties.get(key)
        if not isinstance(found, dict):
            yield Cause.invalid(f"{at}.{LIST_KEYS}", keys, "entries must all be names of item properties")
            continue
        if found.get("type") in ("array", "object"):
            why = f"must be a scalar type if parent array's {LIST_TYPE} is map"
            yield Cause.invalid(f"{at}.items.properties[{key}].type", found["type"], why)
        if key not in required and "default" not in found:
            why = f"this property is in {LIST_KEYS}, so it must have a default or be a required property"
            yield Cause.required(f"{at}.items.properties[{key}].default", why)
        if found.get("nullable"):
            why = f"this property is in {LIST_KEYS}, so it cannot be nullable"
            yield Cause.forbidden(f"{at}.items.properties[{key}].nullable", why)
        if key in keys[:place]:
            yield Cause.invalid(f"{at}.{LIST_KEYS}", keys, "must not contain duplicate entries")


def _junctors(schema: Object, at: str, depth: int) -> Iterator[Cause]:
    """`anyOf`, `allOf`, `oneOf` and `not`: they may check values only; the one of int-or-string may name types."""
    for name in ("anyOf", "allOf", "oneOf"):
        if name == "anyOf" and schema.get(name) == _ANY_OF and schema.get(INT_OR_STRING):
            continue
        for place, below in enumerate(schema.get(name) or ()):
            if name == "allOf" and place == 0 and schema.get(INT_OR_STRING) and below == {"anyOf": _ANY_OF}:
                continue
            yield from _nested(below, f"{at}.{name}[{place}]", depth + 1)
    if schema.get("not") is not None:
        yield from _nested(schema["not"], f"{at}.not", depth + 1)


def _nested(schema: Any, at: str, depth: int) -> Iterator[Cause]:
    if not isinstance(schema, dict) or depth > DEEPEST:
        yield Cause.invalid(at, "...", f"must be a schema object, nested at most {DEEPEST} deep")
        return
    wrong = list(_shape(schema, at))
    yield from wrong
    if wrong:
        return
    for names, word in ((_NESTED_EMPTY, "empty"), (_NESTED_UNDEFINED, "undefined"), (_NESTED_FALSE, "false")):
        for name in names:
            if schema.get(name) or (word == "undefined" and name in schema):
                yield Cause.forbidden(f"{at}.{name}", f"must be {word} to be structural")
    yield from _pattern(schema, at)
    yield from _junctors({key: item for key, item in schema.items() if key != INT_OR_STRING}, at, depth)
    for name, below in (schema.get("properties") or {}).items():
        if name == "metadata":
            yield Cause.forbidden(f"{at}.properties[metadata]", "must not be specified in a nested context")
        yield from _nested(below, f"{at}.properties[{name}]", depth + 1)
    if schema.get("items") is not None:
        yield from _nested(schema["items"], f"{at}.items", depth + 1)
