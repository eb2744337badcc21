"""A crowd of strangers at a server: how many there are, for how long, and that it keeps nobody out."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.runtime.network.servers import certificate
from wasmlet.kubelet.listening import Limits, Strangers, known, listening
from wasmlet.tls import unverified_context

PATIENCE = 30.0
ELSEWHERE = "127.0.0.2"


@asynccontextmanager
async def serving(limits: Limits, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that knows whoever shows the word, and answers with the port that they are at."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Word") != "right":
            raise web.HTTPUnauthorized(headers={"Port": str(request.get_extra_info("peername")[1])})
        known(request)
        return web.Response(text=str(request.get_extra_info("peername")[1]))

    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    async with asyncio.timeout(PATIENCE), listening(runner, ("127.0.0.1", 0), context, limits) as url:
        yield url


def client() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=unverified_context(), limit=0)
    return aiohttp.ClientSession(connector=connector, headers={"Word": "right"})


class Crowd:
    """Connections that say nothing."""

    def __init__(self, url: str, address: str = ELSEWHERE) -> None:
        self._at = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._from = (address, 0)
        self._ended = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def come(self, number: int) -> None:
        for _ in range(number):
            reader, writer = await asyncio.open_connection(*self._at, local_addr=self._from)
            self._writers.append(writer)
            self._tasks.add(asyncio.create_task(self._wait(reader)))

    async def until_left(self, number: int) -> None:
        """Return when so many of them are still connected."""
        while len(self._tasks) - self._ended > number:
            self._told.clear()
            await self._told.wait()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass
        self._ended += 1
        self._told.set()


@asynccontextmanager
async def crowd_at(url: str, address: str = ELSEWHERE) -> AsyncIterator[Crowd]:
    crowd = Crowd(url, address)
    try:
        yield crowd
    finally:
        await crowd.end()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> ssl.SSLContext | None:
    return certificate(tmp_path) if request.param else None


async def test_a_crowd_is_bounded_and_keeps_nobody_out(context: ssl.SSLContext | None) -> None:
    """Those that say nothing, or nothing but the beginning of a handshake, make room for each other."""
    async with serving(Limits(strangers=10, seconds=3600, head_seconds=3600), context) as url, crowd_at(url) as crowd:
        await crowd.come(50)
        await crowd.until_left(10)
        async with client() as session:
            for _ in range(20):
                await crowd.come(10)
                async with session.get(url) as answer:
                    assert answer.status == 200
                await crowd.until_left(10)


async def test_a_connection_that_is_known_makes_no_room(context: ssl.SSLContext | None) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(Limits(strangers=5, seconds=3600), context))
        connector = aiohttp.TCPConnector(ssl=unverified_context(), limit=1)
        headers = {"Word": "right"}
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, headers=headers))
        ports = set()
        crowd = await stack.enter_async_context(crowd_at(url, "127.0.0.1"))
        for _ in range(5):
            async with session.get(url) as answer:
                ports.add(await answer.text())
            await crowd.come(20)
            await crowd.until_left(5)
        assert len(ports) == 1


async def test_strangers_have_so_long_whatever_they_ask(context: ssl.SSLContext | None) -> None:
    """Requests that show nothing do not prolong a connection; one that is known goes on."""
    async with serving(Limits(strangers=100, seconds=1.0), context) as url, client() as session, crowd_at(url) as crowd:
        async with session.get(url) as answer:
            port = await answer.text()
        await crowd.come(3)
        connector = aiohttp.TCPConnector(ssl=unverified_context(), limit=1)
        async with aiohttp.ClientSession(connector=connector) as wrong:
            ports = set()
            while len(ports) < 2:  # the client makes another one where the first has been ended
                async with wrong.get(url) as refused:
                    assert refused.status == 401
                    ports.add(refused.headers["Port"])
                await asyncio.sleep(0.05)
        await crowd.until_left(0)
        async with session.get(url) as answer:
            assert await answer.text() == port


async def test_who_leaves_is_no_stranger_any_more(context: ssl.SSLContext | None) -> None:
    async with serving(Limits(strangers=3, seconds=3600), context) as url:
        for _ in range(5):
            async with crowd_at(url) as crowd:
                await crowd.come(3)
        async with client() as session, session.get(url) as answer:
            assert answer.status == 200


async def test_the_end_of_the_server_waits_for_no_stranger(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with serving(Limits(strangers=10, seconds=3600, head_seconds=3600), certificate(tmp_path)) as url:
            crowd = await stack.enter_async_context(crowd_at(url))
            await crowd.come(5)
        await crowd.until_left(0)


def ended_by_another(addresses: list[str], newcomer: str) -> str:
    """From which address the one is that makes room."""

    async def run() -> str:
        strangers = Strangers(Limits(strangers=len(addresses)), random.Random(1))
        ended: list[str] = []
        for address in [*addresses, newcomer]:
            strangers.came(address, lambda address=address: ended.append(address))  # type: ignore[misc]
        strangers.end()
        return ended[0]

    return asyncio.run(run())


def test_room_is_made_where_most_are_from() -> None:
    assert ended_by_another(["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3"], "10.0.0.4") == "10.0.0.2"
    assert ended_by_another(["10.0.0.1", "2001:db8::1", "2001:db8::2"], "10.0.0.1").startswith("2001:")
    assert ended_by_another(["10.0.0.1", "::ffff:10.0.0.2", "10.0.0.2"], "10.0.0.1").endswith("10.0.0.2")


def test_a_server_on_the_loop_that_is_used_in_earnest(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def run() -> None:
        await test_a_crowd_is_bounded_and_keeps_nobody_out(certificate(tmp_path))
        await test_a_crowd_is_bounded_and_keeps_nobody_out(None)

    uvloop.run(run())


async def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        with pytest.raises(OSError, match="in use"):
            async with listening(runner, taken.getsockname(), None):
                pass
        await runner.cleanup()
