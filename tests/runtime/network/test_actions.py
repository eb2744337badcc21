"""What probes and hooks ask of a pod's address, with real servers: what succeeds, what fails, and in which words."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.harness import pod_of
from tests.runtime.network.servers import certificate, health, http_server, tcp_server
from wasmlet.clock import SystemClock
from wasmlet.concurrency import cut
from wasmlet.errors import Refused, WasmletError
from wasmlet.model.pod import Container, PodKey
from wasmlet.runtime.network import dialing, http_get
from wasmlet.runtime.network.dialing import Place
from wasmlet.runtime.network.http_get import HttpRequest, NoAnswer
from wasmlet.runtime.network.network import PodNetwork
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.runtime.pods import actions, manifest
from wasmlet.runtime.pods.actions import Asked, GrpcCheck, Outcome, TcpConnect, action_of
from wasmlet.runtime.shim.instances import Target
from wasmlet.testing.clock import FakeClock

PORTS = [{"containerPort": 80}, {"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53}]


class NoCommands:
    """No action here is a command."""

    async def run(self, pod: PodKey, container: str, command: Sequence[str]) -> tuple[int, bytes]:
        raise AssertionError("no command is expected")


def asked(*ips: str) -> Asked:
    return Asked(Target(PodKey("ns", "p", "uid"), "main"), NoCommands(), lambda: ips or ("127.0.0.1",), lambda: None)


def container(**raw: Any) -> Container:
    return Container({"name": "main", "ports": PORTS, **raw}, "spec.containers[0]")


async def probe(action: actions.Action, seconds: float = 20) -> Outcome:
    return await actions.probe(action, asked(), seconds, SystemClock())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_statuses_of_http() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=int(request.path[1:]), text="private")

    async with http_server(answer) as port:
        for status in (200, 204, 299):
            assert await probe(HttpRequest("http", port, f"/{status}")) == Outcome("success", "")
        for status in (400, 404, 500, 503):
            failed = await probe(HttpRequest("http", port, f"/{status}"))
            assert failed == Outcome("failure", f"HTTP probe failed with statuscode: {status}")
        # A redirect that leads nowhere is a success, and its owner is told.
        warned = await probe(HttpRequest("http", port, "/302"))
        assert warned == Outcome("warning", "Probe terminated redirects, Response body: private")


async def test_every_field_of_an_http_probe() -> None:
    seen: list[tuple[str, list[tuple[str, str]]]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.raw_path, [(name, value) for name, value in request.headers.items()]))
        return web.Response()

    async with http_server(answer) as port:
        raw = {
            "httpGet": {
                "port": port,
                "path": "/a%2Fb c?x=%20y",
                "httpHeaders": [
                    {"name": "X-Twice", "value": "1"},
                    {"name": "X-Twice", "value": "2"},
                    {"name": "Host", "value": "example.com"},
                ],
            }
        }
        assert (await probe(action_of(raw, container()))).result == "success"
        await probe(HttpRequest("http", port, "no-slash", (("User-Agent", ""), ("Accept", ""))))
        await probe(HttpRequest("http", port, "http://example.com/path"))
    path, headers = seen[0]
    assert path == "/a%2Fb%20c?x=%20y"
    assert [value for name, value in headers if name == "X-Twice"] == ["1", "2"]
    known = dict(headers)
    assert (known["Host"], known["User-Agent"], known["Accept"]) == ("example.com", "kube-probe/1.36", "*/*")
    assert "Accept-Encoding" not in known
    path, headers = seen[1]
    assert path == "/no-slash"
    assert not {"User-Agent", "Accept"} & {name for name, _ in headers}
    assert seen[2][0] == "/path"


async def test_redirects_are_followed_on_the_same_host_only() -> None:
    asked_for: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked_for.append(request.path)
        target = {"/": "/next", "/next": "/last", "/away": "http://127.0.0.2:1/", "/round": "/round"}.get(request.path)
        if target is None:
            return web.Response(text="done")
        return web.Response(status=302, headers={"Location": target}, text="there")

    async with http_server(answer) as port:
        assert await probe(HttpRequest("http", port, "/")) == Outcome("success", "")
        assert asked_for == ["/", "/next", "/last"]
        away = await probe(HttpRequest("http", port, "/away"))
        assert away == Outcome("warning", "Probe terminated redirects, Response body: there")
        asked_for.clear()
        endless = await probe(HttpRequest("http", port, "/round"))
        assert endless.result == "failure"
        assert "stopped after 10 redirects" in endless.output
        assert len(asked_for) == 10


async def test_what_is_no_port_of_a_pod_is_not_asked_even_by_a_redirect() -> None:
    """Without a namespace, it is the node that listens there, at all of its addresses."""
    seen: list[str] = []

    async def nodes_own(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    async def pods(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{own}/redirected"})

    async with http_server(nodes_own) as own, http_server(pods) as port:
        pod = Asked(Target(PodKey("ns", "p", "uid"), "main"), NoCommands(), lambda: ["127.0.0.1"], lambda: {port})
        refused = f"dial tcp 127.0.0.1:{own}: connect: connection refused: no container of the pod listens there"
        for action in (HttpRequest("http", own, "/probe"), TcpConnect(own), GrpcCheck(own, "")):
            outcome = await actions.probe(action, pod, 20, SystemClock())
            assert outcome.result == "failure"
            assert "connection refused: no container of the pod listens there" in outcome.output
        redirected = await actions.probe(HttpRequest("http", port, "/"), pod, 20, SystemClock())
        assert redirected.result == "failure"
        assert "no container of the pod listens there" in redirected.output
        assert (await actions.probe(TcpConnect(port), pod, 20, SystemClock())).result == "success"
        assert (await actions.probe(TcpConnect(own), pod, 20, SystemClock())).output == refused
        with pytest.raises(NoAnswer, match="no container of the pod listens there"):
            await actions.request_for_hook(HttpRequest("https", own, "/hook"), pod.place)
    assert seen == []


async def test_https_is_not_verified(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    async with http_server(answer, certificate(tmp_path)) as port:
        assert (await probe(HttpRequest("https", port, "/"))).result == "success"
        assert (await probe(HttpRequest("http", port, "/"))).result == "failure"


async def test_a_body_without_end_is_not_read_to_its_end() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)

    async with http_server(answer) as port:
        assert await probe(HttpRequest("http", port, "/")) == Outcome("success", "")
        found = await http_get.get(HttpRequest("http", port, "/"), Place("127.0.0.1"), "probe")
    assert len(found.body) == http_get.MAX_BODY


@pytest.mark.parametrize(
    "flood", [b"HTTP/1.1 100 Continue\r\n\r\n", b"a: b\r\n", b"x", b"HTTP/1.1 103 Hints\r\na: b\r\n\r\n"]
)
async def test_answers_that_never_begin_are_not_read_for_ever(flood: bytes) -> None:
    """Else one pod could keep the node busy, and take its memory."""
    sent = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.read(1000)
        while True:
            writer.write(flood * 100)
            sent += 100 * len(flood)
            await writer.drain()

    async with tcp_server(talk) as port:
        outcome = await probe(HttpRequest("http", port, "/"))
    assert outcome.result == "failure"
    assert sent < 20_000_000


@pytest.mark.parametrize(
    ("said", "outcome"), [(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "success"), (b"", "failure")]
)
async def test_a_server_that_does_not_end_its_tls_is_not_waited_for(tmp_path: Path, said: bytes, outcome: str) -> None:
    """Else a probe would take half a minute longer than its time-out."""

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(said)
        await writer.drain()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        try:
            await asyncio.Event().wait()
        finally:
            cut(writer.transport)

    async with tcp_server(stuck, certificate(tmp_path)) as port:
        clock = FakeClock()
        asking = asyncio.create_task(actions.probe(HttpRequest("https", port, "/"), asked(), 3, clock))
        assert await clock.next_sleep() == 3
        if not said:
            clock.advance(3)
        async with asyncio.timeout(25):  # TLS is given up after 30 seconds
            assert (await asking).result == outcome


async def test_nobody_listens() -> None:
    port = free_port()
    refused = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert await probe(HttpRequest("http", port, "/x")) == Outcome(
        "failure", f'Get "http://127.0.0.1:{port}/x": {refused}'
    )
    assert await probe(TcpConnect(port)) == Outcome("failure", refused)
    grpc = await probe(GrpcCheck(port, ""))
    assert grpc == Outcome("failure", f'error: failed to connect service at "127.0.0.1:{port}": connection refused')


async def test_what_takes_too_long_has_failed() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with tcp_server(silent) as port:
        for action, words in (
            (HttpRequest("http", port, "/"), "context deadline exceeded"),
            (GrpcCheck(port, ""), "timeout: health rpc did not complete within 3s"),
        ):
            clock = FakeClock()
            asking = asyncio.create_task(actions.probe(action, asked(), 3, clock))
            assert await clock.next_sleep() == 3
            clock.advance(3)
            outcome = await asking
            assert outcome.result == "failure"
            assert words in outcome.output
        assert await probe(TcpConnect(port)) == Outcome("success", "")


@pytest.mark.parametrize(
    "said", [b"", b"\0" * 100, b"HTTP/1.1 200", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100000]
)
async def test_what_speaks_no_http_has_failed(said: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        await writer.drain()

    async with tcp_server(talk) as port:
        for action in (HttpRequest("http", port, "/"), HttpRequest("https", port, "/"), GrpcCheck(port, "")):
            outcome = await probe(action)
            assert outcome.result == "failure"
            assert 0 < len(outcome.output) < 1000


async def test_health_of_grpc() -> None:
    answers = {"": b"\x08\x01", "down": b"\x08\x02", "empty": b"", "odd": b"\x08\x63"}
    async with tcp_server(health(answers)) as port:
        assert await probe(GrpcCheck(port, "")) == Outcome("success", "service healthy")
        for service, words in (("down", "NOT_SERVING"), ("empty", "UNKNOWN"), ("odd", "99")):
            outcome = await probe(GrpcCheck(port, service))
            assert outcome == Outcome("failure", f'service unhealthy (responded with "{words}")')
        unknown = await probe(GrpcCheck(port, "other"))
        assert unknown.output == "error: health rpc probe failed: rpc error: code = 5 desc = unknown service"
    async with tcp_server(health({}, "12", "nothing here")) as port:
        outcome = await probe(GrpcCheck(port, ""))
    assert outcome.output == (
        "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): nothing here"
    )


async def test_a_hook_takes_any_answer(tmp_path: Path) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["User-Agent"] + request.headers.get("Authorization", ""))
        return web.Response(status=500)

    async with http_server(answer) as port:
        assert not await actions.request_for_hook(HttpRequest("http", port, "/"), Place("127.0.0.1"))
        secret = (("Authorization", "secret"),)
        assert await actions.request_for_hook(HttpRequest("https", port, "/", secret), Place("127.0.0.1"))
    assert seen == ["kube-lifecycle/1.36", "kube-lifecycle/1.36"]
    with pytest.raises(NoAnswer, match="connection refused"):
        await actions.request_for_hook(HttpRequest("http", free_port(), "/"), Place("127.0.0.1"))


async def test_a_pod_without_an_address_cannot_be_asked() -> None:
    nowhere = Asked(Target(PodKey("ns", "p", "uid"), "main"), NoCommands(), lambda: (), lambda: None)
    with pytest.raises(WasmletError, match="no address"):
        await actions.probe(TcpConnect(80), nowhere, 1, SystemClock())


def test_ports_by_name_and_number() -> None:
    assert action_of({"tcpSocket": {"port": "web"}}, container()) == TcpConnect(8080)
    assert action_of({"tcpSocket": {"port": 99}}, container()) == TcpConnect(99)
    assert action_of({"tcpSocket": {"port": "99"}}, container()) == TcpConnect(99)
    assert action_of({"grpc": {"port": 5, "service": "s"}}, container()) == GrpcCheck(5, "s")
    for bad in ("webs", "0", "65536", 0, None):
        with pytest.raises(WasmletError, match="couldn't find port"):
            action_of({"tcpSocket": {"port": bad}}, container())


@pytest.mark.parametrize(
    ("handler", "field"),
    [
        ({"httpGet": {"port": 80, "host": "10.0.0.1"}}, "httpGet.host"),
        ({"tcpSocket": {"port": 80, "host": "localhost"}}, "tcpSocket.host"),
        ({"httpGet": {"port": "other"}}, "httpGet.port"),
        ({"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}, "httpGet.httpHeaders[0].name"),
        ({"httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": "b\r\nc"}]}}, "httpGet.httpHeaders[0].value"),
    ],
)  # fmt: skip
def test_what_no_pod_may_ask_is_refused_by_name(handler: dict[str, Any], field: str) -> None:
    pod = pod_of(image="file:///x.wasm", livenessProbe=handler)
    with pytest.raises(Refused) as refused:
        manifest.check(pod, NodeNetwork(on=True))
    assert refused.value.field == f"spec.containers[0].livenessProbe.{field}"


async def test_the_way_inside_a_pod_without_a_namespace() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(10))
        await writer.drain()

    async with tcp_server(talk) as port:
        reader, writer = await dialing.connect_inside(PodNetwork(("127.0.0.1",)), port)
        writer.write(b"hello")
        assert await reader.read(10) == b"hello"
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await dialing.connect_inside(PodNetwork(("127.0.0.1",)), port)


@given(path=st.text(max_size=50), host=st.sampled_from(["10.0.0.1", "fd00::1"]))
def test_any_path_goes_to_the_pod(path: str, host: str) -> None:
    url = HttpRequest("http", 81, path).url(host)
    assert (url.scheme, url.host, url.port) == ("http", host, 81)
    assert url.raw_path_qs.isascii()
