"""exec: second instances in running containers, with their streams, their ends and whom they end with."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from typing import Any

import pytest

from tests.runtime.callers import Caller
from tests.runtime.harness import PATIENCE, Runtime, pod_of
from tests.shared.descriptors import open_descriptors
from tests.shared.machine import may_limit
from tests.worker.harness import children, filled, kill, wait_gone, zygote_of
from wasmlet.errors import InvalidInput, NotFound, WasmletError
from wasmlet.model.pod import PodKey
from wasmlet.model.status import Running, Terminated
from wasmlet.runtime.streams.execs import NO_SHELL


async def started(runtime: Runtime, image: str, *args: str, **more: Any) -> PodKey:
    key = await runtime.create(pod_of(*(args or ("print", "up", "sleep", "1000")), image=image, **more))
    await runtime.running(key)
    return key


async def run(
    runtime: Runtime, key: PodKey, *words: str, caller: Caller | None = None, program: str = "driver"
) -> tuple[int, Caller]:
    caller = caller or Caller()
    async with asyncio.timeout(PATIENCE):
        return await runtime.provider.exec(key, "main", [program, *words], caller), caller


def guests(runtime: Runtime) -> int:
    return sum(name == "wasmlet-guest" for name in children(runtime.shim).values())


async def until_guests(runtime: Runtime, count: int) -> None:
    """Processes of guests have no event that a test could wait for."""
    async with asyncio.timeout(PATIENCE):
        while guests(runtime) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_runs_the_container_s_module_with_these_words(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image, env=[{"name": "COLOR", "value": "blue"}])
    code, caller = await run(runtime, key, "args", "env", "COLOR", "error", "oops", "exit", "7")
    words = b"driver\nargs\nenv\nCOLOR\nerror\noops\nexit\n7\n"
    assert (code, caller.out, caller.err) == (7, words + b"COLOR=blue\n", b"oops\n")
    assert await runtime.log(key) == b"up\n"  # the container's log has nothing of it
    assert isinstance((await runtime.main(key, lambda _: True)).state, Running)


async def test_stdin_to_its_end(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    caller = Caller(stdin=True)
    running = asyncio.ensure_future(run(runtime, key, "copy", "print", "end", caller=caller))
    caller.type(b"one")
    await caller.until(b"one")
    big = os.urandom(500_000)
    caller.type(big)
    await caller.until(big)
    caller.close()
    assert (await running)[0] == 0
    assert caller.out == b"one" + big + b"end\n"
    # Without stdin it is empty; a guest that reads nothing of it ends all the same.
    assert (await run(runtime, key, "stdin"))[1].out == b"stdin 0\n"
    caller = Caller(stdin=True)
    caller.type(b"x" * 1_000_000)
    assert (await run(runtime, key, "print", "done", caller=caller))[1].out == b"done\n"


async def test_a_caller_that_reads_slowly_gets_everything(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    caller = Caller()
    caller.reads.clear()
    running = asyncio.ensure_future(run(runtime, key, "flood", "20000", caller=caller))
    assert (await run(runtime, key, "print", "another"))[1].out == b"another\n"
    assert not running.done()
    caller.reads.set()
    await running
    assert len(caller.out) == 20_000 * 64


async def test_a_terminal(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    caller = Caller(stdin=True, tty=True)
    running = asyncio.ensure_future(run(runtime, key, "terminal", "error", "oops", "copy", caller=caller))
    caller.resize(132, 43)
    await caller.until(b"111\r\noops\r\n")
    caller.type(b"typex\x7fd\r")  # as a terminal sends it: one key taken back, and Enter
    await caller.until(b"typed\r\n")
    caller.type(b"\x04")  # Ctrl-D: the end of input
    assert (await running)[0] == 0
    caller = Caller(stdin=True, tty=True)
    running = asyncio.ensure_future(run(runtime, key, "print", "on", "sleep", "1000", caller=caller))
    await caller.until(b"on\r\n")
    caller.type(b"\x03")  # Ctrl-C
    assert (await running)[0] == 130
    # Without stdin only the outputs are a terminal.
    assert (await run(runtime, key, "terminal", caller=Caller(tty=True)))[1].out == b"011\r\n"


async def test_whoever_asks_for_a_shell_is_told_that_there_is_none(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)

    async def shell(*words: str, caller: Caller) -> tuple[int, bytes, bytes]:
        async with asyncio.timeout(PATIENCE):
            code = await runtime.provider.exec(key, "main", words, caller)
        return code, caller.out, caller.err

    said = NO_SHELL.encode()
    typing = Caller(stdin=True, tty=True)
    running = asyncio.ensure_future(shell("/bin/sh", "print", "on", "sleep", "1000", caller=typing))
    await typing.until(said + b"\r\non\r\n")  # first of all: the program may say nothing for as long as it runs
    typing.type(b"\x03")
    await running
    assert await shell("sh", caller=Caller()) == (127, b"", said + b"\n")
    assert await shell("bash", "print", "hello", caller=Caller()) == (0, b"hello\n", b"")  # it does something with it
    assert await shell("driver", caller=Caller()) == (0, b"", b"")


async def test_a_trap_is_told(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    code, caller = await run(runtime, key, "print", "before", "trap")
    assert (code, caller.out) == (134, b"before\n")
    assert b"unreachable" in caller.err
    assert (await run(runtime, key, "exit", "255"))[0] == 255


@pytest.mark.parametrize("words", [("sleep", "1000"), ("spin",), ("flood", "1000000000"), ("copy",)])
async def test_a_cancelled_call_ends_the_command(runtime: Runtime, image: str, words: tuple[str, ...]) -> None:
    key = await started(runtime, image)
    caller = Caller(stdin=True)
    running = asyncio.ensure_future(run(runtime, key, "print", "on", *words, caller=caller))
    await caller.until(b"on\n")
    assert guests(runtime) == 2
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert guests(runtime) == 1
    assert (await run(runtime, key, "print", "next"))[1].out == b"next\n"


async def test_a_caller_that_is_gone_ends_the_command(runtime: Runtime, image: str) -> None:
    class Gone(Caller):
        async def write_stdout(self, data: bytes) -> None:
            raise ConnectionResetError("the caller is gone")

    key = await started(runtime, image)
    with pytest.raises(ConnectionResetError):
        await run(runtime, key, "print", "x", "sleep", "1000", caller=Gone())
    await until_guests(runtime, 1)


async def test_a_caller_that_is_gone_before_it_is_told_of_the_shell(runtime: Runtime, image: str) -> None:
    class Gone(Caller):
        async def write_stderr(self, data: bytes) -> None:
            raise ConnectionResetError("the caller is gone")

    key = await started(runtime, image)
    before = open_descriptors(os.getpid())
    with pytest.raises(ConnectionResetError):
        await run(runtime, key, caller=Gone(stdin=True), program="sh")
    gc.collect()  # a coroutine that nobody has run would warn now
    assert open_descriptors(os.getpid()) == before
    assert guests(runtime) == 1


async def test_ends_with_its_container_and_before_it(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    caller = Caller()
    running = asyncio.ensure_future(run(runtime, key, "print", "on", "spin", caller=caller))
    await caller.until(b"on\n")
    status = await runtime.provider.delete_pod(key, 30)
    assert guests(runtime) == 0
    assert (await running)[0] == 137
    assert status is not None
    state = status.containers[0].state
    assert isinstance(state, Terminated)
    assert state.exit_code == 143


async def test_ends_with_the_node_loop_and_the_container_goes_on(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    caller = Caller()
    running = asyncio.ensure_future(run(runtime, key, "print", "on", "sleep", "1000", caller=caller))
    await caller.until(b"on\n")
    client = runtime.provider.services.client
    assert client._socket is not None
    client._socket.shutdown(2)  # as it looks to the shim when this process dies
    with pytest.raises(WasmletError, match="connection to the shim was lost"):
        await running
    await until_guests(runtime, 1)
    assert (await run(runtime, key, "print", "again"))[1].out == b"again\n"
    await runtime.restart()
    await runtime.create(pod_of(image=image))
    await runtime.running(key)
    assert (await run(runtime, key, "print", "after a restart"))[1].out == b"after a restart\n"


async def test_a_zygote_that_dies_meanwhile(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    zygote = zygote_of(runtime.shim)
    spare = await asyncio.to_thread(filled, runtime.shim)
    os.kill(zygote, 19)
    for pid in spare:  # or one of these would do
        await asyncio.to_thread(kill, pid)
    running = asyncio.ensure_future(run(runtime, key, "print", "x"))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(kill, zygote)
    with pytest.raises(WasmletError, match="died before the command began"):
        await running
    assert (await run(runtime, key, "print", "x"))[1].out == b"x\n"


async def test_what_does_not_run(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("print", "x", image=image))
    await runtime.ended(key)
    with pytest.raises(NotFound, match="container main in pod web is not running"):
        await run(runtime, key, "print", "x")
    with pytest.raises(NotFound, match="container other in pod web is not known"):
        await runtime.provider.exec(key, "other", ["x"], Caller())
    with pytest.raises(NotFound):
        await runtime.provider.exec(PodKey("default", "none", "none"), "main", ["x"], Caller())
    second = await started(runtime, image, name="second")
    for command in ([], ["a\0b"]):
        with pytest.raises(InvalidInput):
            await runtime.provider.exec(second, "main", command, Caller())


async def test_many_at_once_leave_nothing_behind(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    await run(runtime, key, "print", "x")

    def descriptors() -> tuple[int, int]:
        return open_descriptors(runtime.shim), open_descriptors()

    await runtime.provider.ping()  # an exec is told a moment before all of it is closed
    await asyncio.to_thread(filled, runtime.shim)
    before = descriptors()
    results = await asyncio.gather(*(run(runtime, key, "print", str(number)) for number in range(30)))
    assert [caller.out for _, caller in results] == [f"{number}\n".encode() for number in range(30)]
    await runtime.provider.ping()
    await asyncio.to_thread(filled, runtime.shim)
    assert all(now <= then for now, then in zip(descriptors(), before, strict=True))
    assert guests(runtime) == 1


async def test_commands_of_probes_are_bounded(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    commands = runtime.provider.services.commands
    assert await commands.run(key, "main", ["driver", "print", "a", "error", "b", "exit", "3"]) == (3, b"a\nb\n")
    code, output = await commands.run(key, "main", ["driver", "flood", "10000"])
    assert (code, len(output)) == (0, 10 * 1024)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await commands.run(key, "main", ["driver", "sleep", "1000"])
    await until_guests(runtime, 1)
    code, output = await commands.run(key, "main", ["driver", "trap"])
    assert code == 134
    assert b"unreachable" in output


async def test_the_memory_limit_is_the_container_s(runtime: Runtime, image: str) -> None:
    """Where the kernel holds it, what is executed is killed as anything else that takes too much."""
    key = await started(runtime, image, resources={"limits": {"memory": "32Mi"}})
    assert (await run(runtime, key, "alloc", "4"))[1].out == b"4 MiB\n"
    code, caller = await run(runtime, key, "alloc", "64")
    assert (code, caller.out) == ((137, b"") if may_limit("memory") else (0, b"no memory\n"))
    assert (await run(runtime, key, "print", "on"))[1].out == b"on\n"


async def test_shim_that_dies(runtime: Runtime, image: str) -> None:
    key = await started(runtime, image)
    caller = Caller()
    running = asyncio.ensure_future(run(runtime, key, "print", "on", "sleep", "1000", caller=caller))
    await caller.until(b"on\n")
    below = list(children(runtime.shim))
    await asyncio.to_thread(kill, runtime.shim)
    with pytest.raises(WasmletError):
        await running
    for pid in below:
        await asyncio.to_thread(wait_gone, pid)
    state = await runtime.ended(key)
    assert state.reason == "ContainerStatusUnknown"
    runtime._pids.add(runtime.shim)
