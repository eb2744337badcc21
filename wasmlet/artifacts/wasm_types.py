"""Reads types in WebAssembly's binary format: those of functions, and those of the interfaces that components import.

`wasm` uses these functions. This module does not know the types of all proposals (extensions of WebAssembly). After a
type that it does not know, it cannot read the types that follow.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.wasm_reader import Reader

_VALUES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref", 0x6F: "externref"}
_LONG = (0x63, 0x64)
"""The codes of reference types after which the referenced type follows."""
_FUNCTION, _STRUCT, _ARRAY, _SUB, _SUB_FINAL, _GROUP = 0x60, 0x5F, 0x5E, 0x50, 0x4F, 0x4E

Interface = Mapping[str, str]
"""The exports of an instance: the kind (`function`, `type`, `resource`, ...) of each, by its name."""


class UnknownType(Exception):
    """A type of a proposal that is not known here."""


@attrs.frozen
class Signature:
    """The parameter and result types of a core function, as in the text format (`i32`)."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"


def core_types(part: Reader) -> list[Signature | None]:
    """Read a module's type section, up to the first unknown type: by index, None for a type that is no function's."""
    found: list[Signature | None] = []
    try:
        for _ in range(part.count()):
            form = part.byte()
            for _ in range(part.count() if form == _GROUP else 1):
                found.append(_subtype(part, part.byte() if form == _GROUP else form))
    except (UnknownType, BadContent):
        pass
    return found


def indices(content: bytes) -> list[int]:
    """Read a vector of plain numbers: a module's function section, which has the type index of each function."""
    found, value, shift = [], 0, 0
    for byte in content:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            value = shift = 0
    return found[1:]


def _subtype(part: Reader, form: int) -> Signature | None:
    if form in (_SUB, _SUB_FINAL):
        for _ in range(part.count()):
            part.u32()
        form = part.byte()
    if form == _FUNCTION:
        return Signature(_values(part), _values(part))
    if form not in (_STRUCT, _ARRAY):
        raise UnknownType(f"{form:#x}")
    for _ in range(part.count() if form == _STRUCT else 1):
        if part.byte() in _LONG:
            part.s33()
        part.byte()  # whether it can be changed
    return None


def _values(part: Reader) -> tuple[str, ...]:
    count = part.count()
    short = part.peek(count)
    if not any(long in short for long in _LONG):
        part.take(count)
        return tuple([_VALUES.get(byte, f"type {byte:#x}") for byte in short])
    found = []
    for _ in range(count):
        byte = part.byte()
        if byte in _LONG:
            part.s33()
        found.append(_VALUES.get(byte, f"type {byte:#x}"))
    return tuple(found)


def component_types(part: Reader) -> list[Interface | None]:
    """Read a component's type section; None for each type that is not an instance's.

    Raises:
        UnknownType: see there.
    """
    return [_definition(part, 0) for _ in range(part.count())]


def aliases(part: Reader) -> list[Interface | None]:
    """Read a component's alias section: None for each alias that adds a type to the index of types.

    Raises:
        UnknownType: see there.
    """
    return [None for _ in range(part.count()) if _is_type(part)]


def _is_type(part: Reader) -> bool:
    """Read one alias; returns whether it is an alias of a type."""
    sort = part.byte()
    core = part.byte() if sort == 0x00 else None
    target = part.byte()
    part.u32()
    if target in (0x00, 0x01):
        part.name()
    elif target == 0x02:
        part.u32()
    else:
        raise UnknownType(f"{target:#x}")
    return sort == 0x03 and core is None


_NEW_RESOURCE = b"\x03\x01"
_DEEPEST = 20
_COMPOSED = {0x72, 0x71, 0x70, 0x6F, 0x6E, 0x6D, 0x6B, 0x6A, 0x69, 0x68, 0x66, 0x65}
_RECORD, _VARIANT, _LIST, _TUPLE, _FLAGS, _ENUM, _OPTION, _RESULT = 0x72, 0x71, 0x70, 0x6F, 0x6E, 0x6D, 0x6B, 0x6A
_OWN, _BORROW, _STREAM, _FUTURE = 0x69, 0x68, 0x66, 0x65
_RESOURCE, _FUNCTIONS, _COMPONENT_TYPE, _INSTANCE_TYPE = 0x3F, (0x40, 0x43), 0x41, 0x42


def _definition(part: Reader, depth: int) -> Interface | None:
    form = part.byte()
    if form == _INSTANCE_TYPE:
        return _declarations(part, depth + 1)
    if form == _COMPONENT_TYPE:
        _declarations(part, depth + 1)
    elif form in _FUNCTIONS:
        _fields(part)
        if part.byte() == 0x00:
            part.s33()
        else:
            part.byte()
    elif form == _RESOURCE:
        part.byte()
        if part.byte():
            part.u32()
    elif form in _COMPOSED:
        _composed(part, form)
    elif not (0x73 <= form <= 0x7F or form == 0x64):
        raise UnknownType(f"{form:#x}")
    return None


def _composed(part: Reader, form: int) -> None:
    if form == _RECORD:
        _fields(part)
    elif form == _VARIANT:
        for _ in range(part.count()):
            part.name()
            _optional(part)
            part.byte()
    elif form in (_FLAGS, _ENUM):
        for _ in range(part.count()):
            part.name()
    elif form == _TUPLE:
        for _ in range(part.count()):
            part.s33()
    elif form == _RESULT:
        _optional(part)
        _optional(part)
    elif form in (_OWN, _BORROW):
        part.u32()
    elif form in (_STREAM, _FUTURE):
        _optional(part)
    else:  # a list or an option
        part.s33()


def _fields(part: Reader) -> None:
    for _ in range(part.count()):
        part.name()
        part.s33()


def _optional(part: Reader) -> None:
    if part.byte():
        part.s33()


def _declarations(part: Reader, depth: int) -> Interface:
    """Read the declarations in the type of an instance or a component; returns its exports."""
    if depth > _DEEPEST:
        raise UnknownType("types within types")
    exports: dict[str, str] = {}
    for _ in range(part.count()):
        what = part.byte()
        if what == 0x00:
            raise UnknownType("a core type")
        if what == 0x01:
            _definition(part, depth)
        elif what == 0x02:
            _is_type(part)
        elif what in (0x03, 0x04):
            name, is_resource = part.extern_name(), part.peek(2) == _NEW_RESOURCE
            kind, _ = part.description()
            if what == 0x04:
                exports[name] = "resource" if is_resource else kind
        else:
            raise UnknownType(f"{what:#x}")
    return exports
