"""DNS messages (RFC 1035): makes queries and parses answers, as a stub resolver. An answer may contain anything, so
everything that is read from it is limited.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from .egress import Address, Name

A, CNAME, AAAA = 1, 5, 28
_IN = 1
_RESPONSE, _OPCODE, _TRUNCATED, _RECURSE = 0x8000, 0x7800, 0x0200, 0x0100
NO_ERROR, NO_NAME = 0, 3

MAX_NAME = 253
_MAX_LABEL = 63
_MAX_RECORDS = 256
"""How many records of one answer are read."""
_MAX_ALIASES = 16
"""The longest chain of CNAME records that is followed."""
MAX_ADDRESSES = 16
"""How many addresses of one answer are used."""

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class Bad(Exception):
    """The message is not an answer to the query, or cannot be parsed."""


class Answer(NamedTuple):
    """The answer of a server.

    Attributes:
        code: the response code: `NO_ERROR`, `NO_NAME`, or another one of RFC 1035.
        truncated: the answer did not fit; ask again over TCP.
    """

    code: int
    truncated: bool
    addresses: tuple[Address, ...]


def normal(text: str) -> str | None:
    """Normalize a host name: lower case, no dot at the end. None if the text is no host name.

    A name whose last label is a number is not accepted: some programs read it as an address (127.1, 0x7f000001).
    """
    name = text.lower()
    name = name[:-1] if name.endswith(".") else name
    if not 0 < len(name) <= MAX_NAME:
        return None
    labels = name.split(".")
    if not all(0 < len(label) <= _MAX_LABEL and not set(label) - _LETTERS for label in labels):
        return None
    last = labels[-1]
    if last.isdigit() or (last[:2] == "0x" and not set(last[2:]) - set("0123456789abcdef")):
        return None
    return name


def candidates(text: str, searches: tuple[str, ...], ndots: int) -> list[Name]:
    """The full names to look up for a host, in order, by the rules of resolv.conf(5); empty if it is no host name."""
    asked = normal(text)
    if asked is None:
        return []
    plain = Name(asked, asked)
    if text.endswith("."):
        return [plain]
    domains = [domain for domain in map(normal, searches) if domain is not None]
    longer = [Name(asked, f"{asked}.{domain}") for domain in domains if len(asked) + len(domain) < MAX_NAME]
    found = [plain, *longer] if asked.count(".") >= ndots else [*longer, plain]
    return list(dict.fromkeys(found))


def question(number: int, name: str, kind: int) -> bytes:
    """A query with this id for the records of this kind."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split("."))
    return struct.pack(">6H", number, _RECURSE, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, _IN)


def read(data: bytes, number: int, name: str, kind: int) -> Answer:
    """Parse the answer to a `question` with the same arguments. No other check of the answer is needed.

    Raises:
        Bad: it is no valid answer to this question.
    """
    try:
        return _read(data, number, name, kind)
    except (struct.error, IndexError):
        raise Bad("it ends in the middle") from None


def _read(data: bytes, number: int, name: str, kind: int) -> Answer:
    found, flags, questions, answers, _, _ = struct.unpack_from(">6H", data)
    if found != number or not flags & _RESPONSE or flags & _OPCODE:
        raise Bad("it is no answer to this question")
    code, truncated = flags & 15, bool(flags & _TRUNCATED)
    if questions != 1:
        raise Bad("it has another question")
    asked, at = _name(data, 12)
    if asked != name or struct.unpack_from(">2H", data, at) != (kind, _IN):
        raise Bad("it has another question")
    if code != NO_ERROR or truncated:
        return Answer(code, truncated, ())
    aliases: dict[str, str] = {}
    addresses: dict[str, list[Address]] = {}
    at += 4
    for _ in range(min(answers, _MAX_RECORDS)):
        owner, at = _name(data, at)
        what, group, _, length = struct.unpack_from(">2HIH", data, at)
        at += 10
        if at + length > len(data):
            raise Bad("it ends in the middle")
        if group == _IN and what == CNAME:
            aliases.setdefault(owner, _name(data, at)[0])
        elif group == _IN and what == kind and length == (4 if kind == A else 16):
            addresses.setdefault(owner, []).append(ipaddress.ip_address(data[at : at + length]))
        at += length
    return Answer(code, False, _at_end_of(aliases, addresses, name))


def _at_end_of(aliases: dict[str, str], addresses: dict[str, list[Address]], name: str) -> tuple[Address, ...]:
    """The addresses of a name, or of the name that it is an alias of."""
    for _ in range(_MAX_ALIASES):
        if name in addresses:
            return tuple(dict.fromkeys(addresses[name]))[:MAX_ADDRESSES]
        if name not in aliases:
            return ()
        name = aliases[name]
    raise Bad("its aliases have no end")


def _name(data: bytes, at: int) -> tuple[str, int]:
    """Parse the name at an offset. Returns it in lower case, and the offset after it."""
    labels: list[str] = []
    end, length = -1, 0
    first = at
    while True:
        size = data[at]
        if size >= 0xC0:
            target = struct.unpack_from(">H", data, at)[0] & 0x3FFF
            end = at + 2 if end < 0 else end
            if target >= first:  # each pointer must lead further back, so that this ends
                raise Bad("a name in it points at what follows")
            at = first = target
            continue
        if size > _MAX_LABEL:
            raise Bad("a label in it has another form")
        at += 1
        if size == 0:
            return ".".join(labels), end if end >= 0 else at
        label = data[at : at + size]
        length += size + 1
        if len(label) < size or length > MAX_NAME + 1:
            raise Bad("a name in it is too long")
        labels.append(label.decode("latin-1").lower())
        at += size
