"""Links at a host: who may open one, what carries requests, and links that hang, lie or are too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import httpx
import pytest
import structlog
from aiohttp import WSMsgType, web
from wasmlet_agent.join.joining import Joined
from wasmlet_agent.join.links import Links
from wasmlet_agent.protocol.joining import JoinRequest, hash_of
from wasmlet_remote.host import acceptor, links
from wasmlet_remote.host.acceptor import Acceptor
from wasmlet_remote.host.links import Lines, transports
from wasmlet_remote.host.tokens import Agent, Refusal

from tests.remote.agents import PATIENCE
from tests.remote.host.known import KEY, Known, echoing, until
from wasmlet.kubelet.listening import Limits


class Host:
    """An acceptor that listens, and a client of it."""

    def __init__(self, url: str, known: Known, client: aiohttp.ClientSession) -> None:
        self.url = url
        self.known = known
        self.client = client
        self.admitted: list[JoinRequest] = []

    @property
    def lines(self) -> Lines:
        return self.known.agents["edge-1"][1]

    def link(self, name: str = "edge-1", key: str = KEY, **headers: str) -> Any:
        shown = {"Authorization": f"Bearer {key}", **headers}
        return self.client.ws_connect(f"{self.url}/v1/link/{name}", headers=shown)

    def asking(self, **timeouts: float) -> httpx.AsyncClient:
        """A client of the agent behind the links."""
        transport = transports(self.lines)(httpx.Limits(max_connections=4, max_keepalive_connections=4))
        return httpx.AsyncClient(transport=transport, base_url="http://edge-1", timeout=httpx.Timeout(10, **timeouts))


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        known = Known()
        client = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        found = Host("", known, client)

        async def admit(request: JoinRequest) -> Agent:
            found.admitted.append(request)
            if request.token == "a.fails":
                raise RuntimeError("secret detail")
            if request.token != "good.0123456789abcdef":
                raise Refusal("no")
            return Agent(request.name, request.key)

        acceptor = Acceptor(known, admit, b"PEM")  # type: ignore[arg-type]
        found.url = await stack.enter_async_context(acceptor.serving(("127.0.0.1", 0), None))
        yield found


# --- who may open one


@pytest.mark.parametrize(
    ("name", "key", "headers"),
    [
        ("edge-1", "another key", {}),
        ("edge-2", KEY, {}),
        ("nobody", KEY, {}),
        ("edge-1", "", {}),
        ("edge-1", hash_of(KEY), {}),
        ("edge-1", KEY, {"Origin": "https://evil.example"}),
        ("edge-1", KEY, {"Authorization": f"Basic {KEY}"}),
        ("edge-1", "x" * 6000, {}),
    ],
)
async def test_nobody_opens_a_link_without_the_key_of_that_name(
    host: Host, name: str, key: str, headers: Mapping[str, str]
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with host.link(name, key, **headers):
            pass
    assert refused.value.status == 401
    assert all(len(lines) == 0 for _, lines in host.known.agents.values())


async def test_a_host_that_does_not_know_its_agents_yet_says_so(host: Host) -> None:
    host.known.in_sync.clear()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with host.link():
            pass
    assert refused.value.status == 503


async def test_a_thousand_idle_links_are_a_few(host: Host) -> None:
    async with AsyncExitStack() as stack:

        async def one() -> int:
            try:
                await stack.enter_async_context(host.link())
            except aiohttp.WSServerHandshakeError as error:
                return error.status
            return 101

        answers = [status for _ in range(20) for status in await asyncio.gather(*(one() for _ in range(50)))]
        assert answers.count(101) == links.MOST_SPARE
        assert answers.count(429) == 1000 - links.MOST_SPARE
        assert len(host.lines) == links.MOST_SPARE
    await until(lambda: len(host.lines) == 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b"rubbish", 400),
        (b'{"name": 3, "token": "t", "key": "k"}', 400),
        (b"x" * 100_000, 413),
        (b'{"name": "n", "token": "bad", "key": "k"}', 403),
        (b'{"name": "n", "token": "a.fails", "key": "k"}', 500),
        (b'{"name": "n", "token": "good.0123456789abcdef", "key": "k"}', 200),
    ],
)
async def test_requests_to_join(host: Host, body: bytes, status: int) -> None:
    async with host.client.post(f"{host.url}/v1/join", data=body) as response:
        assert response.status == status
        assert "secret detail" not in await response.text()
    assert ("n" in host.known.agents) == (status == 200)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/join HTTP/1.1\r\nHost: h\r\n",
        b"POST /v1/join HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{",
    ],
)
async def test_who_sends_nothing_more_is_cut_off(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(acceptor, "LIMITS", Limits(head_seconds=0.2))
    monkeypatch.setattr(acceptor, "JOIN_SECONDS", 0.2)
    found = Acceptor(Known(), None, b"")  # type: ignore[arg-type]
    async with found.serving(("127.0.0.1", 0), None) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        try:
            writer.write(sent)
            async with asyncio.timeout(PATIENCE):
                answer = await reader.read(1000)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 503")
        finally:
            writer.close()


async def test_what_strangers_ask_is_logged_now_and_then(host: Host) -> None:
    """One line for each path in a minute, for a bounded number of paths, however long they are."""
    with structlog.testing.capture_logs() as log:
        for number in range(200):
            for path in ("nobody", f"nobody-{number}", "x" * 4000):
                async with host.client.get(f"{host.url}/v1/link/{path}") as answer:
                    assert answer.status == 401
    told = [line["path"] for line in log]
    assert len(told) == len(set(told)) <= 64
    assert {len(path) for path in told if "xx" in path} == {200}


# --- an agent that answers on links


@pytest.fixture
async def agent(host: Host) -> AsyncIterator[Links]:
    runner = web.AppRunner(echoing())
    await runner.setup()
    assert runner.server is not None
    found = Links(Joined(host.url, "edge-1", KEY), runner.server)
    task = asyncio.create_task(found.run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.wait([task])
        await runner.cleanup()


async def test_requests_go_over_links_and_used_ones_are_replaced(host: Host, agent: Links) -> None:
    async with host.asking() as client:
        answers = await asyncio.gather(*(client.post("/echo", content=b"%d" % i) for i in range(20)))
        assert [answer.content for answer in answers] == [b"%d" % i for i in range(20)]
        await until(lambda: len(host.lines) == 6)  # four that are kept, and two spare ones
    await until(lambda: len(host.lines) == 2)


async def test_large_bodies_go_both_ways(host: Host, agent: Links) -> None:
    body = bytes(range(256)) * (32 * 2**20 // 256)
    async with host.asking() as client:
        assert (await client.post("/echo", content=body)).content == body


async def test_a_stream_is_held_back_while_nobody_reads(host: Host, agent: Links) -> None:
    async with host.asking() as client, client.stream("GET", "/stream") as response:
        pieces = response.aiter_raw()
        await anext(pieces)
        line = next(line for line in host.lines._all if line._taken)
        await until(lambda: not line._room.is_set())
        assert len(line._in) < 2 * links.BUFFER_BYTES
        assert sum([len(piece) async for piece in pieces]) > 390 * 65536


async def test_without_a_link_a_request_fails_in_time_and_one_that_comes_is_used(host: Host) -> None:
    async with host.asking(connect=0.2) as client:
        with pytest.raises(httpx.ConnectTimeout, match="no link"):
            await client.post("/echo")


# --- agents that are broken


async def test_a_link_that_hangs_costs_its_caller_a_timeout(host: Host) -> None:
    async with host.link() as link, host.asking(read=0.3) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/echo", content=b"hello")
        assert (await link.receive()).type is WSMsgType.BINARY
        async with asyncio.timeout(PATIENCE):
            while (await link.receive()).type is WSMsgType.BINARY:
                pass
    await until(lambda: len(host.lines) == 0)


@pytest.mark.parametrize("message", [b"HTTP/1.1 200 OK\r\n\r\n", b"\x00rubbish\r\n\r\n", b"", b"x" * 60_000])
async def test_rubbish_on_a_link_is_an_error_of_its_request(host: Host, message: bytes) -> None:
    async with host.link() as link, host.asking(read=1.0) as client:
        asking = asyncio.create_task(client.post("/echo", content=b"hello"))
        await link.receive()
        await link.send_bytes(message)
        await link.close()
        if message.startswith(b"HTTP"):
            assert (await asking).content == b""
            return
        with pytest.raises(httpx.HTTPError):
            await asking


@pytest.mark.parametrize("kind", ["text", "early", "large"])
async def test_what_a_link_may_not_carry_ends_it(host: Host, kind: str) -> None:
    async with host.link() as link:
        await until(lambda: len(host.lines) == 1)
        match kind:
            case "text":
                await link.send_str("hello")
            case "early":
                await link.send_bytes(b"unasked")
            case _:
                await link.send_bytes(b"x" * (links.MOST_MESSAGE + 1))
        await until(lambda: len(host.lines) == 0)


async def test_a_silent_link_is_given_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "DEAD_SECONDS", 0.2)
    async with host.link():
        await until(lambda: len(host.lines) == 1)
        await until(lambda: len(host.lines) == 0)
