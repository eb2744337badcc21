"""wasmtime inside a worker process: the three functions that `wasmlet.worker.guest.engines` calls on an engine.

They are `prepare`, `run` and `compile`. `prepare` runs in the zygote, the process that has the engine loaded and from
which each container's process, a child, is forked. `run` runs in a child.

Loaded by file path, under any Python from 3.10; it uses the standard library and wasmtime, nothing of wasmlet. A guest
gets its arguments, its environment, its mounts, clocks, randomness and its three streams, nothing else.

Why the code is as it is; each point was found by measuring wasmtime 50:

- A child that compiles on several threads after a fork hangs, so that is off wherever there may be a fork.
- `stdout_custom` runs on the engine's threads and hangs after a fork. Pipes on descriptors 1 and 2 do not.
- `proc_exit` of WASI preview 1 in wasmtime takes 0 to 125 only, and traps on any other code. Ours takes all codes, as
  processes do, and ends the process at once.
"""

from __future__ import annotations

import os
from _thread import get_ident
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import wasmtime

from . import components, direct, hostcalls, limits, plain, rehearsal, socketed, split
from .apart import apart
from .errors import TRAPPED, BadArtifact, causes, refusal, trap_text
from .p2 import interfaces, wire

REQUIRES: Sequence[str] = ()
WASI = "wasi_snapshot_preview1"
_idle = b""


class Prepared(NamedTuple):
    """What every child starts from.

    Attributes:
        components: the engine for components that serve, or use sockets or HTTP; None if it is not supported here.
    """

    engine: wasmtime.Engine
    linker: wasmtime.Linker
    sockets: socketed.Links
    components: wasmtime.Engine | None


def configuration(parallel: bool = False, *, own_world: bool = False) -> wasmtime.Config:
    """What all engines here have in common.

    Args:
        parallel: compile on several threads, where no fork is near.
        own_world: for components in our own world (`p2`): a request that takes too long is ended without its process.
    """
    config = wasmtime.Config()
    direct.configure(direct.pointer(config), parallel=parallel, own_world=own_world)
    return config


def linked(engine: wasmtime.Engine) -> wasmtime.Linker:
    """All that a guest may import."""
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    linker.allow_shadowing = True
    takes_code = wasmtime.FuncType([wasmtime.ValType.i32()], [])
    linker.define_func(WASI, "proc_exit", takes_code, lambda code: os._exit(code & 0xFF))
    socketed.define_absent(direct.pointer(linker))
    return linker


def prepare() -> Prepared:
    """What every child starts from; no module and no thread."""
    global _idle
    os.environ.update(plain.ENVIRONMENT)
    engine = wasmtime.Engine(configuration())
    linker = linked(engine)
    _idle, server, *between = compiled_apart(engine, (plain.IDLE, rehearsal.SERVER, split.shim(), split.fixup()))
    ours = wasmtime.Engine(configuration(own_world=True))
    wire.prepare()
    prepared = Prepared(engine, linker, links_between(engine, linker, between), ours)
    for _ in range(plain.REHEARSALS):
        _idle_once(prepared, None)
        rehearsal.serve(prepared.sockets, server)
    return prepared


def links_between(engine: wasmtime.Engine, linker: wasmtime.Linker, compiled: Sequence[bytes]) -> socketed.Links:
    """What connects guests that have sockets to WASI.

    Args:
        compiled: the two modules of `split`, compiled.
    """
    return socketed.links(direct.pointer(engine), direct.pointer(linker), compiled)


def warm(prepared: Prepared) -> None:
    """Run a guest that does nothing, in a child that waits for a container, to prepare memory for its start.

    The memory that a start writes to is the child's own then.
    """
    _idle_once(prepared, direct.wasi_config({"args": ["idle"], "env": [["NAME", "value"]]}))


def _idle_once(prepared: Prepared, config: int | None) -> None:
    links = prepared.sockets
    plain.idle_once(plain.Prepared(links.engine, links.linker, _idle), config)


def compiled_apart(engine: wasmtime.Engine, texts: Sequence[str | bytes]) -> list[bytes]:
    """Compile modules in another process, because compiling leaves much memory in use."""
    return apart(lambda: (wasmtime.Module(engine, text).serialize() for text in texts))


def load(engine: wasmtime.Engine, module: str) -> wasmtime.Module:
    """The compiled module in the file of this path.

    Raises:
        BadArtifact: it is none, or of another engine.
    """
    try:
        return wasmtime.Module.deserialize_file(engine, module)
    except wasmtime.WasmtimeError as error:
        raise BadArtifact(f"the compiled module cannot be loaded: {error}") from error


