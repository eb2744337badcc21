"""Checks that the elements of a set, and the keys of a list-map's elements, are unique (`schema/listtype`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from wasmlet.controlplane.extensions.pruning import additional
from wasmlet.controlplane.extensions.values import shown
from wasmlet.controlplane.storage.status import Cause, Object


def check(value: Any, schema: Object | None, at: str = "") -> Iterator[Cause]:
    """The duplicate elements of the lists in a value."""
    if not schema:
        return
    if isinstance(value, list):
        yield from _list(value, schema, at)
    elif isinstance(value, dict):
        properties, rest = schema.get("properties") or {}, additional(schema)
        for key, item in value.items():
            below = f"{at}[{key}]" if rest is not None else f"{at}.{key}" if at else key
            yield from check(item, properties.get(key, rest), below)


def _list(value: list[Any], schema: Object, at: str) -> Iterator[Cause]:
    match schema.get("x-kubernetes-list-type"):
        case "set":
            yield from _twice(value, value, at)
        case "map":
            wrong = next((place for place, item in enumerate(value) if not isinstance(item, dict | None)), None)
            if wrong is not None:
                why = "must be an object for an array of list-type map"
                yield Cause(f"{at}[{wrong}]", f"Invalid value: {shown(value[wrong])}: {why}")
            else:
                keys = schema.get("x-kubernetes-list-map-keys") or ()
                yield from _twice(
                    [{key: item[key] for key in keys if key in (item or {})} for item in value], value, at
                )
    for place, item in enumerate(value):
        yield from check(item, schema.get("items"), f"{at}[{place}]")


def _twice(keys: list[Any], value: list[Any], at: str) -> Iterator[Cause]:
    counts: dict[bytes, int] = {}
    for place, key in enumerate(keys):
        text = orjson.dumps(key, option=orjson.OPT_SORT_KEYS)
        counts[text] = counts.get(text, 0) + 1
        if counts[text] == 2:
            yield Cause(f"{at}[{place}]", f"Duplicate value: {shown(key)}", "FieldValueDuplicate")
