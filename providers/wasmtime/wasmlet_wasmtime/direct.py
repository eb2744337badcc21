"""What starting a guest needs of wasmtime, through its C API and with as little Python as possible. For `guest`.

A child shares the memory of the zygote, from which it was forked, until it writes to it. Python writes to every object
that it uses, because it counts references. So each object that a start touches costs time, and memory that the
container has to itself. The classes of wasmtime's Python API would more than double that.

The functions are loaded here a second time, one after the other, so that they lie side by side in memory and nobody
else uses them. Pointers are plain numbers. Only a rehearsal (`rehearsal`) frees anything; otherwise the process ends
with its guest. This module works without the Python API (`plain`). Where that is loaded, errors are its exceptions.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any

from . import limits
from .errors import EngineError, EngineTrap


def _path() -> str:
    """The shared library, as the Python API finds it, which is not loaded for that."""
    found = importlib.util.find_spec("wasmtime")
    if found is None or not found.submodule_search_locations:
        raise ImportError("wasmtime is not installed")
    return os.path.join(found.submodule_search_locations[0], f"linux-{os.uname().machine}", "_libwasmtime.so")


_library = ctypes.CDLL(_path())
_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p


def function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the C API, with these types."""
    found = _library[name]  # by index, ctypes makes a new object that nobody else uses
    found.restype, found.argtypes = result, arguments
    return found


_deserialize_bytes = function("wasmtime_module_deserialize", _POINTER, _POINTER, _TEXT, _SIZE, _POINTER)
_module_delete = function("wasmtime_module_delete", None, _POINTER)
_store_delete = function("wasmtime_store_delete", None, _POINTER)
_deserialize = function("wasmtime_module_deserialize_file", _POINTER, _POINTER, _TEXT, _POINTER)
_config_new = function("wasi_config_new", _POINTER)
_set_argv = function("wasi_config_set_argv", ctypes.c_bool, _POINTER, _SIZE, _POINTER)
_set_env = function("wasi_config_set_env", ctypes.c_bool, _POINTER, _SIZE, _POINTER, _POINTER)
_inherit = [function(f"wasi_config_inherit_{name}", None, _POINTER) for name in ("stdin", "stdout", "stderr")]
_preopen = function("wasi_config_preopen_dir", ctypes.c_bool, _POINTER, _TEXT, _TEXT, ctypes.c_bool)
_store_new = function("wasmtime_store_new", _POINTER, _POINTER, _POINTER, _POINTER)
_context_of = function("wasmtime_store_context", _POINTER, _POINTER)
_set_wasi = function("wasmtime_context_set_wasi", _POINTER, _POINTER, _POINTER)
_set_deadline = function("wasmtime_context_set_epoch_deadline", None, _POINTER, ctypes.c_uint64)
_limit = function("wasmtime_store_limiter", None, _POINTER, *[ctypes.c_int64] * 5)
_instantiate = function("wasmtime_linker_instantiate", _POINTER, *[_POINTER] * 5)
_export = function("wasmtime_instance_export_get", ctypes.c_bool, _POINTER, _POINTER, _TEXT, _SIZE, _POINTER)
_error_message = function("wasmtime_error_message", None, _POINTER, _POINTER)
_trap_message = function("wasm_trap_message", None, _POINTER, _POINTER)
_call = function("wasmtime_func_call", _POINTER, _POINTER, _POINTER, _POINTER, _SIZE, _POINTER, _SIZE, _POINTER)

ENTRIES = (b"_initialize", b"", b"_start")
"""The exports that are called, in this order: the first one, and then one of the others, as `wasmtime run` does it."""
NEVER = 2**62
"""The deadline where the engine checks the epoch (`dense`), but the guest has a process, which a signal ends."""

_found, _trap = _POINTER(), _POINTER()
_instance, _extern = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 4)()
"""As large as `wasmtime_instance_t` and `wasmtime_extern_t`."""
_kind = ctypes.c_uint8.from_buffer(_extern)
_at_found, _at_trap = ctypes.addressof(_found), ctypes.addressof(_trap)
at_instance, _at_extern = ctypes.addressof(_instance), ctypes.addressof(_extern)
"""Where the one instance of this process goes."""
_FUNCTION = 0
_at_function = _at_extern + 8


def configure(config: int, *, parallel: bool, own_world: bool) -> None:
    """What all engines here have in common: what one has compiled, another one with the same settings can load.

    Args:
        parallel: as in `guest.configuration`; so is `own_world`.
    """
    settings = {
        "parallel_compilation": parallel,
        "epoch_interruption": own_world,
        # With this support on, wasmtime 50 traps whenever a function of ours is given two borrowed handles.
        "concurrency_support": not own_world,
    }
    for name, value in settings.items():
        function(f"wasmtime_config_{name}_set", None, _POINTER, ctypes.c_bool)(config, value)


def pointer(managed: Any) -> int:
    """The pointer to an object of the Python API, as a number."""
    return ctypes.cast(managed.ptr(), _POINTER).value or 0


