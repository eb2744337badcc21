"""The messages between host and actor: maps in MessagePack, in the spelling of both generations of actors.

Older actors use names in snake_case, newer ones names in camelCase. Each ignores names that it does not know, so the
host sends both. Some actors expect a body as bytes, others as a list of numbers.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Mapping
from typing import Any

import msgpack

MOST_BYTES = 8 * 2**20
"""Of one message."""
_MOST_ITEMS = 100_000
"""Lists and maps in one message, all together: each takes much more memory than its bytes."""
_DEEPEST = 16
_INT32, _INT64 = struct.Struct(">bi"), struct.Struct(">bq")
_SMALL, _LARGE = -46, -45
"""The first bytes of signed numbers of 32 and 64 bits (0xd2, 0xd3)."""
_CAPITAL = re.compile(r"(?<!^)([A-Z])")


class Packed(bytes):
    """A part of a message that is encoded already."""


class BadMessage(ValueError):
    """The bytes are no message, or one that is too large."""


def encoded(value: Any) -> bytes:
    """A value in MessagePack. Whole numbers have 32 or 64 bits and a sign: not all decoders of actors know others.

    Raises:
        BadMessage: it is too large, or is nothing that a message may have.
    """
    out = bytearray()
    _encode(value, out)
    return _bounded(bytes(out))


def both(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A map with each of its names, which are in camelCase, in snake_case, too."""
    return {**fields, **{_snake(name): value for name, value in fields.items()}}


@functools.lru_cache(maxsize=512)
def _snake(name: str) -> str:
    return _CAPITAL.sub(r"_\1", name).lower()


def of_texts(fields: Mapping[str, Any]) -> bytes:
    """A map that has texts, bytes and maps of them only, in MessagePack; the same as `encoded`, in less time.

    Raises:
        BadMessage: it is too large.
    """
    out: bytes = msgpack.packb(fields)
    return _bounded(out)


def decoded(data: bytes) -> Any:
    """The first value of a message; None of an empty one. What follows is passed over: some actors send more.

    The keys of a map are texts or bytes. A map of one may have a number: older actors say with it which variant of an
    enum the value is. (Many numbers could be chosen so that a map of them takes very long.)

    Raises:
        BadMessage: it is none.
    """
    if not data:
        return None
    if len(data) > MOST_BYTES:
        raise BadMessage(f"a message of {len(data)} bytes is more than {MOST_BYTES}")
    try:
        try:
            return _unpacked(data)
        except ValueError:  # rarely, and that takes longer
            return _unpacked(data, variants=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise BadMessage(f"this is no MessagePack: {type(error).__name__}") from None


def _unpacked(data: bytes, *, variants: bool = False) -> Any:
    """See `decoded`; with numbers for keys where `variants` is so."""
    left = _MOST_ITEMS

    def counted(found: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError
        return found

    def keyed(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        keys = (str, bytes, int) if len(pairs) == 1 else (str, bytes)
        if not all(isinstance(key, keys) for key, _ in counted(pairs)):
            raise ValueError
        return dict(pairs)

    unpacker = msgpack.Unpacker(
        list_hook=counted, object_hook=None if variants else counted, object_pairs_hook=keyed if variants else None,
        max_buffer_size=MOST_BYTES, max_array_len=MOST_BYTES, max_map_len=_MOST_ITEMS, max_ext_len=0,
        strict_map_key=not variants, unicode_errors="replace",
    )  # fmt: skip
    unpacker.feed(data)
    return unpacker.unpack()


def named(message: Any, names: tuple[str, ...]) -> Any:
    """The message as a map. Older actors may send only the values, in the order of these names.

    Raises:
        BadMessage: there are more values than names.
    """
    if not isinstance(message, list):
        return message
    if len(message) > len(names):
        raise BadMessage(f"expected {', '.join(names)}, found {len(message)} values")
    return dict(zip(names, message))  # noqa: B905 - Python 3.10


def field(message: Any, name: str, default: Any = None) -> Any:
    """The value of a field, which is given in camelCase; snake_case is looked for, too."""
    if not isinstance(message, dict):
        raise BadMessage(f"expected a map with {name}, found {type(message).__name__}")
    found = message.get(name)
    return found if found is not None else message.get(_snake(name), default)


def text(message: Any, name: str) -> str:
    """As `field`, for a text.

    Raises:
        BadMessage: it is no text.
    """
    found = field(message, name)
    if isinstance(found, bytes):
        return found.decode(errors="replace")
    if not isinstance(found, str):
        raise BadMessage(f"expected {name} to be a text, found {type(found).__name__}")
    return found


def number(message: Any, name: str, default: int | None = None) -> int:
    """As `field`, for a whole number.

    Raises:
        BadMessage: it is no whole number.
    """
    found = field(message, name, default)
    if isinstance(found, bool) or not isinstance(found, int):
        raise BadMessage(f"expected {name} to be a whole number, found {type(found).__name__}")
    return found


def octets(value: Any) -> bytes:
    """A value as bytes: actors send bytes, a text, or a list of numbers.

    Raises:
        BadMessage: it is none of these.
    """
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    try:
        if isinstance(value, list):
            return bytes(value)
    except (TypeError, ValueError):
        pass
    raise BadMessage(f"expected bytes, found {type(value).__name__}")


def _encode(value: Any, out: bytearray, depth: int = 0) -> None:
    if depth > _DEEPEST or len(out) > MOST_BYTES:
        raise BadMessage("a message is too large, or too deep")
    if isinstance(value, Packed):
        out += value
    elif isinstance(value, dict):
        out += _packer.pack_map_header(len(value))
        for key, item in value.items():
            _encode(key, out, depth + 1)
            _encode(item, out, depth + 1)
    elif isinstance(value, (list, tuple)):
        out += _packer.pack_array_header(len(value))
        for item in value:
            _encode(item, out, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        out += _INT32.pack(_SMALL, value) if -(2**31) <= value < 2**31 else _wide(value)
    else:
        try:
            out += msgpack.packb(value)
        except (TypeError, ValueError):
            raise BadMessage(f"a message has a {type(value).__name__}") from None


def _bounded(message: bytes) -> bytes:
    if len(message) > MOST_BYTES:
        raise BadMessage(f"a message of {len(message)} bytes is more than {MOST_BYTES}")
    return message


def _wide(value: int) -> bytes:
    if not -(2**63) <= value < 2**63:
        raise BadMessage("a number has more than 64 bits")
    return _INT64.pack(_LARGE, value)


_packer = msgpack.Packer()
