"""Modules that are files of the node: which pods may run, and one answer for all the others."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.images.images import ImageError, Images
from wasmlet.testing.clock import FakeClock


def answer_to(image: str, where: str = "") -> str:
    """What is said of every file that is no module which pods may run."""
    return (
        f"image {image!r} is no module that pods may run: the file has to exist{where}, to be a regular file that the "
        "node may read, and to begin as WebAssembly does, with the bytes 00 61 73 6d; the node's log says what was "
        "found"
    )


@pytest.fixture
def modules(driver: Path, tmp_path: Path) -> Path:
    """A module directory with links into it and out of it, and a module and other things beside it."""
    inside, outside = tmp_path / "modules", tmp_path / "outside"
    for directory in (inside / "below", outside):
        directory.mkdir(parents=True)
    for module in (inside / "guest.wasm", outside / "guest.wasm"):
        module.write_bytes(driver.read_bytes())
    (inside / "relative.wasm").symlink_to("guest.wasm")
    (inside / "absolute.wasm").symlink_to(inside / "guest.wasm")
    (inside / "out.wasm").symlink_to("../outside/guest.wasm")
    (inside / "far.wasm").symlink_to(outside / "guest.wasm")
    (inside / "out").symlink_to(outside)
    (inside / "text.wasm").write_text("no module")
    os.mkfifo(inside / "fifo.wasm")
    return inside


INSIDE = ["./guest.wasm", "./below/../guest.wasm", "./relative.wasm", "./absolute.wasm", "TOP/modules/guest.wasm"]


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("name", INSIDE)
async def test_modules_in_the_module_directory(modules: Path, driver: Path, name: str, linked: bool) -> None:
    (modules.parent / "link").symlink_to(modules)
    directory = modules.parent / "link" if linked else modules
    found = await Images(True, directory, 2**28).find(f"file://{name.replace('TOP', str(modules.parent))}")
    assert (found.path, found.command) == (modules / found.path.name, (Path(name).name,))
    assert found.digest == hashlib.sha256(await asyncio.to_thread(driver.read_bytes)).hexdigest()


OUTSIDE = [
    "../outside/guest.wasm", "../outside", "../outside/none.wasm", "../nowhere/x.wasm", "./../outside/guest.wasm",
    "./below/../../outside/guest.wasm", "./%2e%2e/outside/guest.wasm", "./../modules/guest.wasm", "./out.wasm",
    "./far.wasm", "./out/guest.wasm", "./out/../guest.wasm", "./out/none", "./none.wasm", "./below", "./text.wasm",
    "./fifo.wasm", "./text.wasm/x", "/etc/passwd", "/etc", "/etc/none", "/dev/null", "/proc/1/root/x", "TOP/outside",
    "TOP/modules", "TOP/modules/none.wasm", "/" + "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
async def test_everything_else_gets_one_answer(modules: Path, name: str) -> None:
    image = f"file://{name.replace('TOP', str(modules.parent))}"
    with pytest.raises(ImageError) as caught:
        await Images(True, modules, 2**28).find(image)
    where = "" if image.startswith("file:///") else " in the node's module directory"
    assert str(caught.value) == answer_to(image, where)
    assert (caught.value.reason, caught.value.absent) == ("ErrImagePull", True)


async def test_what_was_found_is_in_the_log_of_the_node(modules: Path) -> None:
    with structlog.testing.capture_logs() as logs, pytest.raises(ImageError):
        await Images(True, modules, 2**28).find("file://./fifo.wasm")
    assert [entry["why"] for entry in logs] == ["fifo.wasm: expected a regular file, found a named pipe"]


async def test_a_pod_learns_nothing_of_the_files_of_the_node(timed: Runtime, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    told = []
    for number, path in enumerate((tmp_path / "none", tmp_path / "text", tmp_path)):
        for policy in ("Never", "IfNotPresent"):
            key = await timed.create(
                pod_of(name=f"p{number}-{policy.lower()}", image=f"file://{path}", imagePullPolicy=policy)
            )
            waiting = await timed.waiting(key, "ErrImageNeverPull" if policy == "Never" else "ErrImagePull")
            told.append((policy, waiting.message.replace(str(path), "PATH")))
    assert len(set(told)) == 2


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def _huge_module(path: Path) -> None:
    path.write_bytes(b"\0asm\1\0\0\0")
    os.truncate(path, 2**40)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "is no module that pods may run"),
        (_fifo, "is no module that pods may run"),
        (_device, "is no module that pods may run"),
        (_huge, "is no module that pods may run"),
        (_huge_module, "has 1099511627776 bytes, more than the 268435456 allowed"),
        (_loop, "is no module that pods may run"),
    ],
)
async def test_files_that_are_none(timed: Runtime, tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "guest.wasm"
    make(path)
    key = await timed.create(pod_of(image=f"file://{path}"))
    assert message in (await timed.waiting(key, "ErrImagePull")).message
    await timed.event(key, "Failed", message)


async def test_local_modules_are_not_allowed_by_default(tmp_path: Path, image: str) -> None:
    runtime = Runtime(WasmtimeProvider, tmp_path / "state", RuntimeConfig())
    runtime.clock = FakeClock()
    async with runtime:
        key = await runtime.create(pod_of("print", "x", image=image))
        waiting = await runtime.waiting(key, "ErrImagePull")
        assert "--allow-local-modules" in waiting.message


async def test_relative_images_where_a_directory_is_given(tmp_path: Path, driver: Path) -> None:
    config = RuntimeConfig(allow_local_modules=True, module_dir=driver.parent)
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        key = await runtime.create(pod_of("print", "x", image="file://./driver.wasm"))
        assert (await runtime.ended(key)).exit_code == 0
