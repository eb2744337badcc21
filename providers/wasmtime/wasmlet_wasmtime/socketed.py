"""Makes instances of guests that have sockets, by way of the two modules of `split`.

`wanted` says whether a module is such a guest, `network` makes its sockets and asks the broker for its listeners, and
`instantiate` makes its instance.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import wasmtime
from wasmtime import _ffi as ffi

from . import direct, hostcalls, split
from .functions import HTTP, HTTP_MODULE, SECOND, WASMEDGE, of_http, second
from .seam import Broker
from .sockets import STREAM, Network, Socket

_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_function = direct.function
_get = _function("wasmtime_linker_get", ctypes.c_bool, *[_POINTER] * 2, _TEXT, _SIZE, _TEXT, _SIZE, _POINTER)
_define_function = _function(
    "wasmtime_linker_define_func_unchecked", _POINTER, _POINTER, _TEXT, _SIZE, _TEXT, _SIZE, *[_POINTER] * 4
)
_instantiate = _function("wasmtime_instance_new", *[_POINTER] * 4, _SIZE, *[_POINTER] * 2)
_export = _function("wasmtime_instance_export_get", ctypes.c_bool, _POINTER, _POINTER, _TEXT, _SIZE, _POINTER)
_call = _function("wasmtime_func_call_unchecked", *[_POINTER] * 4, _SIZE, _POINTER)
_memory_data = _function("wasmtime_memory_data", _POINTER, _POINTER, _POINTER)
_memory_size = _function("wasmtime_memory_data_size", _SIZE, _POINTER, _POINTER)
_error_delete = _function("wasmtime_error_delete", None, _POINTER)
_trap_delete = _function("wasm_trap_delete", None, _POINTER)
_imports = _function("wasmtime_module_imports", None, _POINTER, _POINTER)
_imports_delete = _function("wasm_importtype_vec_delete", None, _POINTER)
_import_module = _function("wasm_importtype_module", _POINTER, _POINTER)
_import_name = _function("wasm_importtype_name", _POINTER, _POINTER)
_import_type = _function("wasm_importtype_type", _POINTER, _POINTER)
_as_function = _function("wasm_externtype_as_functype_const", _POINTER, _POINTER)
_params = _function("wasm_functype_params", _POINTER, _POINTER)

_WASI, _HTTP, _SOCKETS = split.WASI.encode(), HTTP_MODULE.encode(), b"sock_"
_MEMORY = ffi.WASMTIME_EXTERN_MEMORY.value
_ITEM, _ITEM_SIZE = ffi.wasmtime_extern_t.of.offset, ctypes.sizeof(ffi.wasmtime_extern_t)
_FIRST_LISTENER = 3
TABLES = 1
"""How many tables such a guest's store has in addition to the guest's own: the one of `shim`."""
_UNKNOWN, _TERMINAL = 0, 2
"""WASI's file types of a standard input."""
_INSTANCES = (b"guest", b"shim")
_NOTHING_YET = "uninitialized element"
"""Words in wasmtime's trap when the guest calls `shim` before `fixup` has filled its table."""
_IN_START = "the module uses WASI in its start function, where one with sockets cannot: have it do so in _start"


class Links(NamedTuple):
    """What all guests of an engine are linked with, as pointers.

    Attributes:
        linker: has all of WASI, and the host's function. It is not changed, so that threads may share it.
        shim, fixup: the two modules.
        engine: for which they are compiled.
    """

    linker: int
    shim: int
    fixup: int
    engine: int


def links(engine: int, linker: int, compiled: Sequence[bytes]) -> Links:
    """Load the two modules, once for an engine, and give `linker` what they import of the host.

    Args:
        compiled: the two modules, compiled.
    """
    define(linker)
    shim, fixup = (direct.loaded(engine, one) for one in compiled)
    return Links(linker, shim, fixup, engine)


def define(linker: int) -> None:
    """Give a linker what the two modules import of the host."""
    _define_host(linker, b"net", b"call", split.PARAMETERS, hostcalls.call)


def _define_host(linker: int, module: bytes, name: bytes, params: int, function: Any) -> None:
    i32 = wasmtime.ValType.i32
    kind = wasmtime.FuncType([i32() for _ in range(params)], [i32()])
    code = ctypes.cast(function, _POINTER)
    error = _define_function(linker, module, len(module), name, len(name), direct.pointer(kind), code, None, None)
    direct.check(error)


