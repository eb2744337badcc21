"""Header fields of wasi:http, and what may be in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .instances import Failed, Instance, Resource, resource
from .world import function

Pairs = list[tuple[str, bytes]]

_TYPES = "wasi:http/types"
_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_FORBIDDEN = frozenset(
    (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
        "transfer-encoding", "upgrade", "host", "http2-settings",
    )
)  # fmt: skip
"""Fields about the connection, which is not the guest's, and fields with a function of their own (`authority`)."""
MOST = 64 * 1024
"""The most bytes of all fields of one message, with 32 more for each field. It limits the host's memory for a guest."""
_EACH = 32


def is_forbidden(name: str) -> bool:
    """Whether the field is hidden from guests: they neither set nor see it."""
    return name.lower() in _FORBIDDEN


def encoded(pairs: Iterable[tuple[str, bytes]]) -> list[tuple[bytes, bytes]]:
    """Fields as h11 takes them."""
    return [(name.encode("ascii"), value) for name, value in pairs]


def size_of(pairs: Iterable[tuple[str, bytes]]) -> int:
    """The size of fields, as it counts for `MOST`."""
    return sum(len(name) + len(value) + _EACH for name, value in pairs)


@resource("fields")
class Fields(Resource):
    """Header or trailer fields.

    Args:
        pairs: names, as they were written, and values.
        fixed: they belong to a message already, and cannot be changed.
    """

    def __init__(self, pairs: Pairs | None = None, *, fixed: bool = False) -> None:
        self.pairs: Pairs = pairs if pairs is not None else []
        self.fixed = fixed

    def change(self, name: str, values: Sequence[bytes], *, keep: bool) -> None:
        """Set the values of a name.

        Args:
            keep: whether the values that are there stay.

        Raises:
            Failed: with a header-error: the values are not allowed, or the fields cannot be changed.
        """
        if self.fixed:
            raise Failed(("immutable", None))
        check(name, values)
        lower = name.lower()
        pairs = self.pairs if keep else [pair for pair in self.pairs if pair[0].lower() != lower]
        pairs = [*pairs, *((name, value) for value in values)]
        if size_of(pairs) > MOST:
            raise Failed(("invalid-syntax", None))
        self.pairs = pairs

    def get(self, name: str) -> list[bytes]:
        """The values of a name."""
        lower = name.lower()
        return [value for key, value in self.pairs if key.lower() == lower]


def check(name: str, values: Iterable[bytes]) -> None:
    """Check that a guest may set this field.

    Raises:
        Failed: with a header-error.
    """
    if not _NAME.fullmatch(name) or not all(map(_VALUE.fullmatch, values)):
        raise Failed(("invalid-syntax", None))
    if is_forbidden(name):
        raise Failed(("forbidden", None))


@function(f"{_TYPES}.[constructor]fields")
def _new(instance: Instance) -> Fields:
    return Fields()


@function(f"{_TYPES}.[static]fields.from-list")
def _from_list(instance: Instance, entries: Pairs) -> Fields:
    for name, value in entries:
        check(name, (value,))
    if size_of(entries) > MOST:
        raise Failed(("invalid-syntax", None))
    return Fields(list(entries))


@function(f"{_TYPES}.[method]fields.get")
def _get(instance: Instance, fields: Fields, name: str) -> list[bytes]:
    return fields.get(name)


@function(f"{_TYPES}.[method]fields.has")
def _has(instance: Instance, fields: Fields, name: str) -> bool:
    return bool(fields.get(name))


@function(f"{_TYPES}.[method]fields.set")
def _set(instance: Instance, fields: Fields, name: str, values: Sequence[bytes]) -> None:
    fields.change(name, values, keep=False)


@function(f"{_TYPES}.[method]fields.delete")
def _delete(instance: Instance, fields: Fields, name: str) -> None:
    fields.change(name, (), keep=False)


@function(f"{_TYPES}.[method]fields.append")
def _append(instance: Instance, fields: Fields, name: str, value: bytes) -> None:
    fields.change(name, (value,), keep=True)


@function(f"{_TYPES}.[method]fields.entries")
def _entries(instance: Instance, fields: Fields) -> Pairs:
    return fields.pairs


@function(f"{_TYPES}.[method]fields.clone")
def _clone(instance: Instance, fields: Fields) -> Fields:
    return Fields(list(fields.pairs))