def load(engine: int, path: str) -> int:
    """The compiled module in a file."""
    check(_deserialize(engine, path.encode(), _at_found))
    return _found.value or 0


def loaded(engine: int, compiled: bytes) -> int:
    """The compiled module in these bytes."""
    check(_deserialize_bytes(engine, compiled, len(compiled), _at_found))
    return _found.value or 0


def wasi_config(spec: dict[str, Any], listeners: int = 0) -> int:
    """The WASI configuration of a guest, with the streams of this process.

    Never in a zygote: the engine draws the guest's random numbers from a generator of the thread, which is seeded at
    the first use. Seeded in the zygote, it would give all its children the same numbers.

    Args:
        listeners: as in `guest.wasi_config`.
    """
    config = _config_new()
    _set_argv(config, *_texts(spec["args"], _arguments))
    size, names = _texts([name for name, _ in spec["env"]], _names)
    _set_env(config, size, names, _texts([value for _, value in spec["env"]], _values)[1])
    for inherit in _inherit:
        inherit(config)
    for _ in range(listeners):
        _preopen(config, spec["mounts"][0]["directory"].encode(), b".", True)
    for mount in spec.get("mounts") or ():
        # A path longer than another one's goes first when a guest looks for its mount, so these may lie in each other.
        if not _preopen(config, mount["directory"].encode(), mount["path"].encode(), not mount["read_only"]):
            raise EngineError(f"the mount at {mount['path']} cannot be opened")
    return int(config)


def store(engine: int, config: int | None, memory: int | None, tables: int = 0) -> tuple[int, int]:
    """A store for one guest, and its context.

    Args:
        config: of WASI; None for a guest that calls none of its functions.
        memory: the most that it may have, in bytes; None for no limit.
        tables: how many tables the store has in addition to the guest's own.
    """
    made = _store_new(engine, None, None)
    context = _context_of(made)
    if config is not None:
        check(_set_wasi(context, config))
    _set_deadline(context, NEVER)
    if memory:
        _limit(made, *limits.of_module(memory, tables))
    return int(made), int(context)


def free(store: int, module: int) -> None:
    """Free the store and the module of a guest that has ended."""
    _store_delete(store)
    _module_delete(module)
    _kept.clear()


def instantiate(linker: int, context: int, module: int) -> None:
    """Make the one instance of this process; its start function runs, if it has one."""
    _trap.value = None
    check(_instantiate(linker, context, module, at_instance, _at_trap))
    check_trap(_trap)


def call(context: int, name: bytes) -> bool:
    """Call the function that the instance exports by that name, which takes and returns nothing; False without one."""
    if not _export(context, at_instance, name, len(name), _at_extern) or _kind.value != _FUNCTION:
        return False
    _trap.value = None
    check(_call(context, _at_function, None, 0, None, 0, _at_trap))
    check_trap(_trap)
    return True


def run(context: int) -> None:
    """Run the instance to its end."""
    initialize, default, start = ENTRIES
    call(context, initialize)
    _ = call(context, default) or call(context, start)


def check(error: int | None) -> None:
    """Raise the error that a call has returned, if it has."""
    if error:
        raise _of_error(error)


def check_trap(trap: Any) -> None:
    """Raise the trap that a call has left here, if it has."""
    if trap.value:
        raise _of_trap(trap.value)


def _of_error(error: int) -> Exception:
    api: Any = sys.modules.get("wasmtime")
    if api is not None:
        found: Exception = api.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(api._ffi.wasmtime_error_t)))
        return found
    return EngineError(_message(_error_message, error))


def _of_trap(trap: int) -> Exception:
    api: Any = sys.modules.get("wasmtime")
    if api is not None:
        found: Exception = api.Trap._from_ptr(ctypes.cast(trap, ctypes.POINTER(api._ffi.wasm_trap_t)))
        return found
    return EngineTrap(_message(_trap_message, trap).rstrip("\0"))


class Vector(ctypes.Structure):
    """A vector of the C API, whatever it has in it."""

    _fields_ = (("size", _SIZE), ("data", _POINTER))


def _message(read: Any, failure: int) -> str:
    vector = Vector()
    read(failure, ctypes.addressof(vector))
    return ctypes.string_at(vector.data, vector.size).decode(errors="replace")


_kept: list[Any] = []
"""Arrays that the engine still reads, kept so that Python does not free them."""
_FEW = 64
_Few = _TEXT * _FEW
_arguments, _names, _values = _Few(), _Few(), _Few()
"""For the texts of this process's guest, if these are few: to make a type of array for each number of them is slow."""


def _texts(texts: Sequence[str], few: Any) -> tuple[int, int]:
    """How many, and the address of their pointers, which are put into `few` if that has room."""
    array = few
    if len(texts) > _FEW:
        array = (_TEXT * len(texts))()
        _kept.append(array)
    for place, text in enumerate(texts):
        array[place] = text.encode()
    return len(texts), ctypes.addressof(array)
