"""Guests under wasmer: what they are given, what they write, how they end and are ended."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import wasmtime
from wasmlet_wasmer import WasmerProvider
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.test_randomness import PODS, drawn
from tests.shared.machine import may_limit
from wasmlet.model.status import Running
from wasmlet.runtime import RuntimeConfig

MIB = 1 << 20


async def test_what_a_guest_is_given(runtime: Runtime, image: str) -> None:
    variables = [{"name": "SIGNS", "value": "a=b c\n=ü"}, {"name": "EMPTY", "value": ""}]
    key = await runtime.create(
        pod_of("args", "env", "SIGNS", "env", "EMPTY", "env", "HOME", image=image, env=variables)
    )
    assert (await runtime.ended(key)).exit_code == 0
    words = ["driver.wasm", "args", "env", "SIGNS", "env", "EMPTY", "env", "HOME"]
    expected = "\n".join([*words, "SIGNS=a=b c\n=ü", "EMPTY=", "HOME is not set", ""])
    assert (await runtime.log(key)).decode() == expected


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (125, 125), (126, 126), (255, 255), (300, 44), (-1, 255)])
async def test_exit_codes(runtime: Runtime, image: str, code: int, seen: int) -> None:
    key = await runtime.create(pod_of("part", "no newline", "exit", str(code), image=image))
    ended = await runtime.ended(key)
    assert (ended.exit_code, ended.message) == (seen, "")
    assert (await runtime.log(key)).rstrip(b"\n") == b"no newline"


async def test_no_two_guests_get_the_same_random_bytes(runtime: Runtime, tmp_path: Path) -> None:
    assert len(set(await drawn(runtime, tmp_path, "wasmlet-wasmer"))) == PODS


async def test_a_trap_says_where(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("print", "before", "trap", image=image))
    ended = await runtime.ended(key)
    assert (ended.exit_code, ended.reason) == (134, "Error")
    first, *frames = ended.message.splitlines()
    assert first == "wasm trap: unreachable"
    assert [frame.split()[1] for frame in frames] == ["main", "__main_void", "_start"]
    assert await runtime.log(key) == f"before\n{ended.message}\n".encode()


async def test_a_trap_names_the_places_that_wasmtime_names(runtime: Runtime, image: str, tmp_path: Path) -> None:
    """The module that is compiled has another import; offsets are those of the module as its owner has it."""
    pod = pod_of("trap", image=image)
    places = []
    async with Runtime(WasmtimeProvider, tmp_path / "other") as other:
        for one in (runtime, other):
            message = (await one.ended(await one.create(pod))).message
            places.append(re.findall(r"0x[0-9a-f]+", message))
    assert places[0] == places[1] != []


async def test_endless_recursion(runtime: Runtime, image: str) -> None:
    ended = await runtime.ended(await runtime.create(pod_of("recurse", image=image)))
    assert ended.exit_code == 134
    assert ended.message.startswith("wasm trap: call stack exhausted\n    at recurse (driver.wasm[")
    assert ended.message.splitlines()[-1].strip().startswith("at _start (driver.wasm[")
    assert len(ended.message.encode()) <= 4096


async def test_a_mebibyte_on_each_stream(runtime: Runtime, walker: Path) -> None:
    lines = MIB // 64
    key = await runtime.create(pod_of("both", str(lines), image=f"file://{walker}"))
    assert (await runtime.ended(key)).exit_code == 0
    assert await runtime.log(key) == (b"x" * 63 + b"\n") * (2 * lines)


@pytest.mark.parametrize("grace", [30, 0])
@pytest.mark.parametrize("word", [("sleep", "100000"), ("spin",)])
async def test_stopping(runtime: Runtime, image: str, word: tuple[str, ...], grace: int) -> None:
    key = await runtime.create(pod_of("print", "here", *word, image=image))
    await runtime.logged(key, b"here\n")
    assert isinstance((await runtime.running(key)).state, Running)
    async with asyncio.timeout(25):  # long before the grace period is over
        final = await runtime.provider.delete_pod(key, grace)
    assert final is not None
    assert final.containers[0].state.exit_code == (143 if grace else 137)


async def test_a_start_function_may_end_it(runtime: Runtime, tmp_path: Path) -> None:
    exits, traps = tmp_path / "exits.wasm", tmp_path / "traps.wasm"
    exits.write_bytes(
        wasmtime.wat2wasm(
            '(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
            ' (memory (export "memory") 1) (func $s (call $exit (i32.const 7))) (start $s) (func (export "_start")))'
        )
    )
    traps.write_bytes(wasmtime.wat2wasm('(module (func $s unreachable) (start $s) (func (export "_start")))'))
    ended = await runtime.ended(await runtime.create(pod_of(name="exits", image=f"file://{exits}")))
    assert (ended.exit_code, ended.reason) == (7, "Error")
    ended = await runtime.ended(await runtime.create(pod_of(name="traps", image=f"file://{traps}")))
    assert (ended.exit_code, ended.reason) == (134, "Error")
    assert ended.message.startswith("wasm trap: unreachable")


async def test_memory_has_a_limit(runtime: Runtime, image: str) -> None:
    limits = {"limits": {"memory": "64Mi"}}
    key = await runtime.create(pod_of("alloc", "10", "alloc", "120", "print", "goes on", image=image, resources=limits))
    ended = await runtime.ended(key)
    if may_limit("memory"):
        assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
    else:
        assert ended.exit_code == 0
        assert await runtime.log(key) == b"10 MiB\nno memory\ngoes on\n"


async def test_memory_without_a_limit(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("alloc", "100", image=image))
    assert (await runtime.ended(key)).exit_code == 0
    assert await runtime.log(key) == b"100 MiB\n"


async def test_a_limit_below_what_the_module_begins_with(wasmer: Path, tmp_path: Path, image: str) -> None:
    """Without control groups the engine says so; with them, what counts is the memory that a guest touches."""
    config = RuntimeConfig(allow_local_modules=True, cgroups=False)
    async with Runtime(WasmerProvider, tmp_path / "ungrouped", config) as runtime:
        key = await runtime.create(pod_of(image=image, resources={"limits": {"memory": "1Mi"}}))
        ended = await runtime.ended(key)
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert "its memory of" in ended.message
    assert "exceeds the limit of 1048576 bytes" in ended.message


PANICS = """
(module
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (drop (call $name (i32.const 3) (i32.const 0) (i32.const 1)))))
"""


async def test_what_brings_wasmer_down_is_a_trap(runtime: Runtime, tmp_path: Path) -> None:
    """wasmer 1.1 panics where the room for a name is just as long as the name."""
    module = tmp_path / "panics.wasm"
    module.write_bytes(wasmtime.wat2wasm(PANICS))
    key = await runtime.create(pod_of(image=f"file://{module}"))
    ended = await runtime.ended(key)
    assert (ended.exit_code, ended.reason) == (134, "Error")
    assert ended.message.startswith("wasmer gave up in a call of the guest's: index out of bounds")
