"""Components that are commands of WASI preview 2 (they export `wasi:cli/run`). `guest` passes them to this module.

Most run in wasmtime's own world: they get what modules get, but no sockets. Components that use sockets or HTTP, or
that serve, run in a world of our own (`p2`). A world is the set of all functions that a component may import.

They are run by wasmtime's low-level bindings. What else shapes the code, found by measuring wasmtime 50:

- `exit-with-code` of `wasi:cli/exit` works with any code; `exit` itself knows only success and failure, 0 and 1.
- A trap is an error like any other; only its text shows that it is one.
- Output that a guest has not flushed waits in wasmtime for a newline, and would be lost with the process: `_FLUSH`.
- A component that sleeps can be ended only by a signal to its process. So components do not run in dense workers, where
  many guests share a process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import _bindings as bindings

from .errors import TRAPPED, BadArtifact, causes, refusal, trap_text
from .p2 import commands, interfaces, serving

RUN = "wasi:cli/run@0.2.0"
"""wasmtime finds newer versions of 0.2 by this name, too."""
_VERSION = b"\x0d\0\x01\0"
_TRAP = "wasm trap:"

_FLUSH = b"""
(component
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-type))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $error-type (type $e))
    (export "error" (type $error (eq $e)))
    (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failure)))
    (export "output-stream" (type $output (sub resource)))
    (export "[method]output-stream.blocking-flush"
      (func (param "self" (borrow $output)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-type))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-type (type $o))
    (export "output-stream" (type $output (eq $o)))
    (export "get-stdout" (func (result (own $output))))))
  (core module $memory (memory (export "memory") 1))
  (core instance $m (instantiate $memory))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core func $flush (canon lower (func $streams "[method]output-stream.blocking-flush")
    (memory (core memory $m "memory"))))
  (core module $main
    (import "wasi" "get" (func $get (result i32)))
    (import "wasi" "flush" (func $flush (param i32 i32)))
    (func $run (call $flush (call $get) (i32.const 0)))
    (start $run))
  (core instance (instantiate $main (with "wasi" (instance
    (export "get" (func $get))
    (export "flush" (func $flush)))))))
"""
"""A component that flushes stdout. All instances in a process share it, so this flushes the guest's output."""


def is_component(wasm: bytes) -> bool:
    """Whether a file with this beginning, of 8 bytes or more, is a component; else it is a module."""
    return wasm[4:8] == _VERSION


class Component:
    """A compiled component in the file of this path.

    Raises:
        BadArtifact: it is none, or of another engine.
    """

    def __init__(self, engine: wasmtime.Engine, path: str) -> None:
        self._engine = engine
        self._pointer = ctypes.POINTER(bindings.wasmtime_component_t)()
        file = ctypes.create_string_buffer(path.encode())
        try:
            _check(bindings.wasmtime_component_deserialize_file(engine.ptr(), file, ctypes.byref(self._pointer)))
        except wasmtime.WasmtimeError as error:
            raise BadArtifact(f"the compiled component cannot be loaded: {error}") from error

    def run(self, store: wasmtime.Store, started: Callable[[], None]) -> tuple[int, str]:
        """Run the command to its end, once.

        Raises:
            ValueError: it cannot start; the message says why.
        """
        linker = bindings.wasmtime_component_linker_new(self._engine.ptr())
        _check(bindings.wasmtime_component_linker_add_wasip2(linker))
        code, message = self._run(linker, store._context(), started)
        self._flush(linker)
        return code, message

    def _run(self, linker: Any, context: Any, started: Callable[[], None]) -> tuple[int, str]:
        instance = bindings.wasmtime_component_instance_t()
        try:
            _check(
                bindings.wasmtime_component_linker_instantiate(linker, context, self._pointer, ctypes.byref(instance))
            )
        except wasmtime.WasmtimeError as error:
            if _TRAP not in str(error) and not isinstance(error, wasmtime.ExitTrap):
                raise ValueError(f"the component cannot be instantiated: {causes(error)}") from error
            started()  # what runs before `run` has
            return _end(error)
        name, run = None, bindings.wasmtime_component_func_t()
        for part in (RUN.encode(), b"run"):
            name = bindings.wasmtime_component_instance_get_export_index(
                ctypes.byref(instance), context, name, ctypes.create_string_buffer(part), len(part)
            )
        if not bindings.wasmtime_component_instance_get_func(ctypes.byref(instance), context, name, ctypes.byref(run)):
            raise ValueError(f"the component has no function run in {RUN}")
        started()
        result = bindings.wasmtime_component_val_t()
        try:
            _check(bindings.wasmtime_component_func_call(ctypes.byref(run), context, None, 0, ctypes.byref(result), 1))
        except wasmtime.WasmtimeError as error:
            return _end(error)
        return (0 if result.of.result.is_ok else 1), ""

    def _flush(self, linker: Any) -> None:
        wasm = bytes(wasmtime.wat2wasm(_FLUSH))
        made, instance = ctypes.POINTER(bindings.wasmtime_component_t)(), bindings.wasmtime_component_instance_t()
        binary = (ctypes.c_uint8 * len(wasm)).from_buffer_copy(wasm)
        _check(bindings.wasmtime_component_new(self._engine.ptr(), binary, len(wasm), ctypes.byref(made)))
        streams, store = wasmtime.WasiConfig(), wasmtime.Store(self._engine)
        streams.inherit_stdout()
        store.set_wasi(streams)
        _check(bindings.wasmtime_component_linker_instantiate(linker, store._context(), made, ctypes.byref(instance)))


