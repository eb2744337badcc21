"""Modules that wasmer cannot run, and artifacts that it must not load."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path

import pytest
from wasmlet_wasmer import WasmerEngine

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.text import ENTRIES, START, all_functions, entry, text_module
from wasmlet.runtime.wasi import PREVIEW0, PREVIEW1

GUEST = WasmerEngine().guest_module
CANNOT = "wasmer cannot run this module: it needs"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"(module (memory 1 2 shared) {START})", f"{CANNOT} threads"),
        (
            '(module (memory 1) (func (export "_start") (drop (i32.atomic.load (i32.const 0)))))',
            f"{CANNOT} threads, which this engine does not have",
        ),
        (f"(module (memory i64 1) {START})", f"{CANNOT} memory64"),
        ("(component)", "is a WebAssembly component, which wasmer does not run in pods of handler wasmlet-wasmer"),
        ('(module (func $f) (func (export "_start") (return_call $f)))', f"{CANNOT} tail calls"),
        ('(module (tag $t) (func (export "_start") (throw $t)))', f"{CANNOT} exceptions"),
        (f"(module (memory 1) (memory 1) {START})", f"{CANNOT} several memories"),
        (
            f"(module (type $s (struct (field i32))) {START})",
            f"{CANNOT} garbage collection, which this engine does not have",
        ),
        (
            '(module (import "env" "conjure" (func)) (func (export "_start")))',
            "does not exist here: env.conjure; expected imports of wasi_snapshot_preview1",
        ),
        ('(module (import "env" "memory" (memory 1)) (func (export "_start")))', "does not exist here: env.memory"),
        (
            '(module (import "wasmlet" "memory" (memory 1)) (func (export "_start")))',
            "does not exist here: wasmlet.memory",
        ),
        (
            '(module (import "wasi_snapshot_preview1" "sock_accept" (func (param i32 i32 i32) (result i32)))'
            f' (memory (export "memory") 1) {START})',
            "does not exist here: wasi_snapshot_preview1.sock_accept; wasmer 1.1.0 gives its guests no sockets: run it",
        ),
        (
            '(module (import "env" "a" (func)) (import "env" "b" (func)) (import "env" "c" (global i32))'
            f' (import "env" "d" (table 1 funcref)) (import "x" "e" (func)) (import "x" "f" (func)) {START})',
            "does not exist here: env.a, env.b, env.c, env.d, x.e and 1 more",
        ),
        (
            '(module (memory 1) (func (export "_start") (drop (f32x4.relaxed_madd (v128.const i32x4 0 0 0 0)'
            " (v128.const i32x4 0 0 0 0) (v128.const i32x4 0 0 0 0)))))",
            f"{CANNOT} relaxed SIMD",
        ),
        (f'(module (tag (export "t")) {START})', f"{CANNOT} exceptions"),
        (f"(module (global i32 (i32.add (i32.const 1) (i32.const 2))) {START})", f"{CANNOT} extended constant"),
        ('(module (func (export "_start") (drop (ref.i31 (i32.const 1)))))', f"{CANNOT} garbage collection"),
        (f"(module (rec (type (func)) (type (func))) {START})", f"{CANNOT} garbage collection"),
        (f"(module (table i64 1 funcref) {START})", f"{CANNOT} memory64"),
        (f"(module (memory 1 (pagesize 1)) {START})", f"{CANNOT} custom page sizes"),
        (f'(module (import "wasi_snapshot_preview1" "fd_close" (func)) {START})', "incompatible import type"),
        (
            f'(module (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32))) {START})',
            "the module exports no memory",
        ),
        ('(module (func (export "run")))', "has no _start function"),
        ('(module (func (export "_start") (param i32)))', "has no _start function"),
        ('(module (memory (export "_start") 1))', "has no _start function"),
    ],
)
async def test_what_it_cannot_run(timed: Runtime, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "guest.wasm"
    path.write_bytes(text_module(text))
    key = await timed.create(pod_of(image=f"file://{path}"))
    waiting = await timed.waiting(key, "CreateContainerError")
    assert message in waiting.message
    assert "Traceback" not in waiting.message
    assert (await timed.event(key, "Failed", message)).type == "Warning"
    assert not list(timed.state_dir.rglob("*.new"))


@pytest.mark.parametrize(
    "text",
    [
        f"(module {START})",
        f"(module (memory 0) {START})",
        f'(module (memory (export "memory") 1 3) (data (i32.const 0) "x") {START})',
        '(module (func (export "_start") (drop (i8x16.splat (i32.const 1)))))',
        f'(module (memory (export "memory") 65536) {START})',
        f'(module (memory (export "a") (export "memory") 1) (global i32 (i32.const 1)) (table 2 funcref) {START})',
    ],
)
async def test_what_it_can_run(timed: Runtime, tmp_path: Path, text: str) -> None:
    path = tmp_path / "guest.wasm"
    path.write_bytes(text_module(text))
    assert (await timed.ended(await timed.create(pod_of(image=f"file://{path}")))).exit_code == 0


async def test_a_truncated_module(timed: Runtime, driver: Path, tmp_path: Path) -> None:
    whole = await asyncio.to_thread(driver.read_bytes)
    path = tmp_path / "guest.wasm"
    for size in (8 + 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        key = await timed.create(pod_of(name=f"cut-{size}", image=f"file://{path}"))
        assert "not a valid WebAssembly module" in (await timed.waiting(key, "CreateContainerError")).message


@pytest.mark.parametrize("damage", ["cut", "head", "foreign"])
async def test_an_artifact_that_cannot_be_loaded_is_compiled_again(timed: Runtime, image: str, damage: str) -> None:
    await timed.ended(await timed.create(pod_of("print", "x", image=image)))
    (artifact,) = (timed.state_dir / "runtime" / "images" / "compiled").iterdir()
    whole = artifact.read_bytes()
    bad = {"cut": whole[: len(whole) // 2], "head": whole[:20], "foreign": whole[52:]}[damage]
    artifact.unlink()
    form, _, _ = artifact.name.rpartition("-")
    artifact.with_name(f"{form}-{hashlib.sha256(bad).hexdigest()}").write_bytes(bad)
    key = await timed.create(pod_of("print", "y", name="next", image=image, restart="OnFailure"))
    status = await timed.main(key, lambda s: s.restart_count == 1 and type(s.state).__name__ == "Terminated")
    assert status.state.exit_code == 0  # type: ignore[union-attr]
    assert await timed.log(key) == b"y\n"
    before = status.last_state
    assert before is not None
    assert (before.exit_code, before.reason) == (128, "StartError")
    assert "the compiled module cannot be loaded" in before.message


MUTATE = """
import importlib.util, random, sys
spec = importlib.util.spec_from_file_location("guest", sys.argv[1])
guest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guest)
rng = random.Random(int(sys.argv[3]))
whole = open(sys.argv[2], "rb").read()
compiled = refused = 0
for _ in range(1000):
    wasm = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 8))):
        wasm[rng.randrange(8, len(wasm))] = rng.randrange(256)
    if rng.random() < 0.2:
        del wasm[rng.randrange(8, len(wasm)):]
    try:
        guest.compile(bytes(wasm))
        compiled += 1
    except ValueError as error:
        refused += bool(str(error))
