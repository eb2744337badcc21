"""Converts JSON values to CEL's types by their schema: a string with a format may be a time or a duration in CEL."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, Protocol

from celpy import celtypes

from wasmlet.controlplane.extensions.pruning import additional
from wasmlet.controlplane.storage.status import Object

_RESERVED = re.compile(
    "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return|var|void"
    "|while"
)
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_UNESCAPES = {escape: plain for plain, escape in _ESCAPES.items()}


def escaped(name: str) -> str:
    """The name of a field as rules write it: `a-b` is `a__dash__b`, `namespace` is `__namespace__`."""
    if _RESERVED.fullmatch(name):
        return f"__{name}__"
    return re.sub(r"__|[-./]", lambda match: _ESCAPES[match[0]], name)


def unescaped(name: str) -> str:
    """The inverse of `escaped`: the name of a field in JSON."""
    if name.startswith("__") and name.endswith("__") and _RESERVED.fullmatch(name[2:-2]):
        return name[2:-2]
    return re.sub("|".join(_UNESCAPES), lambda match: _UNESCAPES[match[0]], name)


def _bytes(text: str) -> Any:
    return celtypes.BytesType(base64.b64decode(text))


_FORMATS: dict[str, Callable[[str], Any]] = {
    "date": celtypes.TimestampType,
    "datetime": celtypes.TimestampType,
    "duration": celtypes.DurationType,
    "byte": _bytes,
}


class Spender(Protocol):
    """Counts the values that are made (`engine.Budget`)."""

    def spend(self, count: int) -> None: ...


def convert(value: Any, schema: Object | None, budget: Spender) -> Any:
    """Convert a JSON value to CEL's types. Each list or map costs one step, and one more for every ten elements.

    Raises:
        cel.engine.TooExpensive: there are too many.
    """
    if isinstance(value, dict | list):
        budget.spend(1 + len(value) // 10)
    schema = schema or {}
    match value:
        case None:
            return None
        case bool():
            return celtypes.BoolType(value)
        case str():
            return _text(value, schema)
        case int():
            return celtypes.DoubleType(value) if schema.get("type") == "number" else celtypes.IntType(value)
        case float():
            return celtypes.IntType(int(value)) if schema.get("type") == "integer" else celtypes.DoubleType(value)
        case list():
            return celtypes.ListType([convert(item, schema.get("items"), budget) for item in value])
    properties, rest = schema.get("properties") or {}, additional(schema)
    made = {}
    for key, item in value.items():
        name = escaped(key) if key in properties else key
        made[celtypes.StringType(name)] = convert(item, properties.get(key, rest), budget)
    return celtypes.MapType(made)


def _text(value: str, schema: Object) -> Any:
    made = _FORMATS.get(str(schema.get("format", "")).replace("-", "")) if schema.get("type") == "string" else None
    if made is not None:
        try:
            return made(value)
        except (ValueError, TypeError, OverflowError):
            pass  # the schema allows this form, but celpy cannot read it: rules see a text
    return celtypes.StringType(value)
