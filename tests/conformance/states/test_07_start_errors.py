"""A guest that cannot be started is not one that failed: CreateContainerError, and StartError with exit code 128."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube
from tests.conformance.reading import state, terminated


async def test_a_module_that_cannot_be_compiled(kube: Kube, tmp_path: Path) -> None:
    module = tmp_path / "broken.wasm"
    module.write_bytes(b"\0asm\x01\0\0\0\x01\xff")
    await kube.create(image=f"file://{module}")
    pod = await kube.waiting("CreateContainerError")
    assert "not a valid WebAssembly module" in state(pod)["waiting"]["message"]
    assert pod["status"]["phase"] == "Pending"


async def test_a_guest_that_cannot_be_instantiated(own: Own) -> None:
    """It begins with more memory than it may have; without control groups that is for the engine to say."""
    async with own(given={"cgroups": False}) as kube:
        await kube.create("print", "x", resources={"limits": {"memory": "64Ki"}})
        ended = terminated(await kube.phase("Failed"))
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "the module cannot be instantiated" in ended["message"]
