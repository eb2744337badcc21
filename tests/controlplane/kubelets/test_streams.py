"""Exec, attach and port-forward on their way through the control plane: passed on as they are, or refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import WSMsgType

from tests.controlplane.client import PODS, STRATEGIC, Api, open_api, pod
from tests.controlplane.conftest import Login
from tests.controlplane.kubelets.stand_in import (
    CHOSEN,
    EXEC,
    SECONDS,
    SPDY,
    TUNNEL,
    V4,
    V5,
    Stand,
    raw_client,
    receive,
    socket,
    stand_in,
    upgraded,
)
from wasmlet.controlplane.access.rules import Rule
from wasmlet.controlplane.kubelets.streams import FEATURE, Mode
from wasmlet.testing import ControlPlane

# -- passed through


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_spdy_passes_byte_for_byte(control_plane: ControlPlane, stand: Stand, method: str) -> None:
    stand.answer = upgraded("SPDY/3.1", CHOSEN + V4)
    path = f"{EXEC}?command=sh&command=-c&command=a%20%26+b&container=c&stdin=true&stdout=1&tty=false&stderr=0"
    offered = (f"X-Stream-Protocol-Version: {V4}", "X-Stream-Protocol-Version: v3.channel.k8s.io")
    async with raw_client(control_plane, method, path, *SPDY, *offered) as (head, reader, writer):
        assert head.encode() == stand.answer
        assert stand.target == f"{method} /exec/default/p/c?command=sh&command=-c&command=a+%26+b&input=1&output=1"
        assert stand.values("X-Stream-Protocol-Version") == [V4, "v3.channel.k8s.io"]
        assert stand.values("X-Forwarded-For") == ["127.0.0.1"]
        data = bytes(range(256)) * 4096  # 1 MiB
        writer.write(data)
        async with asyncio.timeout(SECONDS):
            assert await reader.readexactly(len(data)) == data
    async with asyncio.timeout(SECONDS):
        await stand.closed.get()


async def test_credentials_do_not_pass(control_plane: ControlPlane, stand: Stand, login: Login) -> None:
    stand.answer = upgraded("SPDY/3.1")
    boss = await login(control_plane.user_kubeconfig("boss", ["system:masters"], token=True))
    headers = {**boss.headers, "Connection": "Upgrade", "Upgrade": "SPDY/3.1", "Impersonate-User": "alice"}
    control_plane.grant("alice", Rule(("create",), ("pods/attach",)))
    async with boss.session.post(f"{boss.server}{PODS}/p/attach?stdout=1", headers=headers) as answer:
        assert answer.status == 101
    assert stand.target == "POST /attach/default/p/c?output=1"
    assert stand.values("Authorization") == stand.values("Impersonate-User") == []


async def test_a_kubelet_that_ends_the_stream_ends_it_for_the_client(control_plane: ControlPlane, stand: Stand) -> None:
    async def last_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 3_000_000)

    stand.answer, stand.serve = upgraded("SPDY/3.1"), last_words
    async with raw_client(control_plane, "POST", f"{EXEC}?command=a", *SPDY) as (_, reader, _w):
        async with asyncio.timeout(SECONDS):
            assert len(await reader.read(-1)) == 3_000_000


async def test_a_slow_reader_slows_the_sender(control_plane: ControlPlane, stand: Stand) -> None:
    sent, full = 0, asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < 64 * 2**20:
            writer.write(bytes(2**20))
            try:
                await asyncio.wait_for(writer.drain(), 2)
            except TimeoutError:
                full.set()
                return
            sent += 2**20

    stand.answer, stand.serve = upgraded("SPDY/3.1"), flood
    async with raw_client(control_plane, "POST", f"{EXEC}?command=a", *SPDY):
        async with asyncio.timeout(SECONDS):
            await full.wait()
    assert sent < 32 * 2**20


async def test_an_older_websocket_passes(api: Api, control_plane: ControlPlane, stand: Stand) -> None:
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    headers = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
    stand.answer = upgraded("websocket", f"Sec-WebSocket-Protocol: {V4}")
    path = f"{EXEC}?command=ls&stdout=1"
    async with raw_client(control_plane, "GET", path, *headers, f"Sec-WebSocket-Protocol: {V4}") as (head, reader, w):
        assert head.encode() == stand.answer
        assert stand.target == "GET /exec/default/p/c?command=ls&output=1"
        assert stand.values("Sec-WebSocket-Protocol") == [V4]
        w.write(b"\x82\x80abcd")
        async with asyncio.timeout(SECONDS):
            assert await reader.readexactly(6) == b"\x82\x80abcd"


@pytest.mark.parametrize(("mode", "declared", "passes"), [("pass", False, True), ("declared", True, True)])
async def test_new_websockets_pass_where_that_is_so(mode: Mode, declared: bool, passes: bool, tmp_path: Path) -> None:
    async with (
        ControlPlane(streams=mode) as plane,
        open_api(plane, plane.kubeconfig) as api,
        stand_in(plane, api, tmp_path) as stand,
    ):
        if declared:
            features = {"status": {"declaredFeatures": [FEATURE]}}
            await api.ok("PATCH", "/api/v1/nodes/n1/status", features, media=STRATEGIC)
        for sub, protocol in (("exec", V5), ("portforward", TUNNEL)):
            headers = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Protocol: {protocol}")
            stand.answer = upgraded("websocket", f"Sec-WebSocket-Protocol: {protocol}")
            async with raw_client(plane, "GET", f"{PODS}/p/{sub}", *headers) as (head, _, _w):
                assert head.encode() == stand.answer
            assert stand.target.startswith("GET ")
            assert stand.values("Upgrade") == ["websocket"]


async def test_a_node_that_declares_nothing_gets_spdy(tmp_path: Path) -> None:
    async with (
        ControlPlane(streams="declared") as plane,
        open_api(plane, plane.kubeconfig) as api,
        stand_in(plane, api, tmp_path) as stand,
    ):
        stand.answer = upgraded("SPDY/3.1", CHOSEN + "portforward.k8s.io")
        async with socket(api, f"{PODS}/p/portforward", TUNNEL) as ws:
            assert ws.protocol == TUNNEL
        assert stand.values("Upgrade") == ["SPDY/3.1"]


# -- taken out of a websocket


async def test_port_forward_leaves_its_websocket(api: Api, stand: Stand) -> None:
    stand.answer = upgraded("SPDY/3.1", CHOSEN + "portforward.k8s.io")
    async with socket(api, f"{PODS}/p/portforward?ports=80,443", TUNNEL) as ws:
        assert ws.protocol == TUNNEL
        assert stand.target == "POST /portForward/default/p?port=80%2C443"
        assert stand.values("X-Stream-Protocol-Version") == ["portforward.k8s.io"]
        assert stand.values("Sec-WebSocket-Key") == []
        data = bytes(range(256)) * 1024
        for at in range(0, len(data), 30_000):
            await ws.send_bytes(data[at : at + 30_000])
        back = b""
        while len(back) < len(data):
            back += await receive(ws)
        assert back == data
    async with asyncio.timeout(SECONDS):
        await stand.closed.get()


async def test_a_kubelet_that_ends_a_port_forward_closes_the_websocket(api: Api, stand: Stand) -> None:
    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")

    stand.answer, stand.serve = upgraded("SPDY/3.1", CHOSEN + "portforward.k8s.io"), bye
    async with socket(api, f"{PODS}/p/portforward", TUNNEL) as ws:
        assert await receive(ws) == b"bye"
        async with asyncio.timeout(SECONDS):
            assert (await ws.receive()).type is WSMsgType.CLOSE


# -- refused


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nno",
    ],
)
async def test_what_the_kubelet_says_instead_of_upgrading(
    control_plane: ControlPlane, stand: Stand, answer: bytes
) -> None:
    stand.answer = answer
    async with raw_client(control_plane, "POST", f"{EXEC}?command=a", *SPDY) as (head, reader, _):
        assert head.startswith("HTTP/1.1 403 Forbidden")
        assert "Content-Type: text/plain" in head
        async with asyncio.timeout(SECONDS):
            assert await reader.readexactly(2) == b"no"


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (f"{EXEC}?container=x", 400, "container x is not valid for pod p"),
        (f"{PODS}/two/attach", 400, "a container name must be specified for pod two, choose one of: [a b]"),
        (f"{PODS}/gone/exec", 404, 'pods "gone" not found'),
        (f"{PODS}/waits/portforward", 400, "pod waits does not have a host assigned"),
        (f"{PODS}/p/portforward?ports=http", 400, "ports are numbers"),
        (f"{PODS}/lost/exec", 404, 'nodes "n9" not found'),
    ],
)
async def test_what_is_refused_without_asking_the_kubelet(
    api: Api, stand: Stand, control_plane: ControlPlane, path: str, status: int, message: str
) -> None:
    containers = [{"name": name, "image": "img:1"} for name in ("a", "b")]
    await api.ok("POST", PODS, pod("two", nodeName="n1", containers=containers))
    await api.ok("POST", PODS, pod("lost", nodeName="n9"))
    await api.ok("POST", PODS, pod("waits", nodeSelector={"a": "b"}))
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    async with api.session.post(f"{api.server}{path}", headers=headers) as answer:
        assert answer.status == status
        said = await answer.json()
    assert (said["kind"], message in said["message"]) == ("Status", True), said
    assert stand.heads == []


async def test_a_request_that_does_not_upgrade(api: Api, stand: Stand) -> None:
    for method in ("GET", "POST"):
        status, answer = await api(method, f"{EXEC}?command=a")
        assert (status, answer["message"]) == (400, "Upgrade request required")


@pytest.mark.parametrize("answer", [b"", b"GARBAGE\r\n\r\n", b"HTTP/1.1 nan\r\n\r\n", b"x" * 100_000])
async def test_a_kubelet_that_makes_no_sense(api: Api, stand: Stand, answer: bytes) -> None:
    stand.answer = answer
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    async with api.session.post(f"{api.server}{EXEC}?command=a", headers=headers) as found:
        assert found.status == 500
        assert "the kubelet of node n1 cannot be reached" in (await found.json())["message"]


async def test_a_get_needs_the_right_to_create(control_plane: ControlPlane, stand: Stand, login: Login) -> None:
    bob = await login(control_plane.user_kubeconfig("bob"))
    control_plane.grant("bob", Rule(("get",), ("pods/exec",)))
    status, answer = await bob("GET", f"{EXEC}?command=a")
    assert (status, 'cannot create resource "pods/exec"' in answer["message"]) == (403, True)
    control_plane.grant("bob", Rule(("create",), ("pods/exec",), names=("p",)))
    assert (await bob("GET", f"{EXEC}?command=a"))[0] == 400


async def test_a_certificate_of_nobody_known(tmp_path: Path) -> None:
    async with (
        ControlPlane(verify_kubelets=True) as plane,
        open_api(plane, plane.kubeconfig) as api,
        stand_in(plane, api, tmp_path),
    ):
        for path in (f"{EXEC}?command=a", f"{PODS}/p/log"):
            headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"} if "exec" in path else {}
            async with api.session.get(f"{api.server}{path}", headers=headers) as answer:
                assert answer.status == 500
                assert "CERTIFICATE_VERIFY_FAILED" in (await answer.json())["message"]


async def test_a_control_plane_that_ends_cuts_streams(tmp_path: Path) -> None:
    async with (
        ControlPlane() as plane,
        open_api(plane, plane.kubeconfig) as api,
        stand_in(plane, api, tmp_path) as stand,
    ):
        stand.answer = upgraded("SPDY/3.1", CHOSEN + "portforward.k8s.io")
        async with (
            socket(api, f"{PODS}/p/portforward", TUNNEL) as ws,
            raw_client(plane, "POST", f"{EXEC}?command=a", *SPDY) as (_, reader, _w),
            asyncio.timeout(SECONDS),
        ):
            await plane.__aexit__(None, None, None)
            assert await reader.read(-1) == b""
            assert (await ws.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
