"""The compile command with an engine that needs nothing: what it answers, and that it keeps to its descriptors."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.worker.harness import FAKE_ENGINE, WORKER


def compile_module(
    python: str, source: bytes, target: Path, engine: Path = FAKE_ENGINE, parent: int | None = None
) -> subprocess.CompletedProcess[str]:
    wasm = os.memfd_create("source")
    artifact = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(wasm, source)
        return subprocess.run(
            [
                python, "-I", str(WORKER), "compile", str(engine), str(wasm), str(artifact), str(2**29),
                str(parent or os.getpid()),
            ],
            pass_fds=(wasm, artifact),
            capture_output=True,
            text=True,
            env={},
        )  # fmt: skip
    finally:
        os.close(wasm)
        os.close(artifact)


def test_compiles(tmp_path: Path, python: str) -> None:
    answer = compile_module(python, b"\0asm" * 100_000, tmp_path / "out")
    assert (answer.returncode, json.loads(answer.stdout)) == (0, {})
    assert (tmp_path / "out").read_bytes() == b"compiled " + b"\0asm" * 100_000
    assert answer.stderr == "chatter of the engine\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"bad", {"error": "the module is bad"}),
        (b"broken", {"broken": "RuntimeError: the engine is broken"}),
        (b"greedy", {"broken": "MemoryError: "}),
    ],
)
def test_says_whose_fault_it_is(tmp_path: Path, python: str, source: bytes, expected: dict[str, str]) -> None:
    answer = compile_module(python, source, tmp_path / "out")
    assert json.loads(answer.stdout) == expected


def test_an_engine_that_is_not_there(tmp_path: Path, python: str) -> None:
    answer = compile_module(python, b"", tmp_path / "out", engine=tmp_path / "none.py")
    assert "FileNotFoundError" in json.loads(answer.stdout)["broken"]


def test_a_process_whose_parent_has_ended_does_nothing(tmp_path: Path, python: str) -> None:
    answer = compile_module(python, b"x", tmp_path / "out", parent=1)
    assert (answer.returncode, answer.stdout, (tmp_path / "out").read_bytes()) == (1, "", b"")
