"""Whether a value fits a schema, with the messages of the API server (kube-openapi's `validate`).

A finding is a `Cause`; all of them are reported together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from wasmlet.controlplane.extensions import formats
from wasmlet.controlplane.extensions.patterns import matches
from wasmlet.controlplane.extensions.pruning import additional
from wasmlet.controlplane.storage.status import Cause, Object

TYPE_INVALID = "FieldValueTypeInvalid"
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


def go_number(value: float) -> str:
    """A number as Go's `%v` writes it: a float of a million is 1e+06."""
    if isinstance(value, int):
        return str(value)
    mantissa, exponent = next(text for digits in range(18) if float(text := f"{value:.{digits}e}") == value).split("e")
    if not -4 <= int(exponent) < 6:
        return f"{mantissa}e{exponent[0]}{exponent[1:].rjust(2, '0')}"
    return str(int(value)) if value == int(value) else repr(value)


def shown(value: Any) -> str:
    """A value as messages show it: text in quotes, anything else as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return go_number(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)


def kind_of(value: Any) -> str:
    """The name of a value's type in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _invalid(at: str, value: Any, message: str) -> Cause:
    return Cause(at, f"Invalid value: {shown(value)}: {at} in body {message}")


def _type(at: str, wanted: str, value: Any) -> Cause:
    found = json.dumps(value, ensure_ascii=False)
    return Cause(at, f"Invalid value: {found}: {at} in body must be of type {wanted}: {found}", TYPE_INVALID)


NEW: Any = object()
"""The old value of a value that replaces nothing."""


def check(value: Any, schema: Object, at: str = "", old: Any = NEW) -> Iterator[Cause]:
    """What does not fit the schema. `at` is the path of the value, empty for the whole object.

    Parts that are the same in `old` are not checked. So an object from before the schema became stricter can be
    changed.
    """
    if old is not NEW and value == old:
        return
    found = kind_of(value)
    types = (
        ["integer", "string"]
        if schema.get("x-kubernetes-int-or-string")
        else [schema["type"]]
        if schema.get("type")
        else []
    )
    if types and not _is(found, value, types) and not (value is None and schema.get("nullable")):
        yield _type(at, ",".join(types), found)
    if value is None:
        if "enum" in schema and not (schema.get("nullable") and not types):
            yield from _enum(value, schema, at)
        return
    yield from _junctors(value, schema, at)
    match value:
        case bool():
            pass
        case str():
            yield from _string(value, schema, at)
        case int() | float():
            yield from _number(value, schema, at)
        case list():
            yield from _list(value, schema, at, old)
    if "enum" in schema:
        yield from _enum(value, schema, at)
    if isinstance(value, dict):
        yield from _object(value, schema, at, old)


def _is(found: str, value: Any, types: list[str]) -> bool:
    if found in types or (found == "integer" and "number" in types):
        return True
    return found == "number" and "integer" in types and value == int(value)


def _enum(value: Any, schema: Object, at: str) -> Iterator[Cause]:
    choices = schema["enum"]
    if any(value == choice and kind_of(value) == kind_of(choice) for choice in choices):
        return
    texts = ", ".join(f'"{choice if isinstance(choice, str) else shown(choice)}"' for choice in choices)
    yield Cause(at, f"Unsupported value: {shown(value)}: supported values: {texts}", "FieldValueNotSupported")


def _string(value: str, schema: Object, at: str) -> Iterator[Cause]:
    if (most := schema.get("maxLength")) is not None and len(value) > most:
        yield Cause(at, f"Too long: may not be more than {most} bytes", "FieldValueTooLong")
    if (least := schema.get("minLength")) is not None and len(value) < least:
        yield _invalid(at, value, f"should be at least {least} chars long")
    if (pattern := schema.get("pattern")) and not matches(pattern, value):
        yield _invalid(at, value, f"should match '{pattern}'")
    if schema.get("type") in (None, "string") and (name := schema.get("format")):
        fits = formats.check(name)
        if fits is not None and not fits(value):
            yield _type(at, name, value)


