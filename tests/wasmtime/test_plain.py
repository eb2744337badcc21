"""The in-worker module for plain modules: what it does without, and that it runs what `guest` compiles."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest
from wasmlet_wasmtime import WasmtimeEngine, direct, guest
from wasmtime import _ffi as ffi
from wasmtime import wat2wasm

PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from wasmlet.worker.guest.zygote import load

engine = load(sys.argv[2])
prepared = engine.prepare()
loaded = sorted({"wasmtime", "ssl", "h11", "httptools"} & sys.modules.keys())
told = []
spec = {"args": ["a"], "env": [["NAME", "value"]], "mounts": [], "memory": 1 << 20}
try:
    found = engine.run(prepared, spec, sys.argv[3], lambda: told.append("started"))
except Exception as error:
    found = [type(error).__name__, str(error)]
print(json.dumps([loaded, told, found]))
"""
WASI = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'


def _run(compiled: Path) -> subprocess.CompletedProcess[str]:
    module = WasmtimeEngine().plain_module
    assert module is not None
    root = Path(__file__).parents[2]
    command = [sys.executable, "-I", "-c", PROGRAM, str(root), str(module), str(compiled)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _ran(tmp_path: Path, text: str) -> tuple[list[str], list[str], list[object]]:
    compiled = tmp_path / "compiled"
    compiled.write_bytes(guest.compile(bytes(wat2wasm(text))))
    loaded, told, found = json.loads(_run(compiled).stdout)
    return loaded, told, found


def test_it_loads_nothing_that_plain_modules_do_without(tmp_path: Path) -> None:
    text = '(module (memory (export "memory") 1) (func (export "_start")))'
    assert _ran(tmp_path, text) == ([], ["started"], [0, ""])


def test_any_exit_code_ends_the_process_with_it(tmp_path: Path) -> None:
    compiled = tmp_path / "compiled"
    text = f'(module {WASI} (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 200))))'
    compiled.write_bytes(guest.compile(bytes(wat2wasm(text))))
    ended = _run(compiled)
    assert (ended.returncode, ended.stdout) == (200, "")


def test_traps_have_their_texts(tmp_path: Path) -> None:
    _, told, found = _ran(tmp_path, '(module (func (export "_start") unreachable))')
    assert (told, found[0]) == (["started"], 134)
    assert "wasm `unreachable` instruction executed" in str(found[1])
    _, told, found = _ran(tmp_path, '(module (func $f unreachable) (start $f) (func (export "_start")))')
    assert (told, found[0]) == (["started"], 134)
    assert str(found[1]).startswith("error while executing")


def test_a_module_whose_memory_exceeds_the_limit_cannot_start(tmp_path: Path) -> None:
    _, told, found = _ran(tmp_path, '(module (memory (export "memory") 100) (func (export "_start")))')
    assert (told, found[0]) == ([], "ValueError")
    assert "memory minimum size of 100 pages exceeds memory limits" in str(found[1])


@pytest.mark.parametrize("content", [b"", b"\x7fELF and nothing else"])
def test_what_is_no_compiled_module_is_compiled_again(tmp_path: Path, content: bytes) -> None:
    compiled = tmp_path / "compiled"
    compiled.write_bytes(content)
    _, told, found = json.loads(_run(compiled).stdout)
    assert (told, found[0]) == ([], "BadArtifact")


def test_structures_are_as_large_as_those_of_the_engine() -> None:
    assert ctypes.sizeof(direct._instance) == ctypes.sizeof(ffi.wasmtime_instance_t)
    assert ctypes.sizeof(direct._extern) == ctypes.sizeof(ffi.wasmtime_extern_t)
    assert direct._at_function - ctypes.addressof(direct._extern) == ffi.wasmtime_extern_t.of.offset
    assert ffi.WASMTIME_EXTERN_FUNC.value == direct._FUNCTION
