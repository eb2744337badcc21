"""What `wasmlet demo` shows on a terminal while a module is compiled, and that it shows nothing of it elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from tests.cli.terminal import on_a_terminal

FUNCTIONS = 2500
"""Some seconds of compiling, of which the first passes in silence."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module that takes long to compile and then ends."""
    step = "(local.set 0 (i32.add (i32.mul (local.get 0) (i32.const {})) (i32.rotl (local.get 0) (i32.const {}))))"
    body = " ".join(step.format(7 * k + 1, k % 31) for k in range(200))
    functions = "".join(f"(func $f{n} (param i32) (result i32) {body} (local.get 0))" for n in range(FUNCTIONS))
    names = " ".join(f"$f{n}" for n in range(FUNCTIONS))
    text = f'(module (memory (export "memory") 1) {functions} (table funcref (elem {names})) (func (export "_start")))'
    file = tmp_path_factory.mktemp("large") / "large.wasm"
    file.write_bytes(wasmtime.wat2wasm(text))
    return file


def test_compiling_is_shown_on_a_terminal(large: Path) -> None:
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    text = on_a_terminal("demo", "--port", "0", large, environment=environment, output=True, seconds=250)
    assert re.search(r'compiling module of image "file://./large.wasm" with wasmtime \S+ 0:00:0\d', text)
    assert "pod/large      Succeeded" in text
    # The line is gone before the next one is written.
    after = text[text.rindex("compiling module") :].partition("\n")[2]
    assert "pod/large      Running" in text[text.rindex("compiling module") :]
    assert "compiling" not in after
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)


def test_nothing_of_it_is_written_elsewhere(large: Path) -> None:
    command = [sys.executable, "-m", "wasmlet", "demo", "--port", "0", str(large)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "compiling" not in done.stdout
    assert "\x1b" not in done.stdout