class _Vector(ctypes.Structure):
    """A vector of the C API, whatever it has in it."""

    _fields_ = (("size", _SIZE), ("data", _POINTER))


class Import(NamedTuple):
    """What a module imports.

    Attributes:
        params: how many parameters it has; 0 where that does not matter.
    """

    module: bytes
    name: bytes
    params: int = 0

    @property
    def second(self) -> bool:
        """Whether it is a function of sockets under its second type."""
        params = SECOND.get(self.name.decode())
        return self.module == _WASI and params is not None and self.params == len(params)

    @property
    def ours(self) -> bytes:
        """What it is called in `shim`, where that has it; b"" for what is the engine's in any case."""
        if self.module == _HTTP:
            return of_http(self.name.decode()).encode()
        if self.module != _WASI:
            return b""
        return second(self.name.decode()).encode() if self.second else self.name


_FIXUP = [Import(module.encode(), name.encode()) for module, name in split.fixup_imports()]


def imported(module: int) -> list[Import]:
    """What a module imports, in its order."""
    found, vector = [], _Vector()
    _imports(module, ctypes.addressof(vector))
    size = ctypes.sizeof(_POINTER)
    for place in range(vector.size):
        item = _POINTER.from_address(vector.data + place * size).value
        origin, name = _bytes(_import_module(item)), _bytes(_import_name(item))
        params = 0
        if name.startswith(_SOCKETS) and origin == _WASI and (function := _as_function(_import_type(item))):
            params = int(_Vector.from_address(_params(function)).size)
        found.append(Import(origin, name, params))
    _imports_delete(ctypes.addressof(vector))
    return found


def _bytes(address: int) -> bytes:
    vector = _Vector.from_address(address)
    return ctypes.string_at(vector.data, vector.size)


class Wanted(NamedTuple):
    """What a module wants of sockets.

    Attributes:
        accepts: it imports `sock_accept`, so it can have listeners.
        opens: it imports `sock_open`, so it can open sockets.
        http: it imports functions of `HTTP`.
        imports: all that it imports, in its order.
    """

    accepts: bool
    opens: bool
    http: bool
    imports: tuple[Import, ...]

    @property
    def seconds(self) -> list[str]:
        """The functions that it imports under their second types."""
        return [one.name.decode() for one in self.imports if one.second]

    def listeners(self, broker: Broker | None) -> Sequence[Any]:
        """The ports of the listeners that the guest is given at its start."""
        return broker.listeners if broker is not None and self.accepts else ()

    def any(self, broker: Broker | None) -> bool:
        """Whether the guest needs a network."""
        return broker is not None and (self.opens or self.http or bool(self.listeners(broker)))


def wanted(module: int) -> Wanted:
    """What a compiled module imports."""
    imports = tuple(imported(module))
    names = {one.name for one in imports if one.module == _WASI}
    accepts, opens = (bool({name, name + b"_v2"} & names) for name in (b"sock_accept", b"sock_open"))
    return Wanted(accepts, opens, any(one.module == _HTTP for one in imports), imports)


def network(broker: Broker, wants: Wanted, wake: int = -1) -> Network:
    """The network of a guest, with its listeners, which it asks the broker for.

    Args:
        broker: `spec["sockets"]`.
        wake: see `Network`; without one the process's standard input is the guest's, and may keep it waiting.

    Raises:
        ValueError: it cannot have a listener; the message says which one, and why.
        Interrupted: it is to end.
    """
    made = Network(broker, wake)
    broker.wait = made.wait_for_broker
    if ports := wants.listeners(broker):
        for number, (port, fds) in enumerate(zip(ports, broker.open_listeners()), _FIRST_LISTENER):  # noqa: B905
            made.sockets[number] = listener = Socket(STREAM, fds, port.number, nonblocking=True)
            listener.patient = True
    if wake < 0:
        made.sockets[0] = Socket(_TERMINAL if os.isatty(0) else _UNKNOWN, (0,))
    return made


def define_absent(linker: int) -> None:
    """Define the functions that the engine does not have: they answer that there is no network."""
    _define_absent(linker, WASMEDGE)
    for name, params in HTTP.items():
        absent = hostcalls.absent_req if name == "req" else hostcalls.absent_response
        _define_host(linker, _HTTP, name.encode(), len(params), absent)


