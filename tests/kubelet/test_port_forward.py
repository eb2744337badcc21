"""Port-forward, as an API server asks for it: over SPDY, in a tunnel, and over websocket channels."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.kubelet.callers import KEY, SECONDS, V4, Spdy, Watched, a_pod, ended, messages, path, spdy_to, websocket_to
from tests.kubelet.harness import Kubelet, kubelet
from wasmlet.kubelet import spdy
from wasmlet.testing import FakeClock

DATA = random.Random(1).randbytes(3_000_000)
FORWARD = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Kubelet]:
    async with kubelet(tmp_path, provider=Watched()) as node:
        await a_pod(node)
        yield node


def forwarding(node: Kubelet) -> object:
    return spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD)


def opened(caller: Spdy, request: int, port: int = 8080) -> tuple[int, int]:
    """The error and the data stream of a connection."""
    fields = {"port": str(port), "requestID": str(request)}
    error = caller.open("error", **fields)
    caller.connection.end(error)
    return error, caller.open("data", **fields)


async def test_three_megabytes_each_way_in_two_connections_at_once(node: Kubelet) -> None:
    async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
        assert f"X-Stream-Protocol-Version: {FORWARD}" in caller.head
        pairs = [opened(caller, number) for number in range(2)]

        async def feed() -> None:
            for at in range(0, len(DATA), 30_000):
                for _, data in pairs:
                    caller.connection.send_data(data, DATA[at : at + 30_000])
                caller.send()
                await caller.writer.drain()
            for _, data in pairs:
                caller.connection.end(data)
            caller.send()

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            await caller.until(lambda: {number for pair in pairs for number in pair} <= caller.ended)
        assert all(caller.got[data] == DATA and not caller.got[error] for error, data in pairs)


async def test_a_port_where_nothing_listens(node: Kubelet) -> None:
    async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
        error, data = opened(caller, 1, 9)
        caller.send()
        await caller.until(lambda: error in caller.ended and data in caller.reset)
        assert caller.got[error].startswith(b"error forwarding port 9 to pod p, uid uid-1: expected a port")
        error, data = opened(caller, 2)
        caller.connection.send_data(data, b"still here")
        caller.send()
        await caller.until(lambda: caller.got[data] == b"still here")


async def test_streams_are_paired_without_request_ids(node: Kubelet) -> None:
    async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
        caller.open("error", port="8080")
        data = caller.open("data", port="8080")
        caller.connection.send_data(data, b"old client")
        caller.send()
        await caller.until(lambda: caller.got[data] == b"old client")


@pytest.mark.parametrize(
    "headers", [{}, {"port": "0"}, {"port": "65536"}, {"port": "x"}, {"port": "-1"}, {"port": "80", "kind": "odd"}]
)
async def test_streams_that_make_no_sense_are_reset(node: Kubelet, headers: dict[str, str]) -> None:
    async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
        odd = caller.open(headers.pop("kind", "data"), **headers)
        caller.send()
        await caller.until(lambda: odd in caller.reset)
        _, data = opened(caller, 1)
        caller.connection.send_data(data, b"fine")
        caller.send()
        await caller.until(lambda: caller.got[data] == b"fine")


async def test_a_third_stream_of_a_connection_is_refused(node: Kubelet) -> None:
    async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
        one = caller.open("error", port="8080", requestID="7")
        two = caller.open("error", port="8080", requestID="7")
        caller.send()
        await caller.until(lambda: two in caller.reset)
        assert caller.got[one] == b"error processing stream for request 7: error stream already assigned"


async def test_a_connection_that_its_caller_resets_ends_the_call(node: Kubelet) -> None:
    async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
        _, data = opened(caller, 1)
        caller.send()
        await node.provider.until_called("forward")
        caller.connection.reset(data)
        caller.send()
        await node.provider.until_called("forward", "forward ended")


async def test_ten_thousand_connections_one_after_another(node: Kubelet) -> None:
    """None of them leaves anything behind, so that there is room for the next."""
    async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
        for batch in range(50):
            pairs = [opened(caller, batch * 100 + number) for number in range(100)]
            for _, data in pairs:
                caller.connection.end(data)
            caller.send()
            await caller.until(lambda: {number for pair in pairs for number in pair} <= caller.ended)  # noqa: B023
        assert not caller.reset
        assert node.provider.calls.count("forward ended") == 5000


async def test_ten_thousand_streams_at_once_are_refused_above_a_thousand(node: Kubelet) -> None:
    async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
        streams = [caller.open("error", port="8080", requestID=str(number)) for number in range(10_000)]
        caller.send()
        await caller.until(lambda: len(caller.reset) + len(caller.replied) == len(streams))
        assert len(caller.replied) == 1024
        assert set(caller.reset.values()) == {3}  # REFUSED_STREAM
        for number in list(caller.replied)[:2]:
            caller.connection.reset(number)
        _, data = opened(caller, 1_000_000)
        caller.connection.send_data(data, b"goes on")
        caller.send()
        await caller.until(lambda: caller.got[data] == b"goes on")


async def test_a_pair_that_is_never_completed_is_given_up(tmp_path: Path) -> None:
    clock = FakeClock()
    async with kubelet(tmp_path, provider=Watched(), clock=clock) as node:
        await a_pod(node)
        async with spdy_to(node, path("portForward"), X_Stream_Protocol_Version=FORWARD) as caller:
            error = caller.open("error", port="8080", requestID="7")
            caller.send()
            await caller.until(lambda: error in caller.replied)
            await clock.next_sleep(at_most=30)
            clock.advance(30)
            await caller.until(lambda: error in caller.ended or error in caller.reset)
            assert caller.got[error] == b"(request=7) timed out waiting for streams"


async def test_a_tunnel(node: Kubelet) -> None:
    """SPDY in the messages of a websocket, cut anywhere."""
    async with websocket_to(node, path("portForward"), [TUNNEL]) as socket:
        assert socket.protocol == TUNNEL
        client = spdy.Connection(client=True)
        error = client.open_stream({"streamType": "error", "port": "8080", "requestID": "0"}, end=True)
        data = client.open_stream({"streamType": "data", "port": "8080", "requestID": "0"})
        client.send_data(data, DATA[:300_000])
        client.end(data)
        sent = client.data_to_send()

        async def feed() -> None:
            for at in range(0, len(sent), 7001):
                await socket.send_bytes(sent[at : at + 7001])

        got, over = bytearray(), set()
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            group.create_task(feed())
            while over != {error, data}:
                for event in client.receive_data(await socket.receive_bytes()):
                    match event:
                        case spdy.DataReceived(number, piece):
                            assert number == data
                            got += piece
                        case spdy.StreamEnded(number):
                            over.add(number)
        assert bytes(got) == DATA[:300_000]


@pytest.mark.parametrize("message", [b"GET / HTTP/1.1\r\n\r\n", "text"])
async def test_a_tunnel_of_something_else_is_closed(node: Kubelet, message: bytes | str) -> None:
    async with websocket_to(node, path("portForward"), [TUNNEL]) as socket, asyncio.timeout(SECONDS):
        await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message))
        kinds = [event.type async for event in socket]
        assert set(kinds) <= {aiohttp.WSMsgType.BINARY}
        assert socket.closed


async def test_channels_of_a_websocket(node: Kubelet) -> None:
    async with websocket_to(node, path("portForward", port="8080,9"), [V4]) as socket, asyncio.timeout(SECONDS):
        first = [await socket.receive_bytes() for _ in range(4)]
        assert sorted(first) == [b"\0\x90\x1f", b"\1\x90\x1f", b"\2\t\0", b"\3\t\0"]
        assert (await socket.receive_bytes()).startswith(b"\3error forwarding port 9 to pod p")
        await socket.send_bytes(b"\0hello")
        assert await socket.receive_bytes() == b"\0hello"


async def test_a_websocket_to_a_closed_port_alone_is_closed(node: Kubelet) -> None:
    async with websocket_to(node, path("portForward", port=9), [V4]) as socket:
        channels = await messages(socket)
        assert channels[1].startswith(b"\t\0error forwarding port 9 to pod p")
        assert socket.close_code == 1000


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", 'query parameter "port" is required'),
        ("port=", 'query parameter "port" cannot be empty'),
        ("port=0", 'port "0" must be > 0'),
        ("port=80,x", 'unable to parse "x" as a port'),
        ("port=" + ",".join(["80"] * 200), "expected at most 127 ports in one request, found 200"),
    ],
)
async def test_websocket_queries_that_cannot_be_served(node: Kubelet, query: str, text: str) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert await node(f"/portForward/default/p?{query}", headers=headers) == (400, text)


async def test_pods_that_cannot_be_forwarded_to(node: Kubelet) -> None:
    assert await node("/portForward/default/q", method="POST") == (404, "pod does not exist")
    assert await node("/portForward/default/p/another-uid", method="POST") == (404, "pod does not exist")
    node.provider.finish(KEY)
    ended(node, await node.provider.pod_status(KEY))
    assert await node("/portForward/default/p", method="POST") == (500, 'pod not found ("p_default")')
