"""JSON schemas of attrs classes, as `protocol.codec` writes and reads them."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from wasmlet.model.inputs import TokenKey
from wasmlet.model.status import ContainerState, Running, Terminated, Waiting

Schema = dict[str, Any]

_PLAIN: Mapping[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    datetime: {"type": "string", "format": "date-time"},
    Any: {},
}


class Schemas:
    """Collects the schemas of classes, each below its name.

    Attributes:
        found: by name; what `#/components/schemas` has.
    """

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}

    def of(self, kind: Any) -> Schema:
        """The schema of a class or type; a reference where it is a class.

        Raises:
            TypeError: it is of a kind that messages do not have.
        """
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        if kind == ContainerState:
            states = {one.__name__.lower(): self.of(one) for one in (Waiting, Running, Terminated)}
            return {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": states}
        if attrs.has(kind):
            return self._class(kind)
        origin, args = get_origin(kind), get_args(kind)
        if origin is Literal:
            return {"type": "string", "enum": list(args)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [{"type": "null"} if one is type(None) else self.of(one) for one in args]}
        if origin in (tuple, Sequence):
            return {"type": "array", "items": self.of(args[0])}
        if origin is Mapping and args[0] is TokenKey:
            return {"type": "array", "items": self._token()}
        if origin is Mapping:
            return {"type": "object", "additionalProperties": self.of(args[1])}
        raise TypeError(f"no schema for {kind!r}")

    def _class(self, kind: type[Any]) -> Schema:
        name = kind.__name__
        if name not in self.found:
            self.found[name] = {}  # a class may refer to itself
            hints = typing.get_type_hints(kind)
            fields = attrs.fields(kind)
            self.found[name] = {
                "type": "object",
                "properties": {field.name: self.of(hints[field.name]) for field in fields},
                "required": [field.name for field in fields if field.default is attrs.NOTHING],
            }
        return {"$ref": f"#/components/schemas/{name}"}

    def _token(self) -> Schema:
        """What `codec` makes of a token and its key."""
        schema = {
            "audience": {"type": "string"},
            "expiration_seconds": {"type": "integer"},
            "token": {"type": "string"},
        }
        return {"type": "object", "properties": schema}
