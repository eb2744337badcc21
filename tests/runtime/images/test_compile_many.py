"""Many modules that are compiled at once: small ones do not wait for big ones, and those that wait cost no memory."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from tests.runtime.fake import FakeEngine
from tests.runtime.images.test_compile import HEAD, seen, write
from tests.worker.harness import children
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.runtime.images.compiler import CompileLimits, Compiler
from wasmlet.runtime.images.images import Images
from wasmlet.runtime.images.turns import Turns


async def test_small_modules_do_not_wait_for_big_ones(tmp_path: Path) -> None:
    """While every place for big ones is taken, and more of them wait, for whatever engine."""
    store, turns, gate = Store(tmp_path / "store", SystemClock()), Turns(2, time.monotonic), tmp_path / "gate"
    store.prepare()
    first, second = (
        Compiler(FakeEngine(version), store, CompileLimits(60, 2**29, 2**26), turns) for version in ("1", "2")
    )
    images = Images(True, None, 2**26)

    async def compiled(compiler: Compiler, name: str, content: bytes) -> int:
        write(tmp_path / name, content)
        async with compiler.artifact(await images.find(f"file://{tmp_path / name}")) as artifact:
            return os.fstat(artifact).st_size

    waits = b"gate:%b;" % str(gate).encode()
    async with asyncio.TaskGroup() as group:
        big = [group.create_task(compiled(first, f"{n}", waits + bytes(2**23 + n))) for n in range(4)]
        medium = [group.create_task(compiled(first, f"m{n}", waits + bytes(2**21 + n))) for n in range(4)]
        await seen(lambda: len(children(os.getpid())) >= 4)
        for compiler in (first, second):
            assert await compiled(compiler, "tiny", b"x") == len(b"compiled " + HEAD + b"x")
        assert len(children(os.getpid())) == 4  # no more than there are places
        assert not any(task.done() for task in (*big, *medium))
        gate.touch()
    assert {task.result() // 2**20 for task in big} == {8}


def copies() -> int:
    """How many copies of modules this process has in memory."""
    return sum("memfd:module" in link for link in map(target, Path("/proc/self/fd").iterdir()))


def target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # closed meanwhile
        return ""


async def test_modules_that_wait_for_their_turn_are_not_in_memory(tmp_path: Path) -> None:
    """A node may have any number of them, of any size."""
    store, turns, gate = Store(tmp_path / "store", SystemClock()), Turns(1, time.monotonic), tmp_path / "gate"
    store.prepare()
    compiler = Compiler(FakeEngine(), store, CompileLimits(60, 2**29, 2**26), turns)
    waits = b"gate:%b;" % str(gate).encode()
    images = Images(True, None, 2**26)
    waiting = turns._orders[-1][1].waiting

    async def compiled(name: str) -> None:
        write(tmp_path / name, waits + name.encode() + bytes(2**23))
        async with compiler.artifact(await images.find(f"file://{tmp_path / name}")):
            pass

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(compiled(f"{n}")) for n in range(8)]
        await seen(lambda: len(waiting) == 7)
        assert copies() == 1
        gate.touch()
    assert all(task.done() for task in tasks)
    assert copies() == 0