def define_seconds(linker: int, seconds: Iterable[str]) -> None:
    """Define these functions with their second types: they answer that there is no network."""
    _define_absent(linker, {name: SECOND[name] for name in seconds})


def _define_absent(linker: int, functions: Mapping[str, str]) -> None:
    for name, params in functions.items():
        _define_host(linker, _WASI, name.encode(), len(params), hostcalls.absent)


def instantiate(links: Links, context: int, module: int, wants: Wanted, made: Network, instance: int) -> None:
    """Make the guest's instance, and what is between it and WASI; its start function runs, if it has one.

    What each of the three imports is put together one by one: a linker of the guest's own, as a copy of the one that
    has all of WASI, would take 400 KiB.

    Args:
        wants: of the module.
        instance: address of where the instance goes.

    Raises:
        ValueError: a module of this kind cannot have sockets.
        wasmtime.Trap: in its start function.
        wasmtime.WasmtimeError: it cannot be made.
    """
    shim, fixup, item = ffi.wasmtime_instance_t(), ffi.wasmtime_instance_t(), ffi.wasmtime_extern_t()
    at_shim, at_item = ctypes.addressof(shim), ctypes.addressof(item)
    _make(context, links.shim, b"", at_shim)

    def of_guest(one: Import) -> bool:
        name = one.ours
        if name and _export(context, at_shim, name, len(name), at_item):
            return True
        return bool(_get(links.linker, context, one.module, len(one.module), one.name, len(one.name), at_item))

    try:
        _make(context, module, _externs(wants.imports, of_guest, item), instance)
    except wasmtime.Trap as error:
        if _NOTHING_YET in str(error):
            raise ValueError(_IN_START) from None
        raise
    if not _export(context, instance, b"memory", 6, at_item) or item.kind != _MEMORY:
        raise ValueError("the module exports no memory; expected one of the name memory, which WASI works on")
    memory = ffi.wasmtime_extern_t.from_buffer_copy(item)
    at_memory = ctypes.addressof(memory) + _ITEM
    made.attach(lambda: (_memory_data(context, at_memory), _memory_size(context, at_memory)), memory)

    def of_fixup(one: Import) -> bool:
        origin, name = one[:2]
        if origin in _INSTANCES:
            return bool(_export(context, instance if origin == b"guest" else at_shim, name, len(name), at_item))
        return bool(_get(links.linker, context, origin, len(origin), name, len(name), at_item))

    try:
        _make(context, links.fixup, _externs(_FIXUP, of_fixup, item), ctypes.addressof(fixup))
    except wasmtime.WasmtimeError as error:
        raise ValueError(f"a module that has sockets needs a memory of 32 bits: {error}") from None
    made.native_poll, made.native_now = (_native(context, fixup, name) for name in (b"poll", b"now"))


def _externs(imports: Iterable[Import], find: Callable[[Import], bool], item: Any) -> bytes:
    """The imports in the form of the C API, one behind the other. `find` puts each one into `item`."""
    found = bytearray()
    for one in imports:
        if not find(one):
            raise ValueError(f"the module imports what does not exist here: {one.name.decode(errors='replace')[:80]}")
        found += item
    return bytes(found)


def _make(context: int, module: int, externs: bytes, instance: int) -> None:
    trap, given = _POINTER(), ctypes.create_string_buffer(externs, max(1, len(externs)))
    count = len(externs) // _ITEM_SIZE
    direct.check(_instantiate(context, module, ctypes.addressof(given), count, instance, ctypes.addressof(trap)))
    direct.check_trap(trap)


def _native(context: int, fixup: Any, name: bytes) -> Any:
    """A Python function that calls one of the engine's own WASI functions, through an export of `fixup`."""
    item = ffi.wasmtime_extern_t()
    _export(context, ctypes.addressof(fixup), name, len(name), ctypes.addressof(item))

    def native(*arguments: int) -> int:
        values, trap = (ctypes.c_uint32 * 16)(), _POINTER()
        for place, argument in enumerate(arguments):
            values[place * 4] = argument
        error = _call(context, ctypes.addressof(item) + _ITEM, ctypes.addressof(values), 4, ctypes.addressof(trap))
        if error:
            _error_delete(error)
        if trap:
            _trap_delete(trap)
        return 29 if error or trap else int(values[0])

    return native