def _number(value: float, schema: Object, at: str) -> Iterator[Cause]:
    bounds = _RANGES.get(schema.get("format", "")) if schema.get("type") == "integer" else None
    if bounds and not bounds[0] <= value <= bounds[1]:
        why = f"Checked value must be of type integer with format {schema['format']} in {at}"
        yield Cause("<nil>", f'Invalid value: "": {why}')
    if (factor := schema.get("multipleOf")) and value % factor:
        yield _invalid(at, value, f"should be a multiple of {go_number(factor)}")
    if (most := schema.get("maximum")) is not None:
        if schema.get("exclusiveMaximum") and value >= most:
            yield _invalid(at, value, f"should be less than {go_number(most)}")
        elif value > most:
            yield _invalid(at, value, f"should be less than or equal to {go_number(most)}")
    if (least := schema.get("minimum")) is not None:
        if schema.get("exclusiveMinimum") and value <= least:
            yield _invalid(at, value, f"should be greater than {go_number(least)}")
        elif value < least:
            yield _invalid(at, value, f"should be greater than or equal to {go_number(least)}")


def _list(value: list[Any], schema: Object, at: str, old: Any) -> Iterator[Cause]:
    if isinstance(items := schema.get("items"), dict):
        before = correlated(schema, value, old)
        for place, item in enumerate(value):
            yield from check(item, items, f"{at}[{place}]", before[place])
    if (least := schema.get("minItems")) is not None and len(value) < least:
        yield _invalid(at, len(value), f"should have at least {least} items")
    if (most := schema.get("maxItems")) is not None and len(value) > most:
        yield _many(at, len(value), most)


def correlated(schema: Object, value: list[Any], old: Any) -> list[Any]:
    """The old value of each element of a list: in a list-map the element with the same keys, else none (`NEW`)."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if not isinstance(old, list) or schema.get("x-kubernetes-list-type") != "map" or not keys:
        return [NEW] * len(value)

    def key_of(item: Any) -> str:
        return shown({key: item.get(key) for key in keys} if isinstance(item, dict) else item)

    before = {key_of(item): item for item in old}
    return [before.get(key_of(item), NEW) for item in value]


def _many(at: str, count: int, most: int) -> Cause:
    return Cause(at, f"Too many: {count}: must have at most {most} items", "FieldValueTooMany")


def _object(value: Object, schema: Object, at: str, old: Any) -> Iterator[Cause]:
    if (least := schema.get("minProperties")) is not None and len(value) < least:
        yield _invalid(at, len(value), f"should have at least {least} properties")
    if (most := schema.get("maxProperties")) is not None and len(value) > most:
        yield _many(at, len(value), most)
    properties, rest = schema.get("properties") or {}, additional(schema)
    for key, item in value.items():
        below = properties.get(key, rest)
        if below:
            before = old.get(key, NEW) if isinstance(old, dict) else NEW
            yield from check(item, below, f"{at}.{key}" if at else key, before)
    for key in schema.get("required") or ():
        if key not in value:
            yield Cause(f"{at}.{key}" if at else key, "Required value", "FieldValueRequired")
    if schema.get("x-kubernetes-embedded-resource"):
        for key in ("apiVersion", "kind"):
            if not value.get(key):
                yield Cause(f"{at}.{key}", "Required value: must not be empty", "FieldValueRequired")


def _junctors(value: Any, schema: Object, at: str) -> Iterator[Cause]:
    """`anyOf`, `oneOf`, `allOf` and `not`."""
    if choices := schema.get("anyOf"):
        results = _results(value, choices, at)
        if all(results):
            yield _nested(f'"{at}" must validate at least one schema (anyOf)')
            yield from min(results, key=len)
    if choices := schema.get("oneOf"):
        results = _results(value, choices, at)
        fitting = sum(not causes for causes in results)
        if fitting != 1:
            count = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
            yield _nested(f'"{at}" must validate one and only one schema (oneOf). {count}')
            if not fitting:
                yield from min(results, key=len)
    if choices := schema.get("allOf"):
        results = _results(value, choices, at)
        if any(results):
            yield _nested(f'"{at}" must validate all the schemas (allOf)')
            for causes in results:
                yield from causes
    if (denied := schema.get("not")) is not None and not any(check(value, denied, at)):
        yield _nested(f'"{at}" must not validate the schema (not)')


def _results(value: Any, schemas: list[Object], at: str) -> list[list[Cause]]:
    return [list(check(value, schema, at)) for schema in schemas]


def _nested(message: str) -> Cause:
    return Cause("<nil>", f'Invalid value: "": {message}')
