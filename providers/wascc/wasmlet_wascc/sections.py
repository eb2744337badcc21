"""Finds, removes and appends the custom section of a module that holds its claims (`jwt`)."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from wasmlet.artifacts.wasm_reader import NotWasm, Reader

SECTION = "jwt"
_HEADER = 8
_MOST_SECTIONS = 10_000


@attrs.frozen
class Found:
    """Where a section `jwt` is.

    Attributes:
        start, end: the whole section, together with the number and the size that it begins with.
        body: where the token begins; the token goes up to `end`.
    """

    start: int
    body: int
    end: int


def tokens(wasm: bytes | memoryview) -> list[Found]:
    """All sections `jwt` of a module.

    Raises:
        NotWasm: it is damaged.
    """
    return list(_sections(wasm))


def without(wasm: bytes, sections: list[Found]) -> bytes:
    """The module as it was before it was signed."""
    kept, position = [], 0
    for found in sections:
        kept.append(wasm[position : found.start])
        position = found.end
    return b"".join([*kept, wasm[position:]])


def appended(wasm: bytes, token: bytes) -> bytes:
    """The module with a section `jwt` at its end."""
    name = SECTION.encode()
    content = _leb(len(name)) + name + token
    return wasm + b"\0" + _leb(len(content)) + content


def _sections(wasm: bytes | memoryview) -> Iterator[Found]:
    reader = Reader(wasm, _HEADER, len(wasm))
    for _ in range(_MOST_SECTIONS):
        if reader.position >= reader.end:
            return
        start = reader.position
        number, size = reader.byte(), reader.u32()
        if size > reader.end - reader.position:
            raise NotWasm(f"damaged at byte {start}: a section of {size} bytes has {reader.end - reader.position}")
        end = reader.position + size
        if number == 0:
            part = Reader(wasm, reader.position, end)
            if part.name() == SECTION:
                yield Found(start, part.position, end)
        reader.position = end
    raise NotWasm(f"it has more than {_MOST_SECTIONS} sections")


def _leb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)
