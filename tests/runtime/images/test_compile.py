"""Compiling: once per module, apart from everything else, within limits, and nothing left of what fails."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.runtime.fake import FakeEngine, FakeProvider
from tests.runtime.harness import PATIENCE, Runtime, pod_of
from tests.worker.harness import children, wait_gone
from wasmlet.artifacts import collection
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.model.status import Waiting
from wasmlet.runtime.images.compiler import CompileError, CompileLimits, Compiler
from wasmlet.runtime.images.images import ImageError, Images, Module
from wasmlet.runtime.pods import announce_compile
from wasmlet.testing.clock import FakeClock

ROOT = Path(__file__).parents[3]
T = TypeVar("T")

HEAD = b"\0asm\x01\0\0\0"


def compiler_in(directory: Path, engine: FakeEngine | None = None, seconds: float = 60) -> Compiler:
    store = Store(directory / "store", SystemClock())
    store.prepare()
    return Compiler(engine or FakeEngine(), store, CompileLimits(seconds, 2**29, 10_000))


def write(path: Path, content: bytes) -> None:
    path.write_bytes(HEAD + content)


async def module_of(path: Path, content: bytes) -> Module:
    write(path, content)
    return await Images(True, None, 10_000).find(f"file://{path}")


def files(directory: Path) -> list[str]:
    """The compiled modules; there is never anything else left of them."""
    store = directory / "store"
    assert [*(store / "ingest").iterdir(), *(store / "locks").iterdir()] == []
    return sorted(path.name for path in (store / "compiled").iterdir())


async def seen(look: Callable[[], T]) -> T:
    """What there is to be seen, as soon as there is something; another process will not tell."""

    def watch() -> T:
        while not (found := look()):
            time.sleep(0.01)
        return found

    async with asyncio.timeout(PATIENCE):
        return await asyncio.to_thread(watch)


async def content(compiler: Compiler, module: Module) -> bytes:
    async with compiler.artifact(module) as artifact:
        return os.pread(artifact, 10_000, 0)


async def test_compiles_once_and_keeps_it(tmp_path: Path) -> None:
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", b"x")
    both = await asyncio.gather(content(compiler, module), content(compiler, module))
    assert both == [b"compiled " + HEAD + b"x"] * 2
    (name,) = files(tmp_path)
    before = (tmp_path / "store" / "compiled" / name).stat()
    assert await content(compiler_in(tmp_path), module) == both[0]
    after = (tmp_path / "store" / "compiled" / name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert compiler._underway == {}


async def test_what_makes_compiled_modules_differ(tmp_path: Path) -> None:
    module = await module_of(tmp_path / "x.wasm", b"x")
    for engine in (FakeEngine(), FakeEngine("2"), FakeEngine(settings="fast"), FakeEngine()):
        await content(compiler_in(tmp_path, engine), module)
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"bad", r"module file:///.*/x.wasm: the module is bad"),
        (b"broken", r"fake failed to compile module file:///.*/x.wasm: RuntimeError: the engine is broken"),
        (b"crash", r"compiling module file:///.*/x.wasm: the compiler ended with SIGKILL: no message"),
        (b"greedy", r"compiling module .*x.wasm takes more memory than the 512 MiB allowed; --compile-memory sets it"),
        (b"wordy", r"the engine is x{470,490}\.\.\.$"),
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
    with pytest.raises(CompileError, match=r"longer than the 0.3 s allowed; --compile-timeout sets it"):
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
    gate = tmp_path / "gate"
    source = b"gate:%b;" % str(gate).encode()
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", source)
    first, second, third = (asyncio.ensure_future(content(compiler, module)) for _ in range(3))
    (underway,) = await seen(lambda: [one for one in compiler._underway.values() if one.waiting == 3])
    for leaving in (first, third):
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert list(compiler._underway.values()) == [underway]
    gate.touch()
    assert await second == b"compiled " + HEAD + source
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


async def test_what_is_not_as_it_was_is_compiled_again(tmp_path: Path) -> None:
    compiler, module = compiler_in(tmp_path), await module_of(tmp_path / "x.wasm", b"x")
    whole = await content(compiler, module)
    (name,) = files(tmp_path)
    path = tmp_path / "store" / "compiled" / name

    def cut() -> None:
        path.write_bytes(whole[:-1])

    def alter() -> None:
        path.write_bytes(whole[:-1] + b"y")

    def open_up() -> None:
        path.chmod(0o666)

    def replace() -> None:
        path.unlink()
        path.symlink_to(tmp_path / "x.wasm")

    for damage in (cut, alter, open_up, replace, path.unlink):
        for one in (compiler, compiler_in(tmp_path)):
            damage()
            assert await content(one, module) == whole
            assert files(tmp_path) == [name]
            assert stat.S_IMODE(path.lstat().st_mode) == 0o644
            one.close()


async def test_two_node_loops_compile_a_module_once(tmp_path: Path) -> None:
    module = await module_of(tmp_path / "x.wasm", b"x")
    said = await asyncio.gather(*(compile_elsewhere(tmp_path, module) for _ in range(3)))
    assert sorted(b"compiled" in each for each in said) == [False, False, True]
    assert len(files(tmp_path)) == 1


async def compile_elsewhere(directory: Path, module: Module) -> bytes:
    """In a process of its own; what it logs."""
    text = f"""
import asyncio, sys
from pathlib import Path
from tests.runtime.images.test_compile import compiler_in, content
from wasmlet.runtime.images.images import Module
here = Path({str(directory)!r})
asyncio.run(content(compiler_in(here), Module("x", {module.digest!r}, here / "x.wasm")))
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, cwd=ROOT, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said


