"""WebAssembly beyond its first version: what wasmtime has on by default runs, the rest is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs

MODULE = """
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  {parts}
  (func $main (export "_start") {locals} (call $exit {code})))
"""

# Each ends with 42, computed by what it is about.
RUN = {
    "simd": ("", "", "(i32x4.extract_lane 2 (i32x4.add (v128.const i32x4 1 2 40 4) (v128.const i32x4 1 2 2 4)))"),
    "relaxed simd": ("", "", """(i32.trunc_f32_s (f32x4.extract_lane 1 (f32x4.relaxed_madd
        (v128.const f32x4 0 10 0 0) (v128.const f32x4 0 4 0 0) (v128.const f32x4 0 2 0 0))))"""),
    "sign extension": ("", "", "(i32.add (i32.extend8_s (i32.const 0xff)) (i32.const 43))"),
    "saturating conversion": ("", "", "(i32.sub (i32.trunc_sat_f32_u (f32.const nan)) (i32.const -42))"),
    "bulk memory": ("""(memory 1) (data $d "\\2a")
        (func $fill (result i32) (memory.init $d (i32.const 1) (i32.const 0) (i32.const 1))
          (memory.copy (i32.const 9) (i32.const 1) (i32.const 1)) (i32.load8_u (i32.const 9)))""", "", "(call $fill)"),
    "several values": ("(func $two (result i32 i32) i32.const 40 i32.const 2)", "", "(i32.add (call $two))"),
    "reference types": ("""(table 1 funcref) (elem declare func $f) (func $f (result i32) (i32.const 42))
        (func $set (table.set (i32.const 0) (ref.func $f)))""", "",
        "(block (result i32) (call $set) (call_indirect (result i32) (i32.const 0)))"),
    "tail calls": ("""(func $count (param i32 i32) (result i32)
        (if (result i32) (local.get 0) (then (return_call $count (i32.sub (local.get 0) (i32.const 1)) (local.get 1)))
          (else (local.get 1))))""", "", "(call $count (i32.const 1000000) (i32.const 42))"),
    "several memories": ("(memory 1) (memory $m 1) (data (memory $m) (i32.const 0) \"\\2a\")", "",
        "(i32.load8_u $m (i32.const 0))"),
    "64-bit memory": ("(memory i64 1) (data (i64.const 7) \"\\2a\")", "", "(i32.load8_u (i64.const 7))"),
    "exceptions": ("(tag $t (param i32))", "",
        "(block $h (result i32) (try_table (catch $t $h) (throw $t (i32.const 42))) (i32.const 0))"),
    "an exported tag": ("(tag (export \"t\") (param i32))", "", "(i32.const 42)"),
    "garbage collection": ("(type $s (struct (field i32)))", "", "(struct.get $s 0 (struct.new $s (i32.const 42)))"),
    "function references": ("""(type $t (func (result i32))) (elem declare func $g)
        (func $g (type $t) (i32.const 42))""", "", "(call_ref $t (ref.func $g))"),
    "extended constants": ("(global $g i32 (i32.add (i32.const 40) (i32.const 2)))", "", "(global.get $g)"),
    "a start function": ("(global $g (mut i32) (i32.const 0)) (func $s (global.set $g (i32.const 42))) (start $s)", "",
        "(global.get $g)"),
}  # fmt: skip

THREADS = "a guest has one thread here: build it without threads (target wasm32-wasip1)"
REFUSED = {
    "threads": ("""(module (import "env" "memory" (memory 1 2 shared))
        (import "wasi" "thread-spawn" (func (param i32) (result i32))) (func (export "_start")))""", THREADS),
    "memory from outside": ("""(module (import "env" "memory" (memory 1 2 shared)) (func (export "_start")))""",
        "the module imports what does not exist here: env.memory"),
    "an imported tag": ("""(module (import "env" "tag" (tag)) (func (export "_start")))""",
        "the module imports what does not exist here: env.tag"),
    "pages of one byte": ("(module (memory 1 (pagesize 1)) (func (export \"_start\")))", "custom page sizes"),
    "stack switching": ("(module (type $f (func)) (type (cont $f)) (func (export \"_start\")))", "stack switching"),
}  # fmt: skip


def image_of(path: Path, text: str) -> str:
    path.write_bytes(wasmtime.wat2wasm(text))
    return f"file://{path}"


@pytest.mark.parametrize("handler", ["wasmlet", "wasmlet-dense"])
async def test_what_is_on_runs(runtime: Runtime, tmp_path: Path, handler: str) -> None:
    keys = {}
    for number, (name, (parts, variables, code)) in enumerate(RUN.items()):
        image = image_of(tmp_path / f"{number}.wasm", MODULE.format(parts=parts, locals=variables, code=code))
        keys[name] = await runtime.create(pod_of(image=image, name=f"p{number}"), Inputs(runtime_handler=handler))
    found = {name: await runtime.ended(key) for name, key in keys.items()}
    assert {name: (ended.exit_code, ended.message) for name, ended in found.items()} == dict.fromkeys(RUN, (42, ""))


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_not_is_refused(runtime: Runtime, tmp_path: Path, name: str) -> None:
    text, says = REFUSED[name]
    key = await runtime.create(pod_of(image=image_of(tmp_path / "x.wasm", text)))
    waiting = await runtime.waiting(key, "CreateContainerError")
    assert says in waiting.message
    assert "Error:" not in waiting.message


async def test_a_memory_for_threads(runtime: Runtime, tmp_path: Path) -> None:
    """wasmtime says so when the module starts."""
    image = image_of(tmp_path / "x.wasm", '(module (memory 1 2 shared) (func (export "_start")))')
    ended = await runtime.ended(await runtime.create(pod_of(image=image)))
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert ended.message == f"the module cannot be instantiated: it has a memory for threads to share; {THREADS}"
