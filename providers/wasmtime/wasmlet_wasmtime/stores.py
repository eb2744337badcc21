"""Stores and instances of guests in a dense worker, by wasmtime's C API alone (`direct`), for threads side by side.

A new store is the same for every guest, so a few are made before they are needed (`stock`). Each is one guest's alone,
and is deleted with it. Pointers are plain numbers here; `instance` is the address of one of the caller's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi

from . import direct, limits

_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_function = direct.function
_config_new = _function("wasi_config_new", _POINTER)
_config_delete = _function("wasi_config_delete", None, _POINTER)
_set_argv = _function("wasi_config_set_argv", ctypes.c_bool, _POINTER, _SIZE, _POINTER)
_set_env = _function("wasi_config_set_env", ctypes.c_bool, _POINTER, _SIZE, _POINTER, _POINTER)
_outputs = [_function(f"wasi_config_set_{name}_file", ctypes.c_bool, _POINTER, _TEXT) for name in ("stdout", "stderr")]
_preopen = _function("wasi_config_preopen_dir", ctypes.c_bool, _POINTER, _TEXT, _TEXT, ctypes.c_bool)
_new = _function("wasmtime_store_new", _POINTER, _POINTER, _POINTER, _POINTER)
_context_of = _function("wasmtime_store_context", _POINTER, _POINTER)
_on_deadline = _function("wasmtime_store_epoch_deadline_callback", None, *[_POINTER] * 4)
_set_deadline = _function("wasmtime_context_set_epoch_deadline", None, _POINTER, ctypes.c_uint64)
_set_wasi = _function("wasmtime_context_set_wasi", _POINTER, _POINTER, _POINTER)
_limit = _function("wasmtime_store_limiter", None, _POINTER, *[ctypes.c_int64] * 5)
_instantiate = _function("wasmtime_instance_pre_instantiate", *[_POINTER] * 5)
_export = _function("wasmtime_instance_export_get", ctypes.c_bool, _POINTER, _POINTER, _TEXT, _SIZE, _POINTER)
_memory_data = _function("wasmtime_memory_data", _POINTER, _POINTER, _POINTER)
_call = _function("wasmtime_func_call", _POINTER, _POINTER, _POINTER, _POINTER, _SIZE, _POINTER, _SIZE, _POINTER)
delete = _function("wasmtime_store_delete", None, _POINTER)

_FUNCTION, _MEMORY = ffi.WASMTIME_EXTERN_FUNC.value, ffi.WASMTIME_EXTERN_MEMORY.value
_ITEM = ffi.wasmtime_extern_t.of.offset
_FEW = 64
_Few = _TEXT * _FEW
"""To make a type of array for each number of texts would be slow."""
_AT_HAND = 2
"""How many stores are made before they are needed: one for each thread of a worker that waits for a guest."""


def wasi_config(spec: dict[str, Any], listeners: int, outputs: Sequence[str]) -> int:
    """The WASI configuration of a guest, whose stdin is empty.

    Args:
        listeners: as in `guest.wasi_config`.
        outputs: the paths of its stdout and stderr.
    """
    config = _config_new()
    try:
        words, pairs = spec["args"], spec["env"]
        arguments = _texts(words)
        _set_argv(config, len(words), ctypes.addressof(arguments))
        names, values = _texts([name for name, _ in pairs]), _texts([value for _, value in pairs])
        _set_env(config, len(pairs), ctypes.addressof(names), ctypes.addressof(values))
        for output, path in zip(_outputs, outputs):  # noqa: B905 - new in Python 3.10
            if not output(config, path.encode()):
                raise wasmtime.WasmtimeError("the streams cannot be opened")
        for _ in range(listeners):
            _preopen(config, spec["mounts"][0]["directory"].encode(), b".", False)
        for mount in spec.get("mounts") or ():
            # A path longer than another one's goes first when a guest looks for its mount, see `guest.wasi_config`.
            if not _preopen(config, mount["directory"].encode(), mount["path"].encode(), not mount["read_only"]):
                raise wasmtime.WasmtimeError(f"the mount at {mount['path']} cannot be opened")
    except BaseException:
        _config_delete(config)
        raise
    return int(config)


def _texts(texts: Sequence[str]) -> Any:
    """These texts in an array, which the engine copies; not one that is shared, for other threads may be here, too."""
    array = _Few() if len(texts) <= _FEW else (_TEXT * len(texts))()
    for place, text in enumerate(texts):
        array[place] = text.encode()
    return array


class Stores:
    """The stores of the guests of one engine.

    Args:
        engine: a pointer to it.
        on_epoch: called in a guest's thread when the engine's epoch goes up; kept by the caller.
    """

    def __init__(self, engine: int, on_epoch: Any) -> None:
        self._engine = engine
        self._on_epoch = ctypes.cast(on_epoch, _POINTER).value
        self._ready: list[int] = []

    def stock(self) -> None:
        """Make stores that will be needed; any thread may do so."""
        while len(self._ready) < _AT_HAND:
            self._ready.append(self._make())

    def _make(self) -> int:
        made = _new(self._engine, None, None)
        _on_deadline(made, self._on_epoch, None, None)
        return int(made)

    def take(self, config: int, memory: int | None, tables: int) -> tuple[int, int]:
        """A store for one guest, which has to `delete` it, and its context.

        Args:
            config: of WASI; it becomes the store's.
            memory: the most that the guest may have, in bytes; None for no limit.
            tables: how many tables the store has in addition to the guest's own.
        """
        try:
            store = self._ready.pop()
        except IndexError:
            store = self._make()
        context = int(_context_of(store))
        try:
            direct.check(_set_wasi(context, config))
            if memory:
                _limit(store, *limits.of_module(memory, tables))
        except BaseException:
            delete(store)
            raise
        return store, context


def set_deadline(context: int) -> None:
    """Have the guest notice from now on that the engine's epoch goes up."""
    _set_deadline(context, 1)


def instantiate(instances: int, context: int, instance: int) -> None:
    """Make an instance of a module whose imports are resolved; its start function runs, if it has one."""
    trap = _POINTER()
    error = _instantiate(instances, context, instance, ctypes.addressof(trap))
    direct.check_trap(trap)
    direct.check(error)


def function(context: int, instance: int, name: bytes) -> ffi.wasmtime_extern_t | None:
    """The function that an instance exports by that name; None where there is no such function."""
    item = _exported(context, instance, name)
    return item if item is not None and item.kind == _FUNCTION else None


def address(context: int, instance: int) -> int:
    """Where the instance's memory begins; 0 where it exports none by the name that WASI wants."""
    item = _exported(context, instance, b"memory")
    if item is None or item.kind != _MEMORY:
        return 0
    return _memory_data(context, ctypes.addressof(item) + _ITEM) or 0


def _exported(context: int, instance: int, name: bytes) -> ffi.wasmtime_extern_t | None:
    item = ffi.wasmtime_extern_t()
    return item if _export(context, instance, name, len(name), ctypes.addressof(item)) else None


def call(context: int, function: ffi.wasmtime_extern_t) -> None:
    """Call a function of an instance, which takes and returns nothing."""
    trap = _POINTER()
    direct.check(_call(context, ctypes.addressof(function) + _ITEM, None, 0, None, 0, ctypes.addressof(trap)))
    direct.check_trap(trap)
