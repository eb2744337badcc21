"""A guest that gives functions of sockets what makes no sense: each answers an error number, and the guest goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime
from wasmlet_wasmtime.functions import OWN, SECOND, SPLIT, WASMEDGE

RUNNER = Path(__file__).with_name("direct_run.py")
WASI = "wasi_snapshot_preview1"
SIZE = 65536
CLASSES = pytest.mark.parametrize("kind", ["process", "dense"])
DESCRIPTORS = (3, 0x4000, 0x4001, 0x4002, 0x4003, 0x5000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Those that are sockets, or never files: what the engine does with its own is its own affair."""
NUMBERS = (
    0,
    1,
    2,
    3,
    8,
    64,
    SIZE - 48,
    SIZE - 5,
    SIZE - 4,
    SIZE - 1,
    SIZE,
    SIZE + 1,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
FUNCTIONS = {**{name: split.params for name, split in SPLIT.items()}, **OWN, **WASMEDGE}
LEFT_OUT = ("path_link", "path_open", "path_rename", "path_symlink")
"""Of files alone."""
CLOCKS = f"(memory.fill (i32.const 0) (i32.const 0) (i32.const {SIZE}))"
ARRAYS = 1024
"""Where the guest has arrays of buffers that are partly outside of its memory."""


def module(functions: dict[str, str]) -> bytes:
    """Calls each function with every descriptor, and every number in place of each of its parameters, one at a time.

    It traps where an answer is no error number of WASI's. Its memory holds ones at first, so that what is read as a
    size is small, and zeros for subscriptions, which are of clocks that are due. Then it grows, and calls once more.
    """
    imports, bodies = [], []
    for name, params in functions.items():
        words = " ".join("i32" if param == "i" else "i64" for param in params)
        imports.append(f'(import "{WASI}" "{name}" (func ${name} (param {words}) (result i32)))')
        for place in range(len(params)):
            for number in NUMBERS if place else (0,):
                given = [f"(i32.const {ARRAYS})" if param == "i" else "(i64.const 0)" for param in params]
                given[0] = "(local.get $fd)"
                if place:
                    given[place] = f"(i32.const {number})" if params[place] == "i" else f"(i64.const {number})"
                bodies.append("(drop (call $flags (local.get $fd) (i32.const 4)))")  # that nothing waits
                bodies.append("(call $fill)" if name != "poll_oneoff" else CLOCKS)
                bodies.append(f"(call $check (call ${name} {' '.join(given)}))")
    each = "".join(f"(call $all (i32.const {fd}))" for fd in DESCRIPTORS)
    return bytes(
        wasmtime.wat2wasm(
            f"""(module {" ".join(imports)}
            (import "{WASI}" "fd_fdstat_set_flags" (func $flags (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func $check (param i32) (if (i32.gt_u (local.get 0) (i32.const 87)) (then unreachable)))
            (func $fill
              (memory.fill (i32.const 0) (i32.const 1) (i32.const {SIZE}))
              (i32.store (i32.const {ARRAYS}) (i32.const {SIZE - 2})))
            (func $all (param $fd i32) {" ".join(bodies)})
            (func (export "_start")
              (drop (call $flags (i32.const 3) (i32.const 4)))
              {each}
              (drop (memory.grow (i32.const 3)))
              {each}))"""
        )
    )


def run(tmp_path: Path, wasm: bytes, kind: str) -> str:
    """What the runner says, at the end how the guest ended."""
    path = tmp_path / "guest.wasm"
    path.write_bytes(wasm)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reader, writer = os.pipe()  # a standard input that stays open and has nothing
    command = [sys.executable, RUNNER, path, json.dumps({"ports": [port], "class": kind})]
    with open(reader, "rb") as stdin, open(writer, "wb"):
        answer = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=110, check=False)
    assert answer.returncode in (0, 1), answer
    return answer.stdout + answer.stderr


@CLASSES
def test_bad_pointers(tmp_path: Path, kind: str) -> None:
    functions = {name: params for name, params in FUNCTIONS.items() if name not in LEFT_OUT}
    assert '\nended [0, ""' in run(tmp_path, module(functions), kind)


@CLASSES
def test_bad_pointers_under_the_other_types(tmp_path: Path, kind: str) -> None:
    assert '\nended [0, ""' in run(tmp_path, module(dict(SECOND) | {"sock_open": "iii"}), kind)


@CLASSES
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('(memory (export "memory") i64 1)', "needs a memory of 32 bits"),
        ("(memory 1)", "exports no memory"),
        ('(memory (export "memory") 1) (func $f (drop (call $accept (i32.const 3) (i32.const 0) (i32.const 0))))'
         " (start $f)", "uses WASI in its start function"),
    ],
    ids=["memory64", "none", "start"],
)  # fmt: skip
def test_modules_that_cannot_have_sockets(tmp_path: Path, kind: str, text: str, says: str) -> None:
    accept = f'(import "{WASI}" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))'
    wasm = bytes(wasmtime.wat2wasm(f'(module {accept} {text} (func (export "_start")))'))
    assert says in run(tmp_path, wasm, kind)