async def test_a_node_loop_that_is_killed_in_the_middle_disturbs_nobody(tmp_path: Path) -> None:
    module = await module_of(tmp_path / "x.wasm", b"slow")
    text = f"""
import asyncio
from pathlib import Path
from tests.runtime.images.test_compile import compiler_in, content
from wasmlet.runtime.images.images import Module
here = Path({str(tmp_path)!r})
asyncio.run(content(compiler_in(here), Module("x", {module.digest!r}, here / "x.wasm")))
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    below = await seen(lambda: children(process.pid))
    process.kill()
    await process.wait()
    for pid in below:
        await asyncio.to_thread(wait_gone, pid)
    store = tmp_path / "store"
    assert len(list((store / "ingest").iterdir())) == 1
    for _ in range(20):  # what is held open is not cleared away: a compiler that was killed may take a while to end
        old = time.time() - 1000
        for left in (*(store / "ingest").iterdir(), *(store / "locks").iterdir()):
            os.utime(left, (old, old))
        compiler = compiler_in(tmp_path, seconds=0.3)
        with pytest.raises(CompileError, match="longer than"):  # it is not held up
            await content(compiler, module)
        if not files(tmp_path):
            break
    assert files(tmp_path) == []


async def test_compiled_modules_are_collected_when_nobody_may_start_them_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", SystemClock())
    compilers = [compiler_in(tmp_path) for _ in range(2)]
    module = await module_of(tmp_path / "x.wasm", b"x")
    for compiler in compilers:
        await content(compiler, module)

    def collect(days: float) -> int:
        (path,) = store.compiled.iterdir()
        then = time.time() - days * 86400
        os.utime(path, (then, path.stat().st_mtime))
        return len(collection.collect(store, collection.Limits(), store.clock, lambda _: 0).compiled)

    assert collect(8) == 0  # both keep it
    await compilers[0].keep(set())
    assert collect(8) == 0
    await compilers[1].keep({module.digest})
    assert collect(8) == 0
    compilers[1].close()
    assert collect(6) == 0
    await compiler_in(tmp_path).keep({"0" * 64})
    after = compiler_in(tmp_path)
    await after.keep({module.digest})  # as a node does that has started again
    assert collect(8) == 0
    after.close()
    assert collect(8) == 1
    assert files(tmp_path) == []


async def test_compiled_modules_make_room_above_the_high_mark(tmp_path: Path) -> None:
    compiler, store = compiler_in(tmp_path), Store(tmp_path / "store", SystemClock())
    await content(compiler, await module_of(tmp_path / "x.wasm", b"x"))
    compiler.close()
    (path,) = store.compiled.iterdir()
    os.utime(path, (time.time() - 1000, path.stat().st_mtime))
    result = collection.collect(store, collection.Limits(high=85, low=80), store.clock, lambda _: 90)
    assert result.compiled == (path.name,)


async def test_the_process_makes_way(tmp_path: Path) -> None:
    module = await module_of(tmp_path / "x.wasm", b"slow")
    compiling = asyncio.ensure_future(content(compiler_in(tmp_path), module))
    (pid,) = await seen(lambda: children(os.getpid()))
    await seen(lambda: os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5))
    await seen(lambda: Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n")
    compiling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await compiling


async def test_a_container_that_waits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce_compile, "QUIET_SECONDS", 0.0)
    path, gate = tmp_path / "x.wasm", tmp_path / "gate"
    path.write_bytes(HEAD + b"gate:%b;" % str(gate).encode())
    runtime = Runtime(FakeProvider, tmp_path / "state")
    async with runtime:
        key = await runtime.create(pod_of("start", "exit", "4", image=f"file://{path}"))
        what = f'module of image "file://{path}" with fake 1'
        shown = await runtime.main(key, lambda status: getattr(status.state, "message", "") != "")
        assert shown.state == Waiting("ContainerCreating", f"compiling {what}")
        gate.touch()
        assert (await runtime.ended(key)).exit_code == 4
        told = [(event.reason, event.message) for event in runtime.events if event.reason.startswith("Compil")]
        assert told[0] == ("Compiling", f"Compiling {what}")
        assert told[1][0] == "Compiled"
        assert re.fullmatch(rf"Successfully compiled {re.escape(what)} in \S+s", told[1][1])


async def test_one_that_compiles_again_does_not_show_its_last_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce_compile, "QUIET_SECONDS", 0.0)
    path, gate = tmp_path / "x.wasm", tmp_path / "gate"
    write(path, b"broken")
    runtime = Runtime(FakeProvider, tmp_path / "state")
    runtime.clock = FakeClock()
    async with runtime:
        key = await runtime.create(pod_of("start", "exit", "4", image=f"file://{path}"))
        failed = await runtime.waiting(key, "CreateContainerError")
        pause = await runtime.fake_clock.next_sleep(at_most=60)
        write(path, b"gate:%b;" % str(gate).encode())
        runtime.fake_clock.advance(pause)
        again = await runtime.main(key, lambda status: "compiling" in getattr(status.state, "message", ""))
        assert again.state == Waiting("ContainerCreating", f'compiling module of image "file://{path}" with fake 1')
        seen = len(runtime.history)
        gate.touch()
        assert (await runtime.ended(key)).exit_code == 4
        shown = [c.state for change in runtime.history[seen:] for c in change.status.containers]
        assert failed not in shown


async def test_an_engine_takes_two_small_classes(tmp_path: Path) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(HEAD + b"x")
    async with Runtime(FakeProvider, tmp_path / "state") as runtime:
        key = await runtime.create(pod_of("start", "module", "exit", "4", image=f"file://{path}"))
        assert (await runtime.ended(key)).exit_code == 4
        assert await runtime.log(key) == b"compiled " + HEAD + b"x\n"
        status = await runtime.provider.node_status()
        assert status.system_info["containerRuntimeVersion"] == "fake://1"
