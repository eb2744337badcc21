"""Which components need our own world, and the checks of all components that run in it.

Other components, without sockets or HTTP, run in wasmtime's own world, which starts faster.
"""

from __future__ import annotations

from typing import Any

import wasmtime
from wasmtime import component as components

from ..errors import causes
from . import fields, files, outgoing, streams, system, world
from .sockets import datagrams, tcp

COMMAND = "wasi:cli/run@0.2."
"""The beginning of the interface that a command exports; any version of 0.2 follows."""
_NEEDED = ("wasi:http/", "wasi:sockets/", "wasi:clocks/timezone@")
"""How the names of those interfaces begin that wasmtime's own world does not have, or cannot grant."""
_MODULES = (datagrams, fields, files, outgoing, tcp, streams, system)
"""The modules with the functions that guests import. Importing them here registers these functions."""


def needs_world(wasm: bytes) -> bool:
    """Whether a component needs this world, and an engine with the settings for it.

    It is decided by names of interfaces, which can be read in the file. A name that is there for another reason does no
    harm: the component only starts more slowly.
    """
    return any(name.encode() in wasm for name in _NEEDED)


def exported(engine: wasmtime.Engine, component: Any, begins: str) -> str | None:
    """The name of the interface among its exports that begins so; None where there is none."""
    return next((name for name in component.type.exports(engine) if name.startswith(begins)), None)


def check_imports(engine: wasmtime.Engine, component: Any) -> None:
    """Check that a component can be linked. Nothing of it runs, because the store has no room for an instance.

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