print(compiled, refused)
"""
SMALL = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1 4)
  (table 2 funcref)
  (global $n (mut i32) (i32.const 3))
  (elem (i32.const 0) $main)
  (data (i32.const 8) "\\10\\00\\00\\00\\03\\00\\00\\00hi\\n")
  (func $main (result i32)
    (block $out (loop $again
      (br_if $out (i32.eqz (global.get $n)))
      (global.set $n (i32.sub (global.get $n) (i32.const 1)))
      (br $again)))
    (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))
  (func (export "_start") (call $exit (call_indirect (result i32) (i32.const 0)))))
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_modules(wasmer: Path, tmp_path: Path, seed: int) -> None:
    """Each is compiled or refused with a reason, all in one process: none of them brings it down."""
    path = tmp_path / "small.wasm"
    path.write_bytes(text_module(SMALL))
    answer = subprocess.run(
        [wasmer, "-I", "-c", MUTATE, GUEST, path, str(seed)], capture_output=True, text=True, timeout=100
    )
    assert answer.returncode == 0, answer.stderr
    compiled, refused = map(int, answer.stdout.split())
    assert compiled + refused == 1000
    assert compiled > 50
    assert refused > 500


@pytest.mark.parametrize("module", [PREVIEW0, PREVIEW1])
async def test_the_functions_of_wasmer(timed: Runtime, tmp_path: Path, module: str) -> None:
    """A module that imports all that the engine says it has can be linked, whichever preview it is for."""
    links = WasmerEngine.links
    assert links is not None
    path = tmp_path / "all.wasm"
    path.write_bytes(all_functions(links, module))
    assert (await timed.ended(await timed.create(pod_of(image=f"file://{path}")))).exit_code == 0


async def test_a_command_for_preview_0(timed: Runtime, tmp_path: Path) -> None:
    """It writes, and ends with its own code, beside a mount that is read-only."""
    path = tmp_path / "old.wasm"
    path.write_bytes(text_module(SMALL.replace(PREVIEW1, PREVIEW0)))
    spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounts = [{"name": "v", "mountPath": "/v", "readOnly": True}]
    key = await timed.create(pod_of(image=f"file://{path}", spec=spec, volumeMounts=mounts))
    assert (await timed.ended(key)).exit_code == 0
    assert await timed.log(key) == b"hi\n"


async def test_where_a_module_begins(timed: Runtime, tmp_path: Path) -> None:
    keys = {}
    for number, which in enumerate(name for name in ENTRIES if name != "a memory is no function"):
        path = tmp_path / f"{number}.wasm"
        path.write_bytes(entry(which))
        keys[which] = await timed.create(pod_of(image=f"file://{path}", name=f"p{number}"))
    found = {which: (await timed.ended(key)).exit_code for which, key in keys.items()}
    assert found == {which: ENTRIES[which][1] for which in keys}
