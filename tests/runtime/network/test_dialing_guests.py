"""Guests with WasmEdge's functions for sockets: they listen where they were granted, and dial whom they may."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.guests import build
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.test_pods import annotated
from tests.runtime.network.test_servers import CLASSES, PORT, address, connected
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey


@pytest.fixture(scope="session")
def edge(compile_guest: Callable[..., None]) -> str:
    """The guest as an image; the first argument says what it does."""
    return f"file://{build('edge', compile_guest)}"


@pytest.fixture
def echo(there: str) -> Iterator[socket.socket]:
    """Somebody to dial."""
    with socket.create_server((there, 0)) as listener:
        listener.setblocking(False)
        yield listener


async def run(runtime: Runtime, inputs: Inputs, image: str, *args: object, egress: str = "") -> PodKey:
    pod = pod_of(*map(str, args), image=image, ports=[{"containerPort": PORT}])
    return await runtime.create(annotated(pod, **({"wasmlet_dev__egress": egress} if egress else {})), inputs)


async def answered(echo: socket.socket, seconds: float = 30) -> tuple[str, int]:
    """Answer to one connection; who it was."""
    loop = asyncio.get_running_loop()
    connection, who = await asyncio.wait_for(loop.sock_accept(echo), seconds)
    with connection:
        assert await loop.sock_recv(connection, 100) == b"ping"
        await loop.sock_sendall(connection, b"pong")
    return str(who[0]), int(who[1])


@CLASSES
async def test_a_guest_that_opens_its_listener(networked: Runtime, edge: str, inputs: Inputs) -> None:
    key = await run(networked, inputs, edge, "serve", PORT)
    host = await address(networked, key)
    loop = asyncio.get_running_loop()
    with await connected(host) as connection:
        await loop.sock_sendall(connection, b"echo this")
        assert await loop.sock_recv(connection, 100) == b"echo this"
        ours = connection.getsockname()
    assert (await networked.ended(key)).exit_code == 0
    said = (await networked.output(key)).decode().splitlines()
    assert said == [f"local 4 {host}", f"local 4 {host}", f"peer 4 {ours[0]} {ours[1]}"]


@CLASSES
async def test_a_port_that_was_not_granted(networked: Runtime, edge: str, inputs: Inputs) -> None:
    key = await run(networked, inputs, edge, "serve", PORT + 1)
    assert (await networked.ended(key)).exit_code == 1
    assert await networked.output(key) == b"bind: 2\n"
    event = await networked.event(key, "CapabilityDenied", f"port {PORT + 1}/TCP (none of the ports that it declares)")
    assert event.container_field == "spec.containers{main}"


@CLASSES
@pytest.mark.parametrize("how", ["dial", "begin"])
async def test_whom_a_guest_may_dial(
    networked: Runtime, edge: str, inputs: Inputs, echo: socket.socket, how: str
) -> None:
    there, port = echo.getsockname()
    key = await run(networked, inputs, edge, how, there, port, egress=f"{there}/32:{port}")
    who = await answered(echo)
    assert (await networked.ended(key)).exit_code == 0
    host = await address(networked, key)
    assert who[0] == host
    said = (await networked.output(key)).decode().splitlines()
    assert said[-3:] == [f"local 4 {host}", f"peer 4 {there} {port}", "got pong"]
    if how == "begin":
        assert said[0] in ("begun 26", "begun 0")


@CLASSES
@pytest.mark.parametrize("how", ["dial", "begin"])
async def test_whom_it_may_not(networked: Runtime, edge: str, inputs: Inputs, echo: socket.socket, how: str) -> None:
    there, port = echo.getsockname()
    key = await run(networked, inputs, edge, how, there, port, egress=f"{there}/32:1")
    assert (await networked.ended(key)).exit_code == 1
    said = await networked.output(key)
    assert said.endswith(b"connect: 2\n") or (how == "begin" and said == b"begun 26\nconnected: 2\n")


@CLASSES
async def test_nobody_is_there(networked: Runtime, edge: str, inputs: Inputs, echo: socket.socket) -> None:
    there, port = echo.getsockname()
    echo.close()
    key = await run(networked, inputs, edge, "dial", there, port, egress="*")
    assert (await networked.ended(key)).exit_code == 1
    assert await networked.output(key) == b"connect: 14\n"


@CLASSES
async def test_ten_thousand_connections(networked: Runtime, edge: str, inputs: Inputs, there: str) -> None:
    """A guest has 8000 sockets at most: it is told so, and can go on with others when it has closed some."""
    loop, accepted = asyncio.get_running_loop(), list[socket.socket]()

    async def accept(listener: socket.socket) -> None:
        while True:
            accepted.append((await loop.sock_accept(listener))[0])

    with socket.create_server((there, 0), backlog=4096) as many, socket.create_server((there, 0)) as last:
        many.setblocking(False)
        last.setblocking(False)
        ports = [listener.getsockname()[1] for listener in (many, last)]
        accepting = asyncio.create_task(accept(many))
        key = await run(networked, inputs, edge, "exhaust", there, *ports, egress=f"{there}/32:*")
        try:
            await answered(last, 300)
        finally:
            accepting.cancel()
            for connection in accepted:
                connection.close()
        assert (await networked.ended(key)).exit_code == 0
    said = (await networked.output(key)).decode().splitlines()
    count, _, error = said[0].partition(", then ")
    assert 7990 < int(count) <= 8000
    assert (error, said[-1]) == ("33", "got pong")  # WASI's EMFILE


@CLASSES
async def test_datagrams_to_one(networked: Runtime, edge: str, inputs: Inputs, there: str) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((there, 0))
        peer.setblocking(False)
        port = peer.getsockname()[1]
        key = await run(networked, inputs, edge, "datagram", there, port, egress=f"{there}/32:{port}")
        data, who = await asyncio.wait_for(loop.sock_recvfrom(peer, 100), 30)
        assert data == b"ping"
        await loop.sock_sendto(peer, b"pong", who)
        assert (await networked.ended(key)).exit_code == 0
    assert await networked.output(key) == f"got pong of 1 {there} 1\nthen 6\n".encode()


@CLASSES
async def test_names(networked: Runtime, edge: str, inputs: Inputs, there: str) -> None:
    hosts = {"hostAliases": [{"ip": there, "hostnames": ["there.example"]}]}
    for name, code, said in (("there.example", 0, f"1 {there}:443\n"), (there, 0, f"1 {there}:443\n"),
                             ("not.granted.example", 1, "getaddrinfo: 2\n")):  # fmt: skip
        pod = pod_of("resolve", name, image=edge, name=name.replace(".", "-"), spec=hosts)
        key = await networked.create(annotated(pod, wasmlet_dev__egress="there.example:443"), inputs)
        assert (await networked.ended(key)).exit_code == code
        assert (await networked.output(key)).decode() == said
