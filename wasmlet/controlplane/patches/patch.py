"""JSON patch (RFC 6902) and merge patch (RFC 7386) on raw objects.

Both return a new object, which shares the unchanged parts; their arguments are never changed. `strategic` and `apply`
are the two kinds of patch that only Kubernetes has.
"""

from __future__ import annotations

import copy
from typing import Any

from wasmlet.controlplane.storage.status import ApiError, Object, bad_request

OPERATIONS = 10_000
"""The most operations that one JSON patch may have."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out


def _failed(operation: Object, why: str) -> ApiError:
    return ApiError(
        422,
        "Invalid",
        f"the server rejected our request due to an error in our request: {operation.get('op')} "
        f"{operation.get('path')!r}: {why}",
        details={},
    )


def _pointer(path: str, operation: Object) -> list[str]:
    if path == "":
        return []
    if not path.startswith("/"):
        raise _failed(operation, "a path begins with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _index(part: str, length: int, operation: Object) -> int:
    if not (part.isascii() and part.isdigit()) or (len(part) > 1 and part[0] == "0"):
        raise _failed(operation, f"{part!r} is not an index")
    if int(part) >= length:
        raise _failed(operation, f"index {part} is out of bounds")
    return int(part)


def _child(node: Any, part: str, operation: Object) -> Any:
    if isinstance(node, dict):
        if part not in node:
            raise _failed(operation, f"there is no {part!r}")
        return node[part]
    if isinstance(node, list):
        return node[_index(part, len(node), operation)]
    raise _failed(operation, f"there is nothing below {part!r}")


def _get(document: Any, parts: list[str], operation: Object) -> Any:
    for part in parts:
        document = _child(document, part, operation)
    return document


def _change(document: Any, parts: list[str], operation: Object, verb: str, value: Any) -> Any:
    """A copy of the document in which the value at the path is added, replaced or removed."""
    if not parts:
        if verb == "remove":
            raise _failed(operation, "the whole document cannot be removed")
        return value
    part, rest = parts[0], parts[1:]
    if rest:
        child = _change(_child(document, part, operation), rest, operation, verb, value)
        if isinstance(document, dict):
            return {**document, part: child}
        out = list(document)
        out[_index(part, len(out), operation)] = child
        return out
    if isinstance(document, dict):
        if verb != "add" and part not in document:
            raise _failed(operation, f"there is no {part!r}")
        if verb == "remove":
            return {key: item for key, item in document.items() if key != part}
        return {**document, part: value}
    if isinstance(document, list):
        items = list(document)
        if verb == "add":
            at = len(items) if part == "-" else _index(part, len(items) + 1, operation)
            items.insert(at, value)
        elif verb == "remove":
            del items[_index(part, len(items), operation)]
        else:
            items[_index(part, len(items), operation)] = value
        return items
    raise _failed(operation, f"there is nothing below {part!r}")


def same(one: Any, other: Any) -> bool:
    """Equality as JSON has it: true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def json_patch(document: Any, operations: Any) -> Any:
    """Apply a JSON patch (RFC 6902).

    Raises:
        ApiError: 400, this is no JSON patch; 422, an operation cannot be carried out or a test failed.
    """
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise bad_request("a JSON patch is a list of operations")
    if len(operations) > OPERATIONS:
        raise ApiError(
            413,
            "RequestEntityTooLarge",
            f"The allowed maximum operations in a JSON patch is {OPERATIONS}, got {len(operations)}",
        )
    for operation in operations:
        path = operation.get("path")
        if not isinstance(path, str):
            raise bad_request("every operation of a JSON patch has a path")
        parts = _pointer(path, operation)
        match operation.get("op"):
            case "add" | "replace" | "test" as verb:
                if "value" not in operation:
                    raise bad_request(f"{verb} {path!r} has no value")
                value = operation["value"]
                if verb == "test":
                    if not same(_get(document, parts, operation), value):
                        raise _failed(operation, "testing value failed")
                else:
                    document = _change(document, parts, operation, verb, value)
            case "remove":
                document = _change(document, parts, operation, "remove", None)
            case "move" | "copy" as verb:
                source = operation.get("from")
                if not isinstance(source, str):
                    raise bad_request(f"{verb} {path!r} has no from")
                start = _pointer(source, operation)
                value = copy.deepcopy(_get(document, start, operation))
                if verb == "move":
                    if parts[: len(start)] == start and len(parts) > len(start):
                        raise _failed(operation, "a value cannot be moved into itself")
                    document = _change(document, start, operation, "remove", None)
                document = _change(document, parts, operation, "add", value)
            case verb:
                raise bad_request(f"unexpected operation {verb!r} in a JSON patch")
    return document
