"""Commands that use sockets or HTTP, as confined pods: what these components reach with a grant and without."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from tests.guests import components
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.servers import http_server
from tests.runtime.network.test_pods import annotated
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
PORT = 8080
DENIED, REFUSED = "error 1\n", "error 14\n"


async def run(runtime: Runtime, *args: object, egress: str = "") -> PodKey:
    image = f"file://{components.net()}"
    pod = pod_of(*map(str, args), image=image, ports=[{"containerPort": PORT}])
    return await runtime.create(annotated(pod, **({"wasmlet_dev__egress": egress} if egress else {})), NODE)


async def said(runtime: Runtime, key: PodKey) -> str:
    """What it has printed, once it has ended."""
    assert (await runtime.ended(key)).exit_code == 0
    return (await runtime.output(key)).decode()


async def test_it_dials(networked: Runtime, there: str) -> None:
    """With its options: the process is confined, and may set these."""
    loop = asyncio.get_running_loop()
    with socket.create_server((there, 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        key = await run(networked, "tcp", there, port, "hello", egress=f"{there}/32:{port}")
        connection, _ = await asyncio.wait_for(loop.sock_accept(server), 30)
        reader, writer = await asyncio.open_connection(sock=connection)
        assert await asyncio.wait_for(reader.readline(), 30) == b"hello\n"
        writer.write(b"answer\n")
        await writer.drain()
        writer.close()
    assert await said(networked, key) == "hops 33\nanswer\n"


async def test_it_listens_at_its_port(networked: Runtime) -> None:
    key = await run(networked, "listen", PORT)
    await networked.logged(key, b"listening\n")
    (ip,) = (await networked.provider.pod_status(key)).pod_ips
    reader, writer = await asyncio.open_connection(ip, PORT)
    writer.write(b"there and back")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 30) == b"there and back"
    writer.close()
    assert await said(networked, key) == "listening\n"


@pytest.mark.parametrize("how", ["udp", "sendto"])
async def test_datagrams_to_one(networked: Runtime, there: str, how: str) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((there, 0))
        peer.setblocking(False)
        port = peer.getsockname()[1]
        key = await run(networked, how, there, port, "ping", egress=f"{there}/32:{port}")
        data, who = await asyncio.wait_for(loop.sock_recvfrom(peer, 100), 30)
        assert data == b"ping"
        await loop.sock_sendto(peer, b"pong", who)
        assert await said(networked, key) == "pong\n"


async def test_it_asks_over_http(networked: Runtime, there: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {request.path_qs} for {request.host}")

    async with http_server(answer, ip=there) as port:
        authority = f"{there}:{port}"
        key = await run(networked, "get", authority, "/a?b", "get", authority, "/c", egress=f"{there}/32:{port}")
        assert await said(networked, key) == f"200 GET /a?b for {authority}\n200 GET /c for {authority}\n"


async def test_without_a_grant_nothing_is_reached(networked: Runtime, there: str) -> None:
    with socket.create_server((there, 0)) as server:
        port = server.getsockname()[1]
        key = await run(
            networked, "tcp", there, port, "x", "udp", there, port, "x", "sendto", there, port, "x",
            "listen", PORT + 1, "answer", PORT, "get", f"{there}:{port}", "/", "zone",
        )  # fmt: skip
        denied_by_http = "error 15\n"
        expected = DENIED * 5 + denied_by_http + "UTC\n"
        assert await said(networked, key) == expected
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    await networked.event(key, "EgressDenied", there)


async def test_nobody_is_there(networked: Runtime, there: str) -> None:
    with socket.create_server((there, 0)) as server:
        port = server.getsockname()[1]
    key = await run(networked, "tcp", there, port, "x", "udp", there, port, "x", egress="*")
    assert await said(networked, key) == REFUSED * 2


async def test_an_exec_has_no_network(networked: Runtime, there: str) -> None:
    """As of a module, which a probe or `kubectl exec` starts beside its container."""
    from tests.runtime.callers import Caller

    key = await run(networked, "listen", PORT, egress="*")
    await networked.logged(key, b"listening\n")
    caller = Caller()
    code = await networked.provider.exec(key, "main", ["net", "tcp", there, "80", "x", "zone"], caller)
    assert (code, caller.out) == (0, DENIED.encode() + b"UTC\n")
