"""Converts arguments and results of a component's calls: from the engine's form to Python (`lift`), and back (`lower`).

`lift` and `lower` (both words are the component model's) take a type, once, and return a function that converts values
of this type. wasmtime's own converters look at the type again for each value, which takes ten times as long.

In Python the values are:

    numbers, bool, char, string, list    as in Python; list<u8> is bytes
    record, tuple                        a tuple, in the order of the type
    variant                              a tuple of the name of its case, and the payload or None
    enum                                 its name
    flags                                a frozenset of names
    option                               the value, or None
    result                               a tuple: whether it is ok, and the value or the error (see `world`)
    own, borrow                          the object itself, from the resources of an instance (`instances`)

In the engine's form (`wasmtime_component_val_t` of its C API) a value has 32 bytes: its kind, and from byte 8 on its
content, which may be a pointer.

Who frees what: the engine frees the memory that a lowered value points to, and the arguments of a call that it makes.
`_number_of` makes a handle of a resource to find out the resource's number, and frees that handle itself.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ctypes import string_at
from typing import Any

from wasmtime import _bindings as bindings
from wasmtime import _ffi as ffi
from wasmtime.component import _types as types

from .. import direct

SIZE = 32
"""Bytes of a value in the engine's form."""
_AT = 8
"""Where its content begins; before that is its kind."""
_ENTRY, _NAME = 48, 16
"""Bytes of a record's field in the engine's form, and of the name with which the field begins."""
_VALUE = bindings.wasmtime_component_val_t
assert (ctypes.sizeof(_VALUE), _VALUE.of.offset) == (SIZE, _AT)
assert ctypes.sizeof(bindings.wasmtime_component_valrecord_entry_t) == _ENTRY

_POINTER, _LENGTH, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_held = ctypes.PyDLL(ffi.dll._name)
"""The C library, for calls that hold Python's lock (GIL): each is so short that releasing it would take longer."""


