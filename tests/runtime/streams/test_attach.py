"""attach: a caller and the streams of a container that runs; whose stdin the shim holds, and what stdinOnce says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.callers import Caller
from tests.runtime.harness import PATIENCE, Runtime, pod_of
from tests.shared.descriptors import open_descriptors
from wasmlet.errors import NotFound, WasmletError
from wasmlet.model.pod import PodKey
from wasmlet.runtime.logs.files import of_pod
from wasmlet.runtime.logs.reader import Entries


@contextlib.asynccontextmanager
async def attached(runtime: Runtime, key: PodKey, **what: bool) -> AsyncGenerator[Caller, None]:
    """A caller for as long as the block; it leaves at its end unless the container has ended before."""
    caller = Caller(**what)
    call = asyncio.ensure_future(runtime.provider.attach(key, "main", caller))
    try:
        yield caller
    finally:
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call


async def started(runtime: Runtime, image: str, *args: str, **more: Any) -> PodKey:
    key = await runtime.create(pod_of(*args, image=image, **more))
    await runtime.running(key)
    return key


async def test_types_into_a_guest_and_reads_it(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image, "part", "name? ", "copy", stdin=True)
    await asyncio.sleep(0)
    async with attached(runtime, key, stdin=True) as caller:
        await caller.until(b"name? ")  # an unfinished line, perhaps from before
        caller.type(b"Ada")
        await caller.until(b"name? Ada")
        caller.type(b" Lovelace\n")
        await caller.until(b"name? Ada Lovelace\n")
        caller.close()  # without stdinOnce that means nothing
        async with attached(runtime, key, stdin=True) as other:
            other.type(b"second\n")
            await other.until(b"second\n")
            await caller.until(b"second\n")
            assert other.out == b"second\n"  # what is written from now on
    async with attached(runtime, key, stdin=True) as caller:
        caller.type(b"third\n")
        await caller.until(b"third\n")
    assert await runtime.log(key) == b"name? Ada Lovelace\nsecond\nthird\n"


@pytest.mark.parametrize("ends", [True, False])
async def test_stdin_once(runtime: Runtime, image: str, ends: bool) -> None:
    key = await started(runtime, image, "copy", "print", "over", stdin=True, stdinOnce=True)
    async with attached(runtime, key, stdin=True) as caller:
        caller.type(b"text\n")
        await caller.until(b"text\n")
        if ends:
            caller.close()
            await caller.until(b"over\n")
    assert (await runtime.ended(key)).exit_code == 0
    assert await runtime.log(key) == b"text\nover\n"


async def test_stdin_is_there_until_somebody_attaches_and_survives_the_node_loop(runtime: Runtime, image: str) -> None:
    pod = pod_of("print", "up", "copy", "print", "over", image=image, stdin=True, stdinOnce=True)
    key = await runtime.create(pod)
    await runtime.logged(key, b"up")
    async with attached(runtime, key) as caller:  # not to its stdin, so that is not the first
        pass
    assert caller.out == b""
    await runtime.restart()
    await runtime.create(pod)
    await runtime.running(key)
    async with attached(runtime, key, stdin=True) as caller:
        caller.type(b"text\n")
        await caller.until(b"text\n")
    assert (await runtime.ended(key)).exit_code == 0
    assert await runtime.log(key) == b"up\ntext\nover\n"


async def test_the_node_loop_dies_while_somebody_is_attached(runtime: Runtime, image: str) -> None:
    once = await started(runtime, image, "copy", "print", "over", stdin=True, stdinOnce=True)
    keeps = await started(runtime, image, "copy", name="keeps", stdin=True)
    async with attached(runtime, once, stdin=True), attached(runtime, keeps, stdin=True) as caller:
        caller.type(b"x\n")
        await caller.until(b"x\n")
        await runtime.stop()
    await runtime.start()
    await runtime.create(pod_of("copy", image=image, name="keeps", stdin=True))
    await runtime.running(keeps)
    async with attached(runtime, keeps, stdin=True) as caller:
        caller.type(b"again\n")
        await caller.until(b"again\n")
    assert (await runtime.ended(once)).exit_code == 0


async def test_without_stdin_in_the_manifest(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image, "stdin", "sleep", "1", "print", "end")
    async with attached(runtime, key, stdin=True) as caller:
        caller.type(b"nobody reads this")
        await caller.until(b"end\n")
    assert (await runtime.log(key)).startswith(b"stdin 0\n")


async def test_ends_with_the_container_and_has_all_of_it(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image, "copy", "error", "to stderr", "part", "no newline", stdin=True, stdinOnce=True)
    caller = Caller(stdin=True)
    caller.close()
    async with asyncio.timeout(PATIENCE):
        await runtime.provider.attach(key, "main", caller)
    assert (caller.out, caller.err) == (b"no newline", b"to stderr\n")
    with pytest.raises(NotFound, match="container main in pod web is not running"):
        await runtime.provider.attach(key, "main", Caller())


async def test_a_slow_caller_holds_up_nobody(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image, "copy", "binary", "flood", "50000", "print", "end", stdin=True, stdinOnce=True)
    async with attached(runtime, key) as slow, attached(runtime, key, stdin=True) as quick:
        slow.reads.clear()
        quick.close()
        await quick.until(b"end\n")
        assert (await runtime.ended(key)).exit_code == 0
        assert slow.out == b""
        slow.reads.set()
        await slow.until(b"end\n")
        assert slow.out == quick.out
        assert len(slow.out) == 256 + 50_000 * 64 + 4


async def test_one_that_is_too_slow_is_told(tmp_path: Path, image: str) -> None:
    config = WasmtimeProvider.Config(allow_local_modules=True, container_log_max_size="64k", container_log_max_files=2)
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        key = await started(runtime, image, "copy", "flood", "20000", stdin=True, stdinOnce=True)
        slow, quick = Caller(), Caller(stdin=True)
        slow.reads.clear()
        call = asyncio.ensure_future(runtime.provider.attach(key, "main", slow))
        other = asyncio.ensure_future(runtime.provider.attach(key, "main", quick))
        quick.type(b"begin\n")
        await quick.until(b"begin\n")
        quick.close()
        await runtime.ended(key)
        slow.reads.set()
        with pytest.raises(WasmletError, match="writes faster than this is read"):
            await call
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def test_a_terminal_in_the_manifest(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image, "terminal", "error", "one stream", "copy", stdin=True, tty=True)
    await runtime.logged(key, b"one stream\r\n")  # which the echo could come before
    async with attached(runtime, key, stdin=True, tty=True) as caller:
        caller.resize(100, 30)
        caller.type(b"line\r")
        await caller.until(b"line\r\nline\r\n")  # echoed, and then copied
    assert (await runtime.log(key)).startswith(b"111\r\none stream\r\n")
    async with attached(runtime, key, stdin=True, tty=True) as caller:
        caller.type(b"\x03")
        assert (await runtime.ended(key)).exit_code == 130
    # With stdinOnce a terminal's input ends when its caller leaves.
    once = await started(runtime, image, "copy", "print", "over", name="once", stdin=True, stdinOnce=True, tty=True)
    async with attached(runtime, once, stdin=True, tty=True) as caller:
        caller.type(b"x\r")
        await caller.until(b"x\r\nx\r\n")
    assert (await runtime.ended(once)).exit_code == 0
    assert (await runtime.log(once)).endswith(b"over\r\n")


async def test_nothing_is_left_of_those_who_left(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image, "copy", stdin=True)

    def descriptors() -> tuple[int, int]:
        return open_descriptors(runtime.shim), open_descriptors()

    async def visit(number: int) -> None:
        async with attached(runtime, key, stdin=True) as caller:
            caller.type(b"%d.\n" % number)
            await caller.until(b"%d.\n" % number)

    await visit(0)
    before = descriptors()
    await asyncio.gather(*(visit(number) for number in range(1, 30)))
    await runtime.provider.ping()
    assert all(now <= then for now, then in zip(descriptors(), before, strict=True))
    # Nobody is attached any more, so unfinished lines wait again; `kubectl logs` shows whole ones.
    assert (
        Entries(b"", False)
        .feed((runtime.state_dir / "runtime" / f"{of_pod(key.uid)}main.0.log").read_bytes())
        .count(b"\n")
        == 30
    )
