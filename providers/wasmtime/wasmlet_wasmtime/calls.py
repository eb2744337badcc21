"""Calls of wasmtime's C API through its low-level bindings, for `dense`.

The Python API has no call for some of these things, and for others only one that threads cannot share. There are host
functions, the memory of a guest that calls the host, and calls of the engine's own WASI functions on behalf of a guest
(`Delegate`). `stores` has instances.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import wasmtime
from wasmtime import _bindings as bindings
from wasmtime import _ffi as ffi

from .guest import WASI

_MEMORY = ctypes.create_string_buffer(b"memory")
INVALID = 28
"""WASI's error number for what makes no sense."""

_DELEGATE = f"""
(module
  (import "guest" "memory" (memory 0))
  (import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (export "memory" (memory 0))
  (func (export "poll") (param i32 i32 i32 i32) (result i32)
    (call $poll (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
  (func (export "now") (param i32 i32 i32 i32) (result i32)
    (call $clock (i32.const 1) (i64.const 0) (local.get 0))))
"""
"""A module that calls the engine's own functions for a guest.

These look for the memory among the exports of the module that calls them. So this one imports the guest's memory, and
exports it again."""


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def nothing(_: Any) -> None:
    pass


def define(linker: wasmtime.Linker, name: str, kind: wasmtime.FuncType, function: Any) -> None:
    module, encoded = WASI.encode(), name.encode()
    error = bindings.wasmtime_linker_define_func_unchecked(
        linker.ptr(), ctypes.create_string_buffer(module), len(module),
        ctypes.create_string_buffer(encoded), len(encoded), kind.ptr(), function, None, nothing,
    )  # fmt: skip
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)


def clone(linker: wasmtime.Linker) -> wasmtime.Linker:
    """Another linker that has the same."""
    copy = wasmtime.Linker.__new__(wasmtime.Linker)
    copy._set_ptr(bindings.wasmtime_linker_clone(linker.ptr()))
    copy.engine = linker.engine
    return copy


def export(context: Any, instance: Any, name: Any) -> Any:
    """What an instance exports by that name; None where there is no such thing."""
    item = bindings.wasmtime_extern_t()
    found = bindings.wasmtime_instance_export_get(
        context, ctypes.byref(instance), name, len(name.value), ctypes.byref(item)
    )
    return item if found else None


def no_trap() -> Any:
    """An empty place, where a call stores its trap."""
    return ctypes.POINTER(bindings.wasm_trap_t)()


def pointer(value: Any) -> int:
    return ctypes.cast(value, ctypes.c_void_p).value or 0


def trap(text: bytes) -> int:
    return pointer(bindings.wasmtime_trap_new(text, len(text)))


class Memory:
    """The memory of the guest that calls the host now. A guest that exports no memory has one of 0 bytes."""

    def __init__(self, caller: Any) -> None:
        self.context = bindings.wasmtime_caller_context(caller)
        self.item = bindings.wasmtime_extern_t()
        self._base = self._size = 0
        found = bindings.wasmtime_caller_export_get(caller, _MEMORY, 6, ctypes.byref(self.item))
        if found and self.item.kind == ffi.WASMTIME_EXTERN_MEMORY.value:
            memory = ctypes.byref(self.item.of.memory)
            self._base = pointer(bindings.wasmtime_memory_data(self.context, memory))
            self._size = bindings.wasmtime_memory_data_size(self.context, memory)

    def has(self, address: int, size: int) -> bool:
        return address + size <= self._size

    def read(self, address: int, size: int) -> bytes:
        return ctypes.string_at(self._base + address, size)

    def write(self, address: int, data: bytes) -> None:
        ctypes.memmove(self._base + address, data, len(data))


@functools.lru_cache
def _delegates(engine: wasmtime.Engine) -> wasmtime.Module:
    return wasmtime.Module(engine, _DELEGATE)


class Delegate:
    """Calls the engine's own WASI functions for a guest, through an instance of `_DELEGATE` with the guest's memory."""

    def __init__(self, engine: wasmtime.Engine, linker: wasmtime.Linker, memory: Memory) -> None:
        self._context = memory.context
        module = _delegates(engine)
        imports = (bindings.wasmtime_extern_t * 3)()
        imports[0] = memory.item
        for place, name in enumerate((b"poll_oneoff", b"clock_time_get"), 1):
            bindings.wasmtime_linker_get(
                linker.ptr(), self._context, WASI.encode(), len(WASI), name, len(name),
                ctypes.byref(imports[place]),
            )  # fmt: skip
        self._instance, trap = bindings.wasmtime_instance_t(), no_trap()
        error = bindings.wasmtime_instance_new(
            self._context, module.ptr(), imports, 3, ctypes.byref(self._instance), ctypes.byref(trap)
        )
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)

    def call(self, name: Any, *arguments: int) -> int:
        """Call a function that `_DELEGATE` exports. Returns WASI's error number."""
        function = export(self._context, self._instance, name)
        values = (bindings.wasmtime_val_raw_t * 4)()
        for value, argument in zip(values, arguments):  # noqa: B905 - new in Python 3.10
            value.i32 = argument - 2**32 if argument >= 2**31 else argument
        trap = no_trap()
        error = bindings.wasmtime_func_call_unchecked(
            self._context, ctypes.byref(function.of.func), values, 4, ctypes.byref(trap)
        )
        if error:
            wasmtime.WasmtimeError._from_ptr(error)  # which frees it: the guest is to end
        elif trap:
            wasmtime.Trap._from_ptr(trap)
        else:
            return int(values[0].i32)
        return INVALID