def held(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the C API that is very short, so it is called with Python's lock held."""
    found = _held[name]
    found.restype, found.argtypes = result, arguments
    return found


_any_to_host = held("wasmtime_component_resource_any_to_host", _POINTER, _POINTER, _POINTER, _POINTER)
_host_rep = held("wasmtime_component_resource_host_rep", ctypes.c_uint32, _POINTER)
_host_delete = held("wasmtime_component_resource_host_delete", None, _POINTER)
_host_new = held("wasmtime_component_resource_host_new", _POINTER, ctypes.c_bool, ctypes.c_uint32, ctypes.c_uint32)
_host_to_any = held("wasmtime_component_resource_host_to_any", _POINTER, _POINTER, _POINTER, _POINTER)
_value_new = held("wasmtime_component_val_new", _POINTER, _TEXT)
_list_new = held("wasmtime_component_vallist_new", None, _POINTER, _LENGTH, _TEXT)
_tuple_new = held("wasmtime_component_valtuple_new", None, _POINTER, _LENGTH, _TEXT)
_record_new = held("wasmtime_component_valrecord_new", None, _POINTER, _LENGTH, _TEXT)
_flags_new = held("wasmtime_component_valflags_new", None, _POINTER, _LENGTH, _TEXT)
_bytes_new = held("wasm_byte_vec_new", None, _POINTER, _LENGTH, _TEXT)

_Scratch = ctypes.c_char * 16
"""Room for a pointer, or a length and a pointer. Each use has its own, since threads may switch after any call."""

_two = struct.Struct("<QQ").unpack_from
_one = struct.Struct("<Q").unpack_from
_pack_one = struct.Struct("<QQ16x").pack
_pack_pair = struct.Struct("<Q16s8x").pack
_pack_variant = struct.Struct("<Q16sQ").pack
_pack_result = struct.Struct("<QB7xQ8x").pack

Lift = Callable[[Any, bytes, int], Any]
"""Takes an instance, bytes, and the place of the value in them. Returns the value in Python."""
Lower = Callable[[Any, Any], bytes]
"""Takes an instance and a value of Python. Returns the 32 bytes of the engine's form."""

_NUMBERS = {
    types.S8: (1, "b"), types.U8: (2, "B"), types.S16: (3, "h"), types.U16: (4, "H"), types.S32: (5, "i"),
    types.U32: (6, "I"), types.S64: (7, "q"), types.U64: (8, "Q"), types.F32: (9, "f"), types.F64: (10, "d"),
}  # fmt: skip
# The engine's numbers of the other kinds.
_BOOL, _U8, _CHAR, _STRING, _LIST, _RECORD, _TUPLE, _VARIANT = 0, 2, 11, 12, 13, 14, 15, 16
_ENUM, _OPTION, _RESULT, _FLAGS, _RESOURCE = 17, 18, 19, 20, 21


def check(error: int | None) -> None:
    """Raise the error that a call of the engine has returned; 0 or None is no error."""
    if error:
        direct.check(error)


def lift(kind: Any) -> Lift:
    """Make the converter from the engine to Python for values of this type.

    Raises:
        TypeError: there is no such type in WASI 0.2.
    """
    if type(kind) in _NUMBERS:
        unpack = struct.Struct("<" + _NUMBERS[type(kind)][1]).unpack_from
        return lambda instance, data, at: unpack(data, at + _AT)[0]
    found = _LIFTS.get(type(kind))
    if found is None:
        raise TypeError(f"a value of type {type(kind).__name__} is not of WASI 0.2")
    return found(kind)


def _lift_bool(kind: Any) -> Lift:
    return lambda instance, data, at: data[at + _AT] != 0


def _lift_char(kind: Any) -> Lift:
    unpack = struct.Struct("<I").unpack_from
    return lambda instance, data, at: chr(unpack(data, at + _AT)[0])


def _text(data: bytes, at: int) -> str:
    size, pointer = _two(data, at)
    return string_at(pointer, size).decode() if size else ""


def _lift_string(kind: Any) -> Lift:
    return lambda instance, data, at: _text(data, at + _AT)


def _lift_list(kind: Any) -> Lift:
    if type(kind.element) is types.U8:

        def lift_bytes(instance: Any, data: bytes, at: int) -> bytes:
            size, pointer = _two(data, at + _AT)
            return string_at(pointer, size * SIZE)[_AT::SIZE] if size else b""

        return lift_bytes
    element = lift(kind.element)

    def lift_list(instance: Any, data: bytes, at: int) -> list[Any]:
        size, pointer = _two(data, at + _AT)
        inner = string_at(pointer, size * SIZE) if size else b""
        return [element(instance, inner, place) for place in range(0, size * SIZE, SIZE)]

    return lift_list


def _lift_tuple(kind: Any) -> Lift:
    elements = [(lift(element), index * SIZE) for index, element in enumerate(kind.elements)]

    def lift_tuple(instance: Any, data: bytes, at: int) -> tuple[Any, ...]:
        size, pointer = _two(data, at + _AT)
        inner = string_at(pointer, size * SIZE) if size else b""
        return tuple([element(instance, inner, place) for element, place in elements])

    return lift_tuple


def _lift_record(kind: Any) -> Lift:
    fields = [(lift(field), index * _ENTRY + _NAME) for index, (_, field) in enumerate(kind.fields)]

    def lift_record(instance: Any, data: bytes, at: int) -> tuple[Any, ...]:
        size, pointer = _two(data, at + _AT)
        inner = string_at(pointer, size * _ENTRY) if size else b""
        return tuple([field(instance, inner, place) for field, place in fields])

    return lift_record


def _lift_variant(kind: Any) -> Lift:
    cases = {name: payload and lift(payload) for name, payload in kind.cases}

    def lift_variant(instance: Any, data: bytes, at: int) -> tuple[str, Any]:
        name = _text(data, at + _AT)
        payload = cases[name]
        return name, payload(instance, string_at(_one(data, at + 24)[0], SIZE), 0) if payload else None

    return lift_variant


def _lift_option(kind: Any) -> Lift:
    payload = lift(kind.payload)

    def lift_option(instance: Any, data: bytes, at: int) -> Any:
        (pointer,) = _one(data, at + _AT)
        return payload(instance, string_at(pointer, SIZE), 0) if pointer else None

    return lift_option


def _lift_result(kind: Any) -> Lift:
    good, bad = kind.ok and lift(kind.ok), kind.err and lift(kind.err)

    def lift_result(instance: Any, data: bytes, at: int) -> tuple[bool, Any]:
        is_good = data[at + _AT] != 0
        payload = good if is_good else bad
        (pointer,) = _one(data, at + 16)
        return is_good, payload(instance, string_at(pointer, SIZE), 0) if payload else None

    return lift_result


def _lift_flags(kind: Any) -> Lift:
    def lift_flags(instance: Any, data: bytes, at: int) -> frozenset[str]:
        size, pointer = _two(data, at + _AT)
        inner = string_at(pointer, size * _NAME) if size else b""
        return frozenset(_text(inner, place) for place in range(0, size * _NAME, _NAME))

    return lift_flags


def _number_of(instance: Any, data: bytes, at: int) -> int:
    """The number of a resource in the instance, from a handle of it."""
    scratch = _Scratch()
    check(_any_to_host(instance.context, _one(data, at + _AT)[0], scratch))
    (host,) = _one(scratch, 0)
    number = _host_rep(host)
    _host_delete(host)
    return int(number)


def _lift_own(kind: Any) -> Lift:
    return lambda instance, data, at: instance.take(_number_of(instance, data, at))


def _lift_borrow(kind: Any) -> Lift:
    return lambda instance, data, at: instance.resources[_number_of(instance, data, at)]


_LIFTS: dict[Any, Callable[[Any], Lift]] = {
    types.Bool: _lift_bool, types.Char: _lift_char, types.String: _lift_string, types.ListType: _lift_list,
    types.TupleType: _lift_tuple, types.RecordType: _lift_record, types.VariantType: _lift_variant,
    types.EnumType: _lift_string, types.OptionType: _lift_option, types.ResultType: _lift_result,
    types.FlagsType: _lift_flags, types.OwnType: _lift_own, types.BorrowType: _lift_borrow,
}  # fmt: skip


def lower(kind: Any) -> Lower:
    """Make the converter from Python to the engine for values of this type.

    Raises:
        TypeError: there is no such type in WASI 0.2.
    """
    if type(kind) in _NUMBERS:
        number, letter = _NUMBERS[type(kind)]
        pack = struct.Struct(f"<Q{letter}").pack
        return lambda instance, value: pack(number, value).ljust(SIZE, b"\0")
    found = _LOWERS.get(type(kind))
    if found is None:
        raise TypeError(f"a value of type {type(kind).__name__} is not of WASI 0.2")
    return found(kind)


def _name(text: str) -> bytes:
    """A name in memory of its own: its length and pointer."""
    encoded = text.encode()
    scratch = _Scratch()
    _bytes_new(scratch, len(encoded), encoded)
    return scratch.raw


def _lower_bool(kind: Any) -> Lower:
    return lambda instance, value: _pack_one(_BOOL, 1 if value else 0)


def _lower_char(kind: Any) -> Lower:
    return lambda instance, value: _pack_one(_CHAR, ord(value))


def _lower_string(kind: Any) -> Lower:
    return lambda instance, value: _pack_pair(_STRING, _name(value))


def _lower_enum(kind: Any) -> Lower:
    return lambda instance, value: _pack_pair(_ENUM, _name(value))


def _lower_list(kind: Any) -> Lower:
    if type(kind.element) is types.U8:

        def lower_bytes(instance: Any, value: Any) -> bytes:
            size = len(value)
            inner = bytearray(size * SIZE)
            inner[0::SIZE] = b"\x02" * size
            inner[_AT::SIZE] = value
            scratch = _Scratch()
            _list_new(scratch, size, bytes(inner))
            return _pack_pair(_LIST, scratch.raw)

        return lower_bytes
    element = lower(kind.element)

    def lower_list(instance: Any, value: Any) -> bytes:
        inner = b"".join([element(instance, one) for one in value])
        scratch = _Scratch()
        _list_new(scratch, len(value), inner)
        return _pack_pair(_LIST, scratch.raw)

    return lower_list


def _lower_tuple(kind: Any) -> Lower:
    elements = [lower(element) for element in kind.elements]

    def lower_tuple(instance: Any, value: Any) -> bytes:
        inner = b"".join([element(instance, one) for element, one in zip(elements, value)])  # noqa: B905 - Python 3.10
        scratch = _Scratch()
        _tuple_new(scratch, len(elements), inner)
        return _pack_pair(_TUPLE, scratch.raw)

    return lower_tuple


def _lower_record(kind: Any) -> Lower:
    fields = [(name, lower(field)) for name, field in kind.fields]

    def lower_record(instance: Any, value: Any) -> bytes:
        parts = []
        for (name, field), one in zip(fields, value):  # noqa: B905 - Python 3.10
            lowered = field(instance, one)
            parts.append(_name(name) + lowered)
        scratch = _Scratch()
        _record_new(scratch, len(fields), b"".join(parts))
        return _pack_pair(_RECORD, scratch.raw)

    return lower_record


def _lower_variant(kind: Any) -> Lower:
    cases = {name: payload and lower(payload) for name, payload in kind.cases}

    def lower_variant(instance: Any, value: Any) -> bytes:
        name, content = value
        payload = cases[name]
        pointer = _value_new(payload(instance, content)) if payload else 0
        return _pack_variant(_VARIANT, _name(name), pointer)

    return lower_variant


def _lower_option(kind: Any) -> Lower:
    payload = lower(kind.payload)

    def lower_option(instance: Any, value: Any) -> bytes:
        return _pack_one(_OPTION, 0 if value is None else _value_new(payload(instance, value)))

    return lower_option


def _lower_result(kind: Any) -> Lower:
    good, bad = kind.ok and lower(kind.ok), kind.err and lower(kind.err)

    def lower_result(instance: Any, value: Any) -> bytes:
        is_good, content = value
        payload = good if is_good else bad
        return _pack_result(_RESULT, is_good, _value_new(payload(instance, content)) if payload else 0)

    return lower_result


def _lower_flags(kind: Any) -> Lower:
    def lower_flags(instance: Any, value: Any) -> bytes:
        scratch = _Scratch()
        _flags_new(scratch, len(value), b"".join([_name(name) for name in value]))
        return _pack_pair(_FLAGS, scratch.raw)

    return lower_flags


def _lower_own(kind: Any) -> Lower:
    return lambda instance, value: lower_resource(instance, value)


def lower_resource(instance: Any, value: Any) -> bytes:
    """A new handle for the guest, which owns this object from now on."""
    host = _host_new(True, instance.add(value), value.number)
    scratch = _Scratch()
    error = _host_to_any(instance.context, host, scratch)
    _host_delete(host)
    check(error)
    return _pack_one(_RESOURCE, _one(scratch, 0)[0])


_LOWERS: dict[Any, Callable[[Any], Lower]] = {
    types.Bool: _lower_bool, types.Char: _lower_char, types.String: _lower_string, types.ListType: _lower_list,
    types.TupleType: _lower_tuple, types.RecordType: _lower_record, types.VariantType: _lower_variant,
    types.EnumType: _lower_enum, types.OptionType: _lower_option, types.ResultType: _lower_result,
    types.FlagsType: _lower_flags, types.OwnType: _lower_own,
}  # fmt: skip
