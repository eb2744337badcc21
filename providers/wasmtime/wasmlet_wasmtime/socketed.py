"""Guests that have sockets: what they import is linked by way of the two modules of `split`, compiled once.

`wanted` says whether a module makes such a guest, `network` asks for its listeners, `instantiate` makes its instance.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import wasmtime
from wasmtime import _ffi as ffi

from . import direct, hostcalls, split
from .functions import HTTP, HTTP_MODULE, SECOND, WASMEDGE, of_http, second
from .seam import Broker
from .sockets import STREAM, Network, Socket

_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_function = direct.function
_clone = _function("wasmtime_linker_clone", _POINTER, _POINTER)
_delete = _function("wasmtime_linker_delete", None, _POINTER)
_define = _function("wasmtime_linker_define", _POINTER, _POINTER, _POINTER, _TEXT, _SIZE, _TEXT, _SIZE, _POINTER)
_define_instance = _function("wasmtime_linker_define_instance", _POINTER, _POINTER, _POINTER, _TEXT, _SIZE, _POINTER)
_define_function = _function(
    "wasmtime_linker_define_func_unchecked", _POINTER, _POINTER, _TEXT, _SIZE, _TEXT, _SIZE, *[_POINTER] * 4
)
_instantiate = _function("wasmtime_linker_instantiate", *[_POINTER] * 6)
_export = _function("wasmtime_instance_export_get", ctypes.c_bool, _POINTER, _POINTER, _TEXT, _SIZE, _POINTER)
_call = _function("wasmtime_func_call_unchecked", *[_POINTER] * 4, _SIZE, _POINTER)
_memory_data = _function("wasmtime_memory_data", _POINTER, _POINTER, _POINTER)
_memory_size = _function("wasmtime_memory_data_size", _SIZE, _POINTER, _POINTER)
_error_delete = _function("wasmtime_error_delete", None, _POINTER)
_trap_delete = _function("wasm_trap_delete", None, _POINTER)
_imports = _function("wasmtime_module_imports", None, _POINTER, _POINTER)
_imports_delete = _function("wasm_importtype_vec_delete", None, _POINTER)
_import_module = _function("wasm_importtype_module", ctypes.POINTER(ffi.wasm_byte_vec_t), _POINTER)
_import_name = _function("wasm_importtype_name", ctypes.POINTER(ffi.wasm_byte_vec_t), _POINTER)
_import_type = _function("wasm_importtype_type", _POINTER, _POINTER)
_as_function = _function("wasm_externtype_as_functype_const", _POINTER, _POINTER)
_params = _function("wasm_functype_params", ctypes.POINTER(ffi.wasm_valtype_vec_t), _POINTER)

_WASI, _HTTP = split.WASI.encode(), HTTP_MODULE.encode()
_MEMORY = ffi.WASMTIME_EXTERN_MEMORY.value
_ITEM = ffi.wasmtime_extern_t.of.offset
_FIRST_LISTENER = 3
TABLES = 1
"""That a guest's store has beside its own."""
_UNKNOWN, _TERMINAL = 0, 2
"""WASI's file types of a standard input."""
_NOTHING_YET = "uninitialized element"
"""What wasmtime says of a call by way of `shim` before `fixup` is there."""
_IN_START = "the module uses WASI in its start function, where one with sockets cannot: have it do so in _start"


class Links(NamedTuple):
    """What all guests of an engine are linked with, as pointers.

    Attributes:
        linker: has all of WASI, and the host's function. It is not changed, so that threads may share it.
        shim, fixup: the two modules.
    """

    linker: int
    shim: int
    fixup: int


def links(engine: int, linker: int, compiled: Sequence[bytes]) -> Links:
    """Made once for an engine. `compiled`: the two modules; `linker` gets what they import of the host."""
    define(linker)
    shim, fixup = (direct.loaded(engine, one) for one in compiled)
    return Links(linker, shim, fixup)


def define(linker: int) -> None:
    """Give a linker what the two modules import of the host."""
    _define_host(linker, b"net", b"call", split.PARAMETERS, hostcalls.call)


def _define_host(linker: int, module: bytes, name: bytes, params: int, function: Any) -> None:
    i32 = wasmtime.ValType.i32
    kind = wasmtime.FuncType([i32() for _ in range(params)], [i32()])
    code = ctypes.cast(function, _POINTER)
    error = _define_function(linker, module, len(module), name, len(name), direct.pointer(kind), code, None, None)
    direct.check(error)


def imported(module: int) -> dict[str, int]:
    """The functions for a network that a module imports, by their names here, and how many parameters they have."""
    found, vector = {}, ffi.wasm_importtype_vec_t()
    _imports(module, ctypes.addressof(vector))
    for place in range(vector.size):
        item = ctypes.cast(vector.data[place], _POINTER)
        name = _bytes(_import_name(item))
        of_sockets = name.startswith(b"sock_") and _bytes(_import_module(item)) == _WASI
        if of_sockets or _bytes(_import_module(item)) == _HTTP:
            function = _as_function(_import_type(item))
            if function:
                known = name.decode() if of_sockets else of_http(name.decode())
                found[known] = int(_params(function).contents.size)
    _imports_delete(ctypes.addressof(vector))
    return found


