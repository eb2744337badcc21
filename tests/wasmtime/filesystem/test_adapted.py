"""A module of preview 1, made a component by the public adapter, finds the same in our world as in wasmtime's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.guests import build, languages
from tests.wasmtime.filesystem.scenarios import HERE

DOES = (
    "print hello", "mkdir /0/d", "put /0/d/f text", "append /0/d/f more", "cat /0/d/f", "rename /0/d/f /0/g",
    "stat /0/g", "link /0/g /0/h", "symlink g /0/l", "cat /0/l", "cat /0/../secret", "symlink ../secret /0/out",
    "cat /0/out", "open /0/missing", "rmdir /0/g", "rmdir /0/d", "unlink /0/h", "ls /0", "deep /0/x 3", "mkdir /0/x",
    "terminal", "exit 7",
)  # fmt: skip


@pytest.mark.parametrize("world", ["ours", "native"])
def test_a_command(world: str, compile_guest: Callable[..., None]) -> None:
    component = languages.adapted(build("driver", compile_guest))
    asked = [{"before": [], "lines": " ".join(DOES).split()}]
    answer = subprocess.run(
        [sys.executable, str(HERE / "run_world.py"), world, str(component)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    (found,) = json.loads(answer.stdout)
    assert found["outside"] == ["mount", "output", "secret", "outside"]
    assert found["ended"] == "exited 1"  # preview 2 says only that it has failed
    assert found["lines"] == [
        "hello", "mkdir /0/d: ok", "put /0/d/f: ok", "append /0/d/f: ok", "textmorerename /0/d/f: ok",
        "stat /0/g: file of 8 bytes", "link /0/g: ok", "symlink /0/l: ok",
        "textmorecat /0/../secret: Operation not permitted", "symlink /0/out: ok",
        "cat /0/out: Operation not permitted", "No such file or directory", "rmdir /0/g: Not a directory",
        "rmdir /0/d: ok", "unlink /0/h: ok", "g l out", "deep /0/x: No such file or directory", "mkdir /0/x: ok", "000",
    ]  # fmt: skip