def run(engine: wasmtime.Engine, component: Any, spec: dict[str, Any], started: Callable[[], None]) -> tuple[int, str]:
    """Run or serve a component, of `wasmtime.component`, that is compiled for our own world.

    Raises:
        ValueError: it cannot start; the message says why.
    """
    if _serves(engine, component):
        return serving.serve(engine, component, spec, started)
    return commands.run(engine, component, spec, started)


def _serves(engine: wasmtime.Engine, component: Any) -> bool:
    exports = [interfaces.exported(engine, component, name) for name in (interfaces.COMMAND, serving.HANDLER)]
    return exports[0] is None and exports[1] is not None


def compiled(engine: wasmtime.Engine, wasm: bytes, *, own_world: bool = False) -> bytes:
    """A component, compiled after checking that it can be run.

    Args:
        own_world: it runs or serves in our own world (`p2`); else it is a command in wasmtime's.

    Raises:
        ValueError: it is not a valid component, imports what does not exist here, or is neither.
    """
    from wasmtime import component

    try:
        made = component.Component(engine, wasm)
    except wasmtime.WasmtimeError as error:
        raise ValueError(refusal("component", error)) from error
    if own_world and _serves(engine, made):
        serving.check(engine, made)
    else:
        _check_exports(engine, made)
        (interfaces.check_imports if own_world else _check_imports)(engine, made)
    return bytes(made.serialize())


def _check_exports(engine: wasmtime.Engine, made: Any) -> None:
    from wasmtime import component

    exports = made.type.exports(engine)
    interface = next((item.ty for name, item in exports.items() if name.startswith("wasi:cli/run@0.2.")), None)
    if isinstance(interface, component.ComponentInstanceType):
        item = interface.exports(engine).get("run")
        run = item and item.ty
        if isinstance(run, component.FuncType) and not run.params and isinstance(run.result, component.ResultType):
            return
    found = ", ".join(sorted(exports)) or "nothing"
    raise ValueError(
        f"the component does not export {RUN} with a function run: expected a WASI command, found a library that "
        f"exports {found if len(found) < 200 else found[:200] + '...'} (build it with a main function)"
    )


def _check_imports(engine: wasmtime.Engine, made: Any) -> None:
    """Check that the imports fit: link it in a store that allows no instances, so that nothing of it runs."""
    from wasmtime import component

    linker = component.Linker(engine)
    linker.add_wasip2()
    store = wasmtime.Store(engine)
    store.set_limits(instances=0, memories=0)
    try:
        linker.instantiate(store, made)
    except wasmtime.WasmtimeError as error:
        text = causes(error)
        if not text.startswith("resource limit exceeded"):
            raise ValueError(f"{text}; expected imports of WASI preview 2 only") from error


def _end(error: Exception) -> tuple[int, str]:
    if isinstance(error, wasmtime.ExitTrap):
        return error.code & 0xFF, ""
    return TRAPPED, trap_text(error)


def _check(error: Any) -> None:
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