def _bytes(vector: Any) -> bytes:
    return ctypes.string_at(vector.contents.data, vector.contents.size)


class Wanted(NamedTuple):
    """What a module wants of sockets.

    Attributes:
        accepts: it can have listeners.
        opens: it can ask for sockets of its own.
        seconds: the functions that it imports under their second types.
        http: it imports functions of `HTTP`.
    """

    accepts: bool
    opens: bool
    seconds: tuple[str, ...]
    http: bool

    def listeners(self, broker: Broker | None) -> Sequence[Any]:
        """The ports of those that the guest is given at its start."""
        return broker.listeners if broker is not None and self.accepts else ()

    def any(self, broker: Broker | None) -> bool:
        """Whether the guest is to have a network."""
        return broker is not None and (self.opens or self.http or bool(self.listeners(broker)))


def wanted(module: int) -> Wanted:
    """What a compiled module imports."""
    names = imported(module)
    accepts, opens = (bool({name, f"{name}_v2"} & names.keys()) for name in ("sock_accept", "sock_open"))
    found = tuple(name for name, count in names.items() if name in SECOND and count == len(SECOND[name]))
    return Wanted(accepts, opens, found, any(of_http(name) in names for name in HTTP))


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
    """Have the functions that the engine has not answer that there is no network."""
    _define_absent(linker, WASMEDGE)
    for name, params in HTTP.items():
        absent = hostcalls.absent_req if name == "req" else hostcalls.absent_response
        _define_host(linker, _HTTP, name.encode(), len(params), absent)


def define_seconds(linker: int, seconds: Iterable[str]) -> None:
    """Have these functions, under their second types, answer that there is no network."""
    _define_absent(linker, {name: SECOND[name] for name in seconds})


def _define_absent(linker: int, functions: Mapping[str, str]) -> None:
    for name, params in functions.items():
        _define_host(linker, _WASI, name.encode(), len(params), hostcalls.absent)


def instantiate(links: Links, context: int, module: int, wants: Wanted, made: Network, instance: int) -> None:
    """Make the guest's instance, and what is between it and WASI; its start function runs, if it has one.

    Args:
        wants: what it imports.
        instance: address of where the instance goes.

    Raises:
        ValueError: a module of this kind cannot have sockets.
        wasmtime.Trap: in its start function.
        wasmtime.WasmtimeError: it cannot be made.
    """
    shim, fixup, item = ffi.wasmtime_instance_t(), ffi.wasmtime_instance_t(), ffi.wasmtime_extern_t()
    at_shim, at_item = ctypes.addressof(shim), ctypes.addressof(item)
    _make(links.linker, context, links.shim, at_shim)
    own = _clone(links.linker)
    try:
        direct.check(_define_instance(own, context, _WASI, len(_WASI), at_shim))
        others = [(_WASI, name, second(name)) for name in wants.seconds]
        others += [(_HTTP, name, of_http(name)) for name in HTTP if wants.http]
        for place, name, known in others:
            theirs, ours = name.encode(), known.encode()
            _export(context, at_shim, ours, len(ours), at_item)
            direct.check(_define(own, context, place, len(place), theirs, len(theirs), at_item))
        _make(own, context, module, instance)
    except wasmtime.Trap as error:
        if _NOTHING_YET in str(error):
            raise ValueError(_IN_START) from None
        raise
    finally:
        _delete(own)
    if not _export(context, instance, b"memory", 6, at_item) or item.kind != _MEMORY:
        raise ValueError("the module exports no memory; expected one of the name memory, which WASI works on")
    memory = ffi.wasmtime_extern_t.from_buffer_copy(item)
    at_memory = ctypes.addressof(memory) + _ITEM
    made.attach(lambda: (_memory_data(context, at_memory), _memory_size(context, at_memory)), memory)
    own = _clone(links.linker)
    try:
        direct.check(_define(own, context, b"guest", 5, b"memory", 6, at_item))
        direct.check(_define_instance(own, context, b"shim", 4, at_shim))
        _make(own, context, links.fixup, ctypes.addressof(fixup))
    except wasmtime.WasmtimeError as error:
        raise ValueError(f"a module that has sockets needs a memory of 32 bits: {error}") from None
    finally:
        _delete(own)
    made.native_poll, made.native_now = (_native(context, fixup, name) for name in (b"poll", b"now"))


def _make(linker: int, context: int, module: int, instance: int) -> None:
    trap = _POINTER()
    direct.check(_instantiate(linker, context, module, instance, ctypes.addressof(trap)))
    direct.check_trap(trap)


def _native(context: int, fixup: Any, name: bytes) -> Any:
    """A function that calls the engine's own WASI."""
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
