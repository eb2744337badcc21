"""Which components need this world, and what is asked of all that it runs.

A component that imports or exports nothing of sockets or HTTP runs in wasmtime's own world, which starts faster.
"""

from __future__ import annotations

from typing import Any

import wasmtime
from wasmtime import component as components

from ..errors import causes
from . import fields, files, outgoing, streams, system, world
from .sockets import datagrams, tcp

COMMAND = "wasi:cli/run@0.2."
"""What a component exports that is a command, in whichever version of 0.2."""
_NEEDED = ("wasi:http/", "wasi:sockets/", "wasi:clocks/timezone@")
"""How the names of interfaces begin that wasmtime's own world has not, or cannot grant."""
_MODULES = (datagrams, fields, files, outgoing, tcp, streams, system)
"""Whose functions guests import; named here so that they are there."""


def needs_world(wasm: bytes) -> bool:
    """Whether a component needs this world, and an engine with which it can run here, by the names of what it imports.

    Names are plain in the file. One that is there and is no import's costs nothing but the faster start.
    """
    return any(name.encode() in wasm for name in _NEEDED)


def exported(engine: wasmtime.Engine, component: Any, begins: str) -> str | None:
    """The name of the interface among its exports that begins so; None where there is none."""
    return next((name for name in component.type.exports(engine) if name.startswith(begins)), None)


def check_imports(engine: wasmtime.Engine, component: Any) -> None:
    """Find out whether a component can be linked; nothing of it runs, because there is no room for it.

    Raises:
        ValueError: it cannot; the message says why.
    """
    linker = world.linker_of(engine, component, checked=False)
    store = wasmtime.Store(engine)
    store.set_limits(instances=0, memories=0)
    try:
        world.instantiate(linker, store, component)
    except wasmtime.WasmtimeError as error:
        text = causes(error)
        if not text.startswith("resource limit exceeded"):
            raise ValueError(f"the component's imports do not fit: {text}") from error


def load(engine: wasmtime.Engine, path: str) -> Any:
    """The compiled component in the file of this path; None where it is none of this engine."""
    try:
        return components.Component.deserialize_file(engine, path)
    except wasmtime.WasmtimeError:
        return None
