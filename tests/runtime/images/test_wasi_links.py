"""What wasmtime says it has for modules and components is what it has."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import wasmtime
from wasmlet_wasmtime import WasmtimeEngine

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.text import ENTRIES, all_functions, entry
from wasmlet.model.inputs import Inputs
from wasmlet.runtime import DENSE
from wasmlet.runtime.wasi import PREVIEW1, PREVIEW1_FUNCTIONS

WASI_0_2 = {
    "cli/environment": "get-arguments", "cli/exit": "exit", "cli/stdin": "get-stdin", "cli/stdout": "get-stdout",
    "cli/stderr": "get-stderr", "cli/terminal-stdin": "get-terminal-stdin",
    "cli/terminal-stdout": "get-terminal-stdout", "cli/terminal-stderr": "get-terminal-stderr",
    "clocks/monotonic-clock": "now", "clocks/wall-clock": "now",
    "filesystem/preopens": "get-directories", "io/poll": "poll", "random/random": "get-random-u64",
    "random/insecure": "get-insecure-random-u64", "random/insecure-seed": "insecure-seed",
    "sockets/instance-network": "instance-network", "sockets/udp-create-socket": "create-udp-socket",
    "sockets/tcp-create-socket": "create-tcp-socket", "sockets/ip-name-lookup": "resolve-addresses",
    "cli/terminal-input": "", "cli/terminal-output": "", "filesystem/types": "", "io/error": "", "io/streams": "",
    "sockets/network": "", "sockets/udp": "", "sockets/tcp": "", "http/types": "", "clocks/timezone": "display",
    "http/outgoing-handler": "handle", "config/store": "get", "keyvalue/store": "open",
}  # fmt: skip
"""Interfaces, and a function of each; "" where a resource says as much."""
RESOURCES = {"cli/terminal-input": "terminal-input", "cli/terminal-output": "terminal-output", "io/error": "error",
             "filesystem/types": "descriptor", "io/streams": "input-stream", "sockets/network": "network",
             "sockets/udp": "udp-socket", "sockets/tcp": "tcp-socket", "http/types": "fields"}  # fmt: skip


@pytest.mark.parametrize("interface", WASI_0_2)
def test_the_interfaces_of_wasmtime(interface: str) -> None:
    """Those that the engine says it has are those that it has, in wasmtime's own world or in ours."""
    from wasmlet_wasmtime.p2 import interfaces, world
    from wasmtime import component

    thing = f'(export "{WASI_0_2[interface]}" (func))'
    if not WASI_0_2[interface]:
        thing = f'(export "{RESOURCES[interface]}" (type (sub resource)))'
    engine = wasmtime.Engine()
    linker = component.Linker(engine)
    linker.add_wasip2()
    made = component.Component(engine, f'(component (import "wasi:{interface}@0.2.0" (instance {thing})))')
    try:
        linker.instantiate(wasmtime.Store(engine), made)
        found = True
    except wasmtime.WasmtimeError as error:
        found = "implementation is missing" not in str(error)  # else the function is there, and of another type
    if interfaces.needs_world(f"wasi:{interface}@0.2.0".encode()):
        found = any(name.startswith(f"wasi:{interface}.") for name in world.functions)
    links = WasmtimeEngine.links
    assert links is not None
    assert (f"wasi:{interface}@0.2" in links.interfaces) is found


@pytest.mark.parametrize("handler", ["wasmlet", "wasmlet-dense"])
async def test_the_functions_of_wasmtime(runtime: Runtime, tmp_path: Path, handler: str) -> None:
    """A module that imports all that the engine says it has can be linked."""
    links = WasmtimeEngine.links
    assert links is not None
    path = tmp_path / "all.wasm"
    path.write_bytes(all_functions(links))
    key = await runtime.create(pod_of(image=f"file://{path}"), Inputs(runtime_handler=handler))
    assert (await runtime.ended(key)).exit_code == 0
    assert len(PREVIEW1_FUNCTIONS) == 46
    assert links.functions[PREVIEW1].keys() > PREVIEW1_FUNCTIONS.keys()


@pytest.mark.parametrize("handler", ["wasmlet", "wasmlet-dense"])
async def test_the_other_types_of_functions_of_wasmtime(runtime: Runtime, tmp_path: Path, handler: str) -> None:
    """A module that imports functions under their second types starts, and there is no network for it."""
    links = WasmtimeEngine.links
    assert links is not None
    path = tmp_path / "others.wasm"
    path.write_bytes(all_functions(attrs.evolve(links, functions=links.others)))
    key = await runtime.create(pod_of(image=f"file://{path}"), Inputs(runtime_handler=handler))
    assert (await runtime.ended(key)).exit_code == 0


@pytest.mark.parametrize("handler", ["wasmlet", "wasmlet-dense"])
async def test_where_a_module_begins(runtime: Runtime, tmp_path: Path, handler: str) -> None:
    keys = {}
    for number, which in enumerate(ENTRIES):
        path = tmp_path / f"{number}.wasm"
        path.write_bytes(entry(which))
        pod = pod_of(image=f"file://{path}", name=f"p{number}")
        keys[which] = await runtime.create(pod, Inputs(runtime_handler=handler))
    found = {which: (await runtime.ended(key)).exit_code for which, key in keys.items()}
    assert found == {which: code for which, (_, code) in ENTRIES.items()}
    assert DENSE in WasmtimeEngine.handlers.values()
