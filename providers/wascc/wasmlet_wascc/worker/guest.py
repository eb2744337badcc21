"""An actor inside a worker process: the three functions that `wasmlet.worker.guest.engines` asks of an engine.

Loaded by file path. It has the engine, the server of HTTP and the connections of `wasmlet_wasmtime` (`borrowed`).
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import wasmtime

from . import capability, imports, serving
from .actor import Code
from .borrowed import direct, errors, front, guest, wire
from .host import Host

_THREADS = 16
"""How many requests are read and wait for the actor at a time."""
_SECONDS = 60.0
HTTP = "wascc:http_server"
_OLD = 6
"""How many numbers `__host_call` takes if the actor names no bindings."""


class Prepared(NamedTuple):
    """What every child starts from.

    Attributes:
        linkers: for actors that name no bindings, and for those that do.
    """

    engine: wasmtime.Engine
    linkers: tuple[wasmtime.Linker, wasmtime.Linker]
    others: Mapping[str, Callable[[capability.Context], capability.Capability]]


def prepare() -> Prepared:
    """What every child starts from; no module and no thread."""
    os.environ["TOKIO_WORKER_THREADS"] = "1"  # WASI in wasmtime has threads of its own; an actor has one
    engine = wasmtime.Engine(guest.configuration(own_world=True))
    wire.trusted()
    linkers = imports.linker_of(engine, bindings=False), imports.linker_of(engine, bindings=True)
    return Prepared(engine, linkers, capability.others())


def run(prepared: Prepared, spec: dict[str, Any], module: str, started: Callable[[], None]) -> tuple[int, str]:
    """Serve an actor until its process ends.

    Raises:
        ValueError: it cannot start; the message says why.
    """
    if "engine" not in spec or spec.get("sockets") is None:
        raise ValueError(
            "an actor answers requests and runs no commands, and needs a network: expected a container of a pod on a "
            "node with a network (--network), not an exec"
        )
    loaded = guest.load(prepared.engine, module)
    linker = prepared.linkers[_names_bindings(loaded)]
    code = Code(*(direct.pointer(one) for one in (prepared.engine, linker, loaded)))
    settings = spec["network"].get("http") or {}
    seconds = float(settings.get("seconds") or _SECONDS)
    host = Host(code, spec, prepared.others, prepared.engine.increment_epoch, log)
    host.start()
    serves = HTTP in spec["engine"]["serves"]
    server = serving.Server(host, log, seconds)
    served = front.Front(
        _listeners(spec["sockets"]) if serves else (), server.handle, prepared.engine.increment_epoch, seconds, log,
        serving.LIMITS,
    )  # fmt: skip
    served.logs_access = bool(settings.get("log"))
    gc.enable()  # requests leave cycles behind
    try:
        served.listen()
    except OSError as error:
        raise ValueError(f"the actor cannot be served: {error.strerror}") from error
    signal.set_wakeup_fd(served.told, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    started()
    host.begin()
    served.serve(_THREADS, _leave)
    return 0, ""


def compile(wasm: bytes) -> bytes:  # noqa: A001 - the name that the worker asks for
    """Compile an actor. Its claims, and what it imports and exports, have been checked on the node.

    Raises:
        ValueError: it is not valid, or its imports do not fit.
    """
    engine = wasmtime.Engine(guest.configuration(parallel=True, own_world=True))
    try:
        module = wasmtime.Module(engine, wasm)
    except wasmtime.WasmtimeError as error:
        raise ValueError(errors.refusal("module", error)) from error
    try:
        imports.linker_of(engine, bindings=_names_bindings(module)).instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        raise ValueError(f"the actor's imports do not fit: {errors.causes(error)}") from error
    return bytes(module.serialize())


def log(text: str) -> None:
    """A line of the container's log."""
    line = f"{text}\n".encode(errors="replace")
    while line:
        line = line[os.write(2, line) :]


def _names_bindings(module: wasmtime.Module) -> bool:
    for wanted in module.imports:
        if wanted.module == imports.MODULE and wanted.name == "__host_call":
            kind = wanted.type
            return not isinstance(kind, wasmtime.FuncType) or len(kind.params) != _OLD
    return True


def _listeners(sockets: Any) -> tuple[int, ...]:
    """The sockets of the container's first port; those of others are closed."""
    first, *others = sockets.open_listeners()
    for descriptors in others:
        for descriptor in descriptors:
            os.close(descriptor)
    return tuple(first)


def _leave() -> None:
    """End as a guest that is interrupted does."""
    os._exit(128 + signal.SIGTERM)
