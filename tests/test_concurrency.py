"""What everybody uses to break a connection, and to have work of several callers done once."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from wasmlet.concurrency import Shared, cut


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
