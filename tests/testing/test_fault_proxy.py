"""The fault proxy does what it says, between httpx and a server of aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import PurePosixPath

import httpx
import pytest
from aiohttp import ClientSession, web

from wasmlet.testing import FaultProxy


class Server:
    """Answers each request with its number among all; what has come is in `came`."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.told = asyncio.Event()
        self.app = web.Application(client_max_size=8 << 20)
        self.app.add_routes([web.get("/socket", self._socket), web.get("/stream", self._stream)])
        self.app.add_routes([web.route("*", "/{name}", self._plain)])

    async def _plain(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.came.append(f"{request.method} {PurePosixPath(request.path).name} {len(body)}")
        self.told.set()
        return web.Response(text=f"{len(self.came)} " + "x" * 100)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"one\n")
        await self.until(1)
        await answer.write(b"two\n")
        return answer

    async def until(self, count: int) -> None:
        """Return when so many requests have come."""
        while len(self.came) < count:
            self.told.clear()
            await self.told.wait()


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, port = runner.addresses[0][:2]
        yield await stack.enter_async_context(FaultProxy("127.0.0.1", port))


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=proxy.url, trust_env=False, timeout=30) as client:
        yield client


async def test_without_a_trap_everything_passes(client: httpx.AsyncClient, proxy: FaultProxy, server: Server) -> None:
    for number in (1, 2):
        answer = await client.put("/a", params={"q": "1"}, content=b"y" * 3_000_000)
        assert answer.text.startswith(f"{number} ")
    assert server.came == ["PUT a 3000000"] * 2
    assert [(seen.method, seen.path) for seen in proxy.requests] == [("PUT", "/a")] * 2
    assert proxy.connections == 1


async def test_a_stream_passes_as_it_comes(client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/stream") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"one\n"
        await client.get("/a")
        assert await anext(pieces) == b"two\n"


async def test_a_websocket_passes(proxy: FaultProxy) -> None:
    async with ClientSession() as session, session.ws_connect(f"{proxy.url}/socket") as socket:
        for word in ("one", "two"):
            await socket.send_str(word)
            assert await socket.receive_str() == word.upper()


async def test_a_request_that_is_dropped_never_arrives(
    client: httpx.AsyncClient, proxy: FaultProxy, server: Server
) -> None:
    trap = proxy.trap("drop", "PUT", "/a")
    with pytest.raises(httpx.TransportError):
        await client.put("/a")
    assert trap.hits == 1
    assert (await client.put("/a")).text.startswith("1 ")
    assert server.came == ["PUT a 0"]


async def test_an_answer_that_is_lost(client: httpx.AsyncClient, proxy: FaultProxy, server: Server) -> None:
    proxy.trap("lose", path="/b*")
    with pytest.raises(httpx.TransportError):
        await client.put("/b1", content=b"12")
    assert server.came == ["PUT b1 2"]


async def test_an_answer_that_is_cut_short(client: httpx.AsyncClient, proxy: FaultProxy) -> None:
    proxy.trap("truncate", "GET", size=180)
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/a")
    assert (await client.get("/a")).text.startswith("2 ")


async def test_a_request_that_is_delayed(client: httpx.AsyncClient, proxy: FaultProxy) -> None:
    proxy.trap("delay", seconds=0.05)
    before = asyncio.get_running_loop().time()
    await client.get("/a")
    assert asyncio.get_running_loop().time() - before >= 0.05


async def test_a_request_that_is_held_back_arrives_after_its_sender_has_left(
    client: httpx.AsyncClient, proxy: FaultProxy, server: Server
) -> None:
    trap = proxy.trap("hold", "PUT")
    asking = asyncio.create_task(client.put("/late", content=b"123"))
    await trap.sprung()
    asking.cancel()
    await asyncio.wait([asking])
    await client.get("/first")
    assert server.came == ["GET first 0"]
    trap.release()
    async with asyncio.timeout(30):
        await server.until(2)
    assert server.came == ["GET first 0", "PUT late 3"]


async def test_a_request_that_arrives_twice(client: httpx.AsyncClient, proxy: FaultProxy, server: Server) -> None:
    proxy.trap("duplicate", "PUT")
    assert (await client.put("/a")).text.startswith("1 ")
    async with asyncio.timeout(30):
        await server.until(2)
    assert server.came == ["PUT a 0"] * 2


async def test_requests_that_change_places(client: httpx.AsyncClient, proxy: FaultProxy, server: Server) -> None:
    trap = proxy.trap("reorder", path="/a*")
    first = asyncio.create_task(client.get("/a1"))
    await trap.sprung()
    await client.get("/b")
    assert not first.done()
    await client.get("/a2")
    await first
    assert server.came == ["GET b 0", "GET a2 0", "GET a1 0"]


async def test_a_partition_that_heals(client: httpx.AsyncClient, proxy: FaultProxy, server: Server) -> None:
    await client.get("/a")
    proxy.partition()
    asking = [asyncio.create_task(client.get(f"/{name}")) for name in ("b", "c")]
    await asyncio.wait(asking, timeout=0.1)
    assert server.came == ["GET a 0"]
    proxy.heal()
    await asyncio.gather(*asking)
    assert sorted(server.came) == ["GET a 0", "GET b 0", "GET c 0"]


async def test_connections_that_are_cut(client: httpx.AsyncClient, proxy: FaultProxy) -> None:
    trap = proxy.trap("hold")
    asking = asyncio.create_task(client.get("/a"))
    await trap.sprung()
    proxy.cut()
    with pytest.raises(httpx.TransportError):
        await asking
    assert (await client.get("/a")).status_code == 200


async def test_traps_that_are_taken_away(client: httpx.AsyncClient, proxy: FaultProxy) -> None:
    proxy.trap("drop", times=None)
    for _ in range(3):
        with pytest.raises(httpx.TransportError):
            await client.get("/a")
    proxy.clear()
    assert (await client.get("/a")).status_code == 200
    async with asyncio.timeout(30):
        await proxy.seen(lambda seen: seen.path == "/a", 4)
