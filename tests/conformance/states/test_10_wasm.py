"""How a guest ends is told as for a container: a trap is an Error, proc_exit(n) is n, too little memory is seen.

A trap has exit code 134, as abort() has, and its text and backtrace are the message. A guest that takes more memory
than its limit is OOMKilled where the node may make control groups; elsewhere the engine refuses it what is too much.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from tests.conformance.harness import Kube
from tests.conformance.reading import terminated

START = '(module (func $f unreachable) (func (export "_start")) (memory (export "memory") 1) (start $f))'


@pytest.mark.parametrize(
    ("word", "text"), [("trap", "unreachable"), ("recurse", "call stack exhausted"), ("abort", "unreachable")]
)
async def test_a_trap(kube: Kube, word: str, text: str) -> None:
    await kube.create(word)
    pod = await kube.phase("Failed")
    ended = terminated(pod)
    assert (ended["exitCode"], ended["reason"]) == (134, "Error")
    assert text in ended["message"]


async def test_a_trap_in_the_start_section(kube: Kube, tmp_path: Path) -> None:
    module = tmp_path / "start.wasm"
    module.write_bytes(wasmtime.wat2wasm(START))
    await kube.create(image=f"file://{module}")
    pod = await kube.phase("Failed")
    ended = terminated(pod)
    assert (ended["exitCode"], ended["reason"]) == (134, "Error")
    assert "unreachable" in ended["message"]


@pytest.mark.parametrize("code", [0, 1, 125, 126, 200, 255])
async def test_an_exit_code(kube: Kube, code: int) -> None:
    await kube.create("exit", str(code))
    ended = terminated(await kube.ended())
    assert ended["exitCode"] == code
    assert ended["reason"] == ("Completed" if code == 0 else "Error")


async def test_a_limit_of_memory(kube: Kube) -> None:
    limits = {"resources": {"limits": {"memory": "40Mi"}}}
    await kube.create("alloc", "8", name="within", **limits)
    await kube.create("alloc", "80", name="above", **limits)
    assert await kube.output("within") == "8 MiB\n"
    ended = terminated(await kube.ended("above"))
    if kube.machine.oom_kills:
        assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
    else:
        assert await kube.output("above") == "no memory\n"
