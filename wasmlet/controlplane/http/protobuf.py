"""The few bodies that kubectl sends as protobuf and nothing else, read into what they would be as JSON.

`kubectl certificate approve`, `auth can-i`, `create token`, `create deployment` and their like do not fall back to JSON
when refused. A message is read by a table of its fields; a field that the table lacks is passed over. Numbers are those
of the `generated.proto` files.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from wasmlet.controlplane.storage.status import Object, bad_request

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Fields = dict[int, tuple[str, Any]]
"""A message: field numbers with the name in JSON and the type: "text", "bytes", "int", "bool", "time", "map" (of text),
"data" (a map of bytes), "int-or-text", another message, or a list of one of these for a repeated field."""

_META: Fields = {
    1: ("name", "text"),
    2: ("generateName", "text"),
    3: ("namespace", "text"),
    5: ("uid", "text"),
    6: ("resourceVersion", "text"),
    11: ("labels", "map"),
    12: ("annotations", "map"),
    14: ("finalizers", ["text"]),
}
_CONDITION: Fields = {
    1: ("type", "text"),
    2: ("reason", "text"),
    3: ("message", "text"),
    4: ("lastUpdateTime", "time"),
    5: ("lastTransitionTime", "time"),
    6: ("status", "text"),
}
_REQUEST: Fields = {
    1: ("request", "bytes"),
    5: ("usages", ["text"]),
    7: ("signerName", "text"),
    8: ("expirationSeconds", "int"),
}
_RESOURCE: Fields = {
    1: ("namespace", "text"),
    2: ("verb", "text"),
    3: ("group", "text"),
    4: ("version", "text"),
    5: ("resource", "text"),
    6: ("subresource", "text"),
    7: ("name", "text"),
}
_PATH: Fields = {1: ("path", "text"), 2: ("verb", "text")}
_BOUND: Fields = {1: ("kind", "text"), 2: ("apiVersion", "text"), 3: ("name", "text"), 4: ("uid", "text")}
_TOKEN: Fields = {1: ("audiences", ["text"]), 3: ("boundObjectRef", _BOUND), 4: ("expirationSeconds", "int")}

_CONTAINER: Fields = {
    1: ("name", "text"),
    2: ("image", "text"),
    3: ("command", ["text"]),
    4: ("args", ["text"]),
    6: ("ports", [{1: ("name", "text"), 3: ("containerPort", "int"), 4: ("protocol", "text")}]),
}
_TEMPLATE: Fields = {1: ("metadata", _META), 2: ("spec", {2: ("containers", [_CONTAINER])})}
_PORT: Fields = {
    1: ("name", "text"),
    2: ("protocol", "text"),
    3: ("port", "int"),
    4: ("targetPort", "int-or-text"),
    5: ("nodePort", "int"),
    6: ("appProtocol", "text"),
}
_SERVICE: Fields = {
    1: ("ports", [_PORT]),
    2: ("selector", "map"),
    3: ("clusterIP", "text"),
    4: ("type", "text"),
    10: ("externalName", "text"),
}

_KINDS: dict[tuple[str, str], Fields] = {
    ("certificates.k8s.io/v1", "CertificateSigningRequest"): {
        1: ("metadata", _META),
        2: ("spec", _REQUEST),
        3: ("status", {1: ("conditions", [_CONDITION]), 2: ("certificate", "bytes")}),
    },
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        1: ("metadata", _META),
        2: ("spec", {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}),
    },
    ("authentication.k8s.io/v1", "TokenRequest"): {1: ("metadata", _META), 2: ("spec", _TOKEN)},
    ("v1", "ConfigMap"): {
        1: ("metadata", _META),
        2: ("data", "map"),
        3: ("binaryData", "data"),
        4: ("immutable", "bool"),
    },
    ("v1", "Secret"): {
        1: ("metadata", _META),
        2: ("data", "data"),
        3: ("type", "text"),
        4: ("stringData", "map"),
        5: ("immutable", "bool"),
    },
    ("v1", "Namespace"): {1: ("metadata", _META)},
    ("v1", "Service"): {1: ("metadata", _META), 2: ("spec", _SERVICE)},
    ("apps/v1", "Deployment"): {
        1: ("metadata", _META),
        2: ("spec", {1: ("replicas", "int"), 2: ("selector", {1: ("matchLabels", "map")}), 3: ("template", _TEMPLATE)}),
    },
    ("v1", "ServiceAccount"): {1: ("metadata", _META)},
}


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
    """A message as JSON has it; what is empty is left out, as Go leaves it out."""
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
        fields = _KINDS.get((version, kind))
        if fields is None:
            raise UnknownKind(kind)
        found = _message(memoryview(base64.b64decode(unknown.get("raw", ""))), fields)
    except (ValueError, IndexError, OverflowError) as error:
        raise bad_request(f"the body of the request is not Kubernetes protobuf: {error}") from None
    return {"apiVersion": version, "kind": kind, **found}
