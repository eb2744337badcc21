"""A component that exports wasi:cli/run and uses sockets or HTTP, run to its end."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import wasmtime

from .. import direct
from ..errors import TRAPPED, causes, trap_text
from . import interfaces, system, world
from .instances import Code, Exited, Instance, Trapped

_IS_OK = 8
"""At which byte a value of type result says whether it is good (`values`)."""
_ERRORS = (wasmtime.WasmtimeError, wasmtime.Trap, Trapped)


def run(engine: wasmtime.Engine, component: Any, spec: dict[str, Any], started: Callable[[], None]) -> tuple[int, str]:
    """Run the command to its end, once: its exit code, and what there is to say of it.

    Args:
        component: of `wasmtime.component`.
        spec: see `wasmlet.worker.wire`.

    Raises:
        ValueError: it cannot start; the message says why.
    """
    name = interfaces.exported(engine, component, interfaces.COMMAND)
    try:
        linker = world.linker_of(engine, component)
    except wasmtime.WasmtimeError as error:
        raise ValueError(f"the component cannot be linked: {causes(error)}") from error
    gc.enable()  # a wait leaves a cycle of references; the collector is off in a zygote's children
    code = Code(direct.pointer(engine), linker, direct.pointer(component))
    try:
        instance = Instance(system.Process(spec), code, spec.get("memory"))
    except _ERRORS as error:
        if isinstance(error, wasmtime.WasmtimeError) and "wasm trap:" not in str(error):
            raise ValueError(f"the component cannot be instantiated: {causes(error)}") from error
        started()  # what runs before `run` has
        return _end(error)
    try:
        function = instance.function(str(name), "run")
        started()
        result = instance.call(function, results=1)
    except _ERRORS as error:
        return _end(error)
    return (0 if result[_IS_OK] else 1), ""


def _end(error: Exception) -> tuple[int, str]:
    if isinstance(error, Exited):
        return error.code & 0xFF, ""
    return TRAPPED, trap_text(error)
