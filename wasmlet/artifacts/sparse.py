"""Sparse files in tar archives: files with holes, of which the archive stores only the parts between the holes.

GNU tar writes them in four formats: an old one, with a header type of its own, and three versions (0.0, 0.1, 1.0) with
pax headers. Go's archive/tar reads all four, and so does every container engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import attrs

from wasmlet.artifacts.errors import BadContent

BLOCK = 512
OFFSET, BYTES, MAP = "GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.map"
"""The pax records for parts. Version 0.0 repeats the first two for each part; 0.1 has all parts in the third."""

_MAX_PARTS = 50_000
_MAX_NUMBER = 20
_FIELD, _PART = 12, 24
"""Size in bytes of one number, and of one part (offset and length), in an old GNU header."""


@attrs.frozen
class Sparse:
    """The layout of a sparse file: offset and length of each stored part, in order, and the size of the whole file."""

    parts: tuple[tuple[int, int], ...]
    size: int


def of_pax(records: Mapping[str, str], read: Callable[[int], bytes]) -> Sparse | None:
    """Read the layout from a member's pax records; None for a member that is not sparse.

    Args:
        read: reads this many bytes of the member's content: in version 1.0 the parts are listed there.

    Raises:
        BadContent: the parts are not valid.
    """
    version = (records.get("GNU.sparse.major", ""), records.get("GNU.sparse.minor", ""))
    size = records.get("GNU.sparse.realsize") or records.get("GNU.sparse.size") or ""
    if version == ("1", "0"):
        return _checked(_listed(read), _number(size))
    if MAP not in records or version not in (("", ""), ("0", "0"), ("0", "1")):
        return None
    numbers = [_number(text) for text in records[MAP].split(",")] if records[MAP] else []
    return _checked(numbers, _number(size))


def of_gnu(header: bytes, read: Callable[[int], bytes]) -> Sparse:
    """Read the layout from an old GNU header (type S).

    Args:
        read: reads this many bytes after the header: the list of parts may continue there.

    Raises:
        BadContent: the parts are not valid.
    """
    numbers, more = _fields(header[386:482]), header[482]
    while more:
        block = read(BLOCK)
        numbers, more = numbers + _fields(block[:504]), block[504]
        if len(numbers) > 2 * _MAX_PARTS:
            break
    return _checked(numbers, _field(header[483:495]))


def _fields(data: bytes) -> list[int]:
    """The numbers of an old GNU header, up to the first empty field."""
    found = []
    for at in range(0, len(data), _PART):
        if not data[at] or not data[at + _FIELD]:
            break
        found += [_field(data[at : at + _FIELD]), _field(data[at + _FIELD : at + _PART])]
    return found


def _field(data: bytes) -> int:
    """Parse a number: octal digits, or, if the first byte is 0x80, a binary number (big-endian)."""
    if data[0] == 0x80:
        return int.from_bytes(data[1:], "big")
    text = data.split(b"\0")[0].strip()
    if not re.fullmatch(b"[0-7]*", text):
        raise BadContent("a layer has a sparse file whose header cannot be read")
    return int(text or b"0", 8)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < _MAX_NUMBER):
        raise BadContent(f"a layer has a sparse file with {text[:40]!r} where a number is expected")
    return int(text)


def _listed(read: Callable[[int], bytes]) -> list[int]:
    """The numbers of version 1.0: in blocks before the content, one per line; the number of parts, then the parts."""
    lines: list[int] = []
    rest, wanted = b"", 1
    while len(lines) < wanted:
        *whole, rest = (rest + read(BLOCK)).split(b"\n")
        lines += [_number(line.decode("ascii", "replace")) for line in whole]
        if len(rest) > BLOCK:
            raise BadContent("a layer has a sparse file whose list of parts cannot be read")
        if lines:
            wanted = 1 + 2 * min(lines[0], _MAX_PARTS + 1)
    return lines[1:wanted]


def _checked(numbers: Iterable[int], size: int) -> Sparse:
    """Make the layout, after checking that the parts ascend, do not overlap and lie within the file."""
    numbers = list(numbers)
    if len(numbers) % 2:
        raise BadContent("a layer has a sparse file with an offset that has no length")
    if len(numbers) > 2 * _MAX_PARTS:
        raise BadContent(f"a layer has a sparse file of more than {_MAX_PARTS} parts")
    parts = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in parts:
        if offset < end or length < 0 or offset + length > size:
            raise BadContent("a layer has a sparse file whose parts overlap or lead out of it")
        end = offset + length
    return Sparse(parts, size)
