"""Reads the few bodies that kubectl sends only as protobuf, and converts them to JSON objects.

`kubectl certificate approve`, `auth can-i`, `create token`, `create deployment` and similar commands do not fall back
to JSON when protobuf is refused. A message is read by a table of its fields (`protobuf_kinds`); a field that is not in
the table is skipped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from wasmlet.controlplane.http.protobuf_kinds import KINDS, Fields
from wasmlet.controlplane.storage.status import Object, bad_request

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UnknownKind(Exception):
    """A body of a kind that is read as JSON only."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is longer than ten bytes")


def _parts(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: a number each, with its value."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            case 2:
                size, at = _varint(data, at)
            case 1:
                size = 8
            case 5:
                size = 4
            case other:
                raise ValueError(f"wire type {other} is not known")
        if at + size > len(data):
            raise ValueError("it ends in the middle of a field")
        yield tag >> 3, data[at : at + size]
        at += size


def _message(data: memoryview, fields: Fields) -> Object:
    """Convert a message to a JSON object; empty values are left out, as Go leaves them out."""
    out: Object = {}
    for number, raw in _parts(data):
        name, kind = fields.get(number, ("", None))
        if kind in ("map", "data"):
            entry = _message(_bytes(raw), {1: ("key", "text"), 2: ("value", "text" if kind == "map" else "bytes")})
            out.setdefault(name, {})[entry.get("key", "")] = entry.get("value", "")
        elif isinstance(kind, list):
            out.setdefault(name, []).append(_value(raw, kind[0]))
        elif kind is not None and (value := _value(raw, kind)) not in ("", None):
            out[name] = value
    return out


def _bytes(raw: int | memoryview) -> memoryview:
    if isinstance(raw, int):
        raise ValueError("a number is where bytes are expected")
    return raw


def _value(raw: int | memoryview, kind: str | Fields) -> Any:
    if kind in ("int", "bool"):
        if not isinstance(raw, int):
            raise ValueError("bytes are where a number is expected")
        return bool(raw) if kind == "bool" else raw - (1 << 64) if raw >> 63 else raw
    data = _bytes(raw)
    if isinstance(kind, dict):
        return _message(data, kind)
    match kind:
        case "bytes":
            return base64.b64encode(data).decode()
        case "int-or-text":
            either = _message(data, {1: ("type", "int"), 2: ("number", "int"), 3: ("text", "text")})
            return either.get("text", "") if either.get("type") else either.get("number", 0)
        case "time":
            seconds = _message(data, {1: ("seconds", "int")}).get("seconds")
            return None if not seconds else (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        case _:
            return bytes(data).decode()


def decode(body: bytes) -> Object:
    """The object in a body of media type `application/vnd.kubernetes.protobuf`.

    Raises:
        UnknownKind: it is of a kind that is read as JSON only.
        ApiError: 400, it cannot be read.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("the body of the request is not Kubernetes protobuf: it does not begin with k8s and a zero")
    try:
        about: Fields = {1: ("type", {1: ("apiVersion", "text"), 2: ("kind", "text")}), 2: ("raw", "bytes")}
        unknown = _message(memoryview(body)[len(_MAGIC) :], about)
        version, kind = (unknown.get("type", {}).get(key, "") for key in ("apiVersion", "kind"))
        fields = KINDS.get((version, kind))
        if fields is None:
            raise UnknownKind(kind)
        found = _message(memoryview(base64.b64decode(unknown.get("raw", ""))), fields)
    except (ValueError, IndexError, OverflowError) as error:
        raise bad_request(f"the body of the request is not Kubernetes protobuf: {error}") from None
    return {"apiVersion": version, "kind": kind, **found}
