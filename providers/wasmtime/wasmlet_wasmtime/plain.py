"""wasmtime inside a worker process that runs modules without sockets and nothing else, as small as it can be.

Most guests are such modules. A child is forked from the zygote. To fork it and to end it takes the longer, the more
memory the zygote has. So this in-worker module does without wasmtime's Python API, without sockets, and without what
components need. Its zygote has half the memory of that of `guest`, which runs everything else.

Loaded as `guest` is, and has the same functions. What it runs was compiled by `guest`, with the same settings.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import direct
from .apart import apart
from .errors import TRAPPED, BadArtifact, EngineError, EngineTrap, causes, trap_text

REQUIRES: Sequence[str] = ()
ENVIRONMENT = {"TOKIO_WORKER_THREADS": "1"}
"""WASI in wasmtime has threads of its own, by default as many as the machine has cores; a guest has one."""
REHEARSALS = 16
"""How often to rehearse: after that Python no longer changes (specialises) the bytecode that it runs."""
IDLE = b"\0asm\1\0\0\0\1\4\1\x60\0\0\3\2\1\0\5\3\1\0\1\7\x13\2\6memory\2\0\6_start\0\0\x0a\4\1\2\0\x0b"
"""A module with a memory, and with a function `_start` that does nothing."""
_WASI = b"wasi_snapshot_preview1"
_I32 = 0

_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p


class Prepared(NamedTuple):
    """What every child starts from: pointers to the engine and to a linker with all of WASI, and a compiled module."""

    engine: int
    linker: int
    idle: bytes


def prepare() -> Prepared:
    """As `guest.prepare`."""
    os.environ.update(ENVIRONMENT)
    engine = _engine()
    (idle,) = apart(lambda: (_compiled(engine, IDLE),))
    prepared = Prepared(engine, _linker(engine), idle)
    for _ in range(REHEARSALS):
        idle_once(prepared, None)
    return prepared


def warm(prepared: Prepared) -> None:
    """As `guest.warm`."""
    idle_once(prepared, direct.wasi_config({"args": ["idle"], "env": [["NAME", "value"]]}))


def run(prepared: Prepared, spec: dict[str, Any], module: str, started: Callable[[], None]) -> tuple[int, str]:
    """As `guest.run`."""
    try:
        code = direct.load(prepared.engine, module)
    except EngineError as error:
        raise BadArtifact(f"the compiled module cannot be loaded: {error}") from error
    try:
        _, context = direct.store(prepared.engine, direct.wasi_config(spec), spec.get("memory"))
        direct.instantiate(prepared.linker, context, code)
    except EngineTrap as error:  # in the start function of the module itself: the guest has run
        started()
        return TRAPPED, trap_text(error)
    except EngineError as error:
        raise ValueError(f"the module cannot be instantiated: {causes(error)}") from error
    started()
    try:
        direct.run(context)
    except (EngineTrap, EngineError) as error:
        return TRAPPED, trap_text(error)
    return 0, ""


def compile(wasm: bytes) -> bytes:  # noqa: A001 - the name that the worker asks for
    """As `guest.compile`, which does it."""
    from . import guest

    return guest.compile(wasm)


def idle_once(prepared: Prepared, config: int | None) -> None:
    """Run a guest that does nothing. No function of WASI is called, because that would start threads.

    Python adapts its bytecode when it runs. In the zygote, all children then share the result.
    """
    code = direct.loaded(prepared.engine, prepared.idle)
    store, context = direct.store(prepared.engine, config, 2**20)
    direct.instantiate(prepared.linker, context, code)
    direct.run(context)
    direct.free(store, code)


def _engine() -> int:
    """An engine with the settings of `guest.configuration`: what it runs was compiled with these."""
    made = direct.function("wasm_config_new", _POINTER)()
    direct.configure(made, parallel=False, own_world=False)
    return int(direct.function("wasm_engine_new_with_config", _POINTER, _POINTER)(made))


def _linker(engine: int) -> int:
    """All of WASI, with a `proc_exit` that takes all codes, as `guest.linked` has it."""
    made = int(direct.function("wasmtime_linker_new", _POINTER, _POINTER)(engine))
    direct.check(direct.function("wasmtime_linker_define_wasi", _POINTER, _POINTER)(made))
    direct.function("wasmtime_linker_allow_shadowing", None, _POINTER, ctypes.c_bool)(made, True)
    value = direct.function("wasm_valtype_new", _POINTER, ctypes.c_uint8)(_I32)
    params, results = direct.Vector(), direct.Vector()
    types = (_POINTER * 1)(value)
    direct.function("wasm_valtype_vec_new", None, _POINTER, _SIZE, _POINTER)(ctypes.addressof(params), 1, types)
    direct.function("wasm_valtype_vec_new_empty", None, _POINTER)(ctypes.addressof(results))
    new = direct.function("wasm_functype_new", _POINTER, _POINTER, _POINTER)
    kind = new(ctypes.addressof(params), ctypes.addressof(results))
    define = direct.function(
        "wasmtime_linker_define_func_unchecked", _POINTER, _POINTER, _TEXT, _SIZE, _TEXT, _SIZE, *[_POINTER] * 4
    )
    name, code = b"proc_exit", ctypes.cast(_proc_exit, _POINTER)
    direct.check(define(made, _WASI, len(_WASI), name, len(name), kind, code, None, None))
    return made


@ctypes.CFUNCTYPE(_SIZE, _POINTER, _POINTER, ctypes.POINTER(ctypes.c_uint32), _SIZE)  # type: ignore[untyped-decorator]
def _proc_exit(data: Any, caller: Any, values: Any, count: int) -> int:
    os._exit(values[0] & 0xFF)


def _compiled(engine: int, wasm: bytes) -> bytes:
    module, vector = _POINTER(), direct.Vector()
    new = direct.function("wasmtime_module_new", _POINTER, _POINTER, _TEXT, _SIZE, _POINTER)
    direct.check(new(engine, wasm, len(wasm), ctypes.addressof(module)))
    serialize = direct.function("wasmtime_module_serialize", _POINTER, _POINTER, _POINTER)
    direct.check(serialize(module, ctypes.addressof(vector)))
    return ctypes.string_at(vector.data, vector.size)