def wasi_config(spec: dict[str, Any], listeners: int = 0) -> wasmtime.WasiConfig:
    """What a guest is given, but for its streams.

    Args:
        listeners: how many descriptors to reserve before those of the mounts. Sockets take their numbers; until then
            directories that the guest does not see keep them taken.
    """
    wasi = wasmtime.WasiConfig()
    wasi.argv = spec["args"]
    wasi.env = spec["env"]
    for _ in range(listeners):
        wasi.preopen_dir(spec["mounts"][0]["directory"], ".", False)
    for mount in spec.get("mounts") or ():
        # A path longer than another one's goes first when a guest looks for its mount, so these may lie in each other.
        wasi.preopen_dir(mount["directory"], mount["path"], not mount["read_only"])
    return wasi


def run(prepared: Prepared, spec: dict[str, Any], module: str, started: Callable[[], None]) -> tuple[int, str]:
    """Run a compiled command to its end.

    Raises:
        ValueError: it cannot start; the message says why.
    """
    links = prepared.sockets
    engine = links.engine
    try:
        code = direct.load(engine, module)
    except wasmtime.WasmtimeError:  # it says itself which of the two it is
        return _run_component(prepared, spec, module, started)
    try:
        context = _instantiate(links, engine, code, spec)
    except wasmtime.Trap as error:  # in the start function of the module itself: the guest has run
        started()
        return TRAPPED, trap_text(error)
    except wasmtime.WasmtimeError as error:
        raise ValueError(f"the module cannot be instantiated: {causes(error)}") from error
    started()
    try:
        direct.run(context)
    except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
        return TRAPPED, trap_text(error)
    return 0, ""


def _instantiate(links: socketed.Links, engine: int, code: int, spec: dict[str, Any]) -> int:
    """Make the guest's instance, in a store of its own. Returns the context of that store."""
    broker: Any = spec.get("sockets")
    wants = socketed.wanted(code) if broker is not None else None
    if wants is None or not wants.any(broker):
        _, context = direct.store(engine, direct.wasi_config(spec), spec.get("memory"))
        try:
            direct.instantiate(links.linker, context, code)
        except wasmtime.WasmtimeError:
            seconds = socketed.wanted(code).seconds
            if not seconds:
                raise
            socketed.define_seconds(links.linker, seconds)
            direct.instantiate(links.linker, context, code)
        return context
    network = socketed.network(broker, wants)
    hostcalls.networks[get_ident()] = network
    config = direct.wasi_config(spec, len(wants.listeners(broker)))
    _, context = direct.store(engine, config, spec.get("memory"), socketed.TABLES)
    socketed.instantiate(links, context, code, wants, network, direct.at_instance)
    return context


def _run_component(prepared: Prepared, spec: dict[str, Any], path: str, started: Callable[[], None]) -> tuple[int, str]:
    engine = prepared.engine
    try:
        code = components.Component(engine, path)
    except BadArtifact:
        # One for our own world is of an engine with other settings.
        ours = interfaces.load(prepared.components, path) if prepared.components is not None else None
        if prepared.components is None or ours is None:
            raise
        return components.run(prepared.components, ours, spec, started)
    wasi = wasi_config(spec)
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    store = wasmtime.Store(engine)
    store.set_wasi(wasi)
    store.set_epoch_deadline(direct.NEVER)
    if spec.get("memory"):
        store.set_limits(*limits.of_component(spec["memory"]))
    return code.run(store, started)


def compile(wasm: bytes) -> bytes:  # noqa: A001 - the name that the worker asks for
    """Compile a module or component.

    What it imports and exports has been checked (`wasmlet.runtime.linking`), but for types that are not known there.

    Raises:
        ValueError: it is not valid, or its imports do not fit.
    """
    if components.is_component(wasm):
        ours = interfaces.needs_world(wasm)
        return components.compiled(wasmtime.Engine(configuration(parallel=True, own_world=ours)), wasm, own_world=ours)
    return compiled(wasmtime.Engine(configuration(parallel=True)), wasm)


def compiled(engine: wasmtime.Engine, wasm: bytes) -> bytes:
    """As `compile`, for modules only."""
    try:
        module = wasmtime.Module(engine, wasm)
    except wasmtime.WasmtimeError as error:
        raise ValueError(refusal("module", error)) from error
    linker = linked(engine)
    socketed.define_seconds(direct.pointer(linker), socketed.wanted(direct.pointer(module)).seconds)
    try:
        linker.instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        raise ValueError(f"the module's imports do not fit: {causes(error)}") from error
    return bytes(module.serialize())
