"""What everybody uses to break a connection, and to have work of several callers done once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import weakref
from collections.abc import Awaitable, Callable

import pytest

from wasmlet import concurrency
from wasmlet.concurrency import Breakable, Event, Shared, Together, cut, first_of, in_thread, reap


class Transport(asyncio.WriteTransport):
    """As a TLS transport of Python 3.11.2 is once it was closed twice: its connection is not known to it any more."""

    connection = None

    def abort(self) -> None:
        self.connection.abort()  # type: ignore[attr-defined]


def test_a_connection_that_was_closed_twice_is_left_alone() -> None:
    cut(Transport())
    cut(None)


async def test_a_connection_is_broken_at_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut(writer.transport)
        cut(writer.transport)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_work_that_has_begun_is_done_once_more_for_all_who_ask_meanwhile() -> None:
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)
    found: list[str] = []

    def work(key: str) -> int:
        begun.release()
        assert go_on.acquire(timeout=60)
        found.append(key)
        return len(found)

    shared = Shared(work)
    first = asyncio.create_task(shared.of("a"))
    assert await asyncio.to_thread(begun.acquire, timeout=60)
    later = [asyncio.create_task(shared.of("a")) for _ in range(5)]
    await asyncio.sleep(0)
    later[0].cancel()
    go_on.release(2)
    assert await first == 1
    assert await asyncio.gather(*later[1:]) == [2, 2, 2, 2]
    go_on.release()
    assert await shared.of("b") == 3
    assert found == ["a", "a", "b"]


async def test_work_that_fails_fails_for_all_who_have_asked_and_for_nobody_else() -> None:
    answers = iter([ValueError("first"), None])

    def work(key: str) -> str:
        if (error := next(answers)) is not None:
            raise error
        return key

    shared = Shared(work)
    asked = await asyncio.gather(shared.of("a"), shared.of("a"), return_exceptions=True)
    assert [str(error) for error in asked] == ["first", "first"]
    assert await shared.of("a") == "a"
    with pytest.raises(StopIteration):
        next(answers)


@pytest.mark.parametrize("kind", [Event, asyncio.Event])
class TestEvent:
    """Ours behaves as that of asyncio does."""

    async def test_all_that_wait_go_on_when_it_is_set(self, kind: type[asyncio.Event]) -> None:
        event = kind()
        waiting = [asyncio.create_task(event.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not event.is_set()
        event.set()
        event.clear()  # those that waited go on all the same
        assert await asyncio.gather(*waiting) == [True, True, True]
        assert not event.is_set()

    async def test_what_comes_after_a_clear_waits_for_the_next(self, kind: type[asyncio.Event]) -> None:
        event = kind()
        event.set()
        assert await event.wait() is True
        event.clear()
        late = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        assert not late.done()
        event.set()
        assert await late is True

    async def test_one_that_is_cancelled_leaves_the_others(self, kind: type[asyncio.Event]) -> None:
        event = kind()
        first, second = (asyncio.create_task(event.wait()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        event.set()
        assert await second is True

    async def test_one_that_is_cancelled_when_it_is_set_is_cancelled(self, kind: type[asyncio.Event]) -> None:
        event = kind()
        waiting = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        event.set()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert event.is_set()


async def test_work_that_is_broken_off_is_cancelled_and_other_work_is_not() -> None:
    breakable, cancelled = Breakable(), list[str]()
    breakable.break_off()  # nobody waits

    async def work() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append("broken off")
            raise

    asyncio.get_running_loop().call_soon(breakable.break_off)
    assert not await breakable.finished(work())
    assert cancelled == ["broken off"]
    assert await breakable.finished(asyncio.sleep(0))
    with pytest.raises(TimeoutError, match="the work's own"):
        await breakable.finished(failing(TimeoutError("the work's own")))
    task = asyncio.create_task(breakable.finished(work()))
    await asyncio.sleep(0)
    breakable.break_off()
    task.cancel()  # whoever cancels the caller is not told that it was broken off
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(cancelled) == 2


async def test_work_that_is_cancelled_cleans_up_though_it_is_broken_off() -> None:
    breakable, clean = Breakable(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            asyncio.get_running_loop().call_soon(breakable.break_off)
            await asyncio.sleep(0.01)
            clean.set()

    task = asyncio.create_task(breakable.finished(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert clean.is_set()


async def failing(error: Exception) -> None:
    raise error


async def test_what_many_ask_for_meanwhile_is_handed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, done, handed = threading.Event(), threading.Event(), list[int](), list[int]()
    in_thread = concurrency.in_thread

    async def counted(work: Callable[[list[int]], None], things: list[int]) -> None:
        handed.append(len(things))
        await in_thread(work, things)

    def work(number: int) -> None:
        begun.set()
        assert go_on.wait(30)
        done.append(number)

    monkeypatch.setattr(concurrency, "in_thread", counted)
    together = Together(work)
    first = asyncio.create_task(together.of(0))
    await asyncio.to_thread(begun.wait, 30)
    others = [asyncio.create_task(together.of(number)) for number in range(1, 10)]
    await asyncio.sleep(0)
    others[3].cancel()
    assert not first.done()
    go_on.set()
    results = await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), 30)
    assert [type(result) for result in results].count(asyncio.CancelledError) == 1
    assert done == list(range(10))  # that of the caller who left, too
    assert handed == [1, 9]


class Marked(Exception):
    """One that tells when it is freed."""


def fails() -> None:
    raise Marked


async def fails_too() -> None:
    fails()


async def wait_for_the_first() -> None:
    await first_of(fails_too(), asyncio.sleep(1000))


async def wait_for_a_thread() -> None:
    await in_thread(fails)


async def wait_for_what_is_shared() -> None:
    await Shared[str, None](lambda _: fails()).of("x")


@pytest.mark.parametrize("wait", [wait_for_the_first, wait_for_a_thread, wait_for_what_is_shared])
async def test_an_error_is_freed_without_the_garbage_collector(wait: Callable[[], Awaitable[None]]) -> None:
    gc.collect()
    gc.disable()
    try:
        freed = asyncio.Event()
        try:
            await wait()
        except Marked as error:
            weakref.finalize(error, freed.set)
        async with asyncio.timeout(10):
            await freed.wait()
    finally:
        gc.enable()


async def _flooding(program: str) -> asyncio.subprocess.Process:
    """A process that says more than asyncio reads ahead; nobody reads it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", program, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while not process.stdout._paused:  # type: ignore[attr-defined]  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    return process


async def test_a_process_that_was_killed_is_waited_for_whatever_it_has_said() -> None:
    """asyncio's own way never comes to an end."""
    process = await _flooding("exec cat /dev/zero")
    process.kill()
    async with asyncio.timeout(30):
        await reap(process)
    assert process.returncode == -signal.SIGKILL


async def test_a_daemon_that_has_the_pipe_of_a_process_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "_REAP_SECONDS", 0.5)
    process = await _flooding("head -c 1000000 /dev/zero; cat /dev/zero & exec sleep 3600")
    os.kill(process.pid, signal.SIGKILL)
    try:
        async with asyncio.timeout(30):
            await reap(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await reap(process)
    assert process.returncode == -signal.SIGKILL
