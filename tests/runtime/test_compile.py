"""Compiling: once per module, apart from everything else, within limits, and nothing left of what fails."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.runtime.fake import FakeEngine, FakeProvider
from tests.runtime.harness import Runtime, pod_of
from tests.worker.harness import children
from wasmlet.errors import WasmletError
from wasmlet.runtime.compile import CompileError, Compiler
from wasmlet.runtime.images import ImageError, Images, Module

HEAD = b"\0asm\x01\0\0\0"


def compiler_in(directory: Path, engine: FakeEngine | None = None, seconds: float = 60) -> Compiler:
    found = Compiler(engine or FakeEngine(), directory / "compiled", seconds=seconds, max_bytes=10_000)
    found.prepare()
    return found


def write(path: Path, content: bytes) -> None:
    path.write_bytes(HEAD + content)


async def module_of(path: Path, content: bytes) -> Module:
    write(path, content)
    return await Images(True, None, 10_000).find(f"file://{path}")


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "compiled").iterdir())


async def content(compiler: Compiler, module: Module) -> bytes:
    async with compiler.artifact(module) as artifact:
        return os.pread(artifact, 10_000, 0)


async def test_compiles_once_and_keeps_it(tmp_path: Path) -> None:
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", b"x")
    both = await asyncio.gather(content(compiler, module), content(compiler, module))
    assert both == [b"compiled " + HEAD + b"x"] * 2
    (name,) = files(tmp_path)
    inode = (tmp_path / "compiled" / name).stat().st_ino
    assert await content(compiler_in(tmp_path), module) == both[0]
    assert (tmp_path / "compiled" / name).stat().st_ino == inode
    assert compiler._underway == {}


async def test_what_makes_compiled_modules_differ(tmp_path: Path) -> None:
    module = await module_of(tmp_path / "x.wasm", b"x")
    for engine in (FakeEngine(), FakeEngine("2"), FakeEngine(settings="fast"), FakeEngine()):
        await content(compiler_in(tmp_path, engine), module)
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"bad", r"module /.*/x.wasm: the module is bad"),
        (b"broken", r"fake failed to compile module /.*/x.wasm: RuntimeError: the engine is broken"),
        (b"crash", r"the compiler ended with status -9: no message"),
    ],
)
async def test_failures_leave_nothing_and_are_tried_again(tmp_path: Path, source: bytes, message: str) -> None:
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", source)
    for _ in range(2):
        with pytest.raises(CompileError, match=message):
            await content(compiler, module)
    assert files(tmp_path) == []
    assert compiler._underway == {}


async def test_a_limit_in_time(tmp_path: Path) -> None:
    compiler, module = compiler_in(tmp_path, seconds=0.3), await module_of(tmp_path / "x.wasm", b"slow")
    with pytest.raises(CompileError, match=r"longer than the 0.3 s allowed"):
        await content(compiler, module)
    assert files(tmp_path) == []
    assert children(os.getpid()) == {}


async def test_cancelled(tmp_path: Path) -> None:
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", b"slow")
    for pause in (0, 0.01, 0.2):
        compiling = asyncio.ensure_future(content(compiler, module))
        await asyncio.sleep(pause)
        compiling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await compiling
        assert files(tmp_path) == []
        assert children(os.getpid()) == {}


async def test_one_that_leaves_does_not_hold_up_the_others(tmp_path: Path) -> None:
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", b"x")
    first, second, third = (asyncio.ensure_future(content(compiler, module)) for _ in range(3))
    await asyncio.sleep(0)
    (underway,) = compiler._underway.values()
    assert underway.waiting == 3
    for leaving in (first, third):
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert list(compiler._underway.values()) == [underway]
    assert await second == b"compiled " + HEAD + b"x"
    assert compiler._underway == {}


async def test_a_module_that_changes_meanwhile(tmp_path: Path) -> None:
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", b"x")
    (tmp_path / "x.wasm").write_bytes(HEAD + b"y")
    with pytest.raises(ImageError, match="changed while it was read"):
        await content(compiler, module)
    assert files(tmp_path) == []


async def test_a_module_that_grows_meanwhile(tmp_path: Path) -> None:
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", b"x")
    (tmp_path / "x.wasm").write_bytes(HEAD + b"y" * 10_000)
    with pytest.raises(ImageError, match="more than the 10000 allowed"):
        await content(compiler, module)


def test_the_store_is_ours_alone(tmp_path: Path) -> None:
    compiler_in(tmp_path)
    (tmp_path / "compiled" / "left.new").touch()
    compiler_in(tmp_path)
    assert files(tmp_path) == []
    (tmp_path / "compiled").chmod(0o777)
    with pytest.raises(WasmletError, match="compiled code"):
        compiler_in(tmp_path)


async def test_an_engine_takes_two_small_classes(tmp_path: Path) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(HEAD + b"x")
    async with Runtime(FakeProvider, tmp_path / "state") as runtime:
        key = await runtime.create(pod_of("start", "module", "exit", "4", image=f"file://{path}"))
        assert (await runtime.ended(key)).exit_code == 4
        assert await runtime.log(key) == b"compiled " + HEAD + b"x\n"
        status = await runtime.provider.node_status()
        assert status.system_info["containerRuntimeVersion"] == "fake://1"
