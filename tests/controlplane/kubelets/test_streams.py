"""Exec, attach and port-forward on their way through the control plane, in each of the ways an API server has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from tests.controlplane.client import PODS, STRATEGIC, Api, open_api, pod
from tests.controlplane.conftest import Login
from tests.controlplane.kubelets.stand_in import SECONDS, Command, Stand, raw_client, stand_in, upgraded
from wasmlet.controlplane.access.rules import Rule
from wasmlet.controlplane.kubelets.streams import FEATURE, Mode
from wasmlet.kubelet import spdy
from wasmlet.testing import ControlPlane

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
SPDY = ("Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0")
CHOSEN = "X-Stream-Protocol-Version: "
EXEC = f"{PODS}/p/exec"


@pytest.fixture
async def stand(control_plane: ControlPlane, api: Api, tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand_in(control_plane, api, tmp_path) as found:
        yield found


def socket(api: Api, path: str, *protocols: str) -> Any:
    """A websocket to the API server."""
    return api.session.ws_connect(api.server + path, protocols=protocols, max_msg_size=0)


async def receive(ws: aiohttp.ClientWebSocketResponse) -> bytes:
    async with asyncio.timeout(SECONDS):
        data: bytes = await ws.receive_bytes()
    return data


async def ending(ws: aiohttp.ClientWebSocketResponse) -> Any:
    """The Status in the error channel, with which the websocket ends; what else comes before is passed over."""
    async with asyncio.timeout(SECONDS):
        while (data := await receive(ws))[0] != 3 or len(data) == 1:
            pass
        assert (await ws.receive()).type is WSMsgType.CLOSE
    return orjson.loads(data[1:])


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


# -- translated


def command(stand: Stand, run: Any, **more: Any) -> Command:
    found = Command(run, **more)
    stand.answer, stand.serve = upgraded("SPDY/3.1", CHOSEN + V4), found.serve
    return found


async def test_a_command_with_everything(api: Api, stand: Stand) -> None:
    said: list[spdy.Event] = []

    async def cat(process: Command) -> None:
        await process.opened("error", "stdin", "stdout", "stderr")
        await process.send("stderr", b"reading")
        while not isinstance(event := await process.next(), spdy.StreamEnded):
            said.append(event)
            if isinstance(event, spdy.DataReceived):
                await process.send("stdout", event.data)
        await process.exit(0)

    process = command(stand, cat)
    async with socket(api, f"{EXEC}?command=cat&stdin=true&stdout=true&stderr=true", V5) as ws:
        assert ws.protocol == V5
        assert await receive(ws) == b"\x01"
        assert await receive(ws) == b"\x02reading"
        data = bytes(range(256)) * 12 * 1024  # 3 MiB

        async def write() -> None:
            for at in range(0, len(data), 32 * 1024):
                await ws.send_bytes(b"\x00" + data[at : at + 32 * 1024])
            await ws.send_bytes(b"\x09to nobody")
            await ws.send_bytes(b"")
            await ws.send_bytes(b"\xff\x00")
            await ws.send_bytes(b"\x00after the end")

        writing = asyncio.create_task(write())
        back = bytearray()
        while len(back) < len(data):
            message = await receive(ws)
            assert message[0] == 1
            back += message[1:]
        assert back == data
        assert await ending(ws) == {"metadata": {}, "status": "Success"}
        await writing
    assert stand.target == "POST /exec/default/p/c?command=cat&error=1&input=1&output=1"
    assert stand.values("X-Stream-Protocol-Version")[:2] == [V5, V4]
    assert list(process.streams) == ["error", "stdin", "stdout", "stderr"]


async def test_a_terminal_and_its_size(api: Api, stand: Stand) -> None:
    async def shell(process: Command) -> None:
        await process.opened("error", "stdin", "stdout", "resize")
        event = await process.next()
        assert event == spdy.DataReceived(process.streams["resize"], b'{"Width":80,"Height":24}')
        await process.send("stdout", b"80x24")
        await process.exit(0)

    process = command(stand, shell)
    async with socket(api, f"{EXEC}?command=sh&stdin=1&stdout=1&stderr=1&tty=1", V5) as ws:
        await ws.send_bytes(b'\x04{"Width":80,"Height":24}')
        assert await receive(ws) == b"\x01"
        assert await receive(ws) == b"\x0180x24"
        assert (await ending(ws))["status"] == "Success"
    assert "stderr" not in process.streams


async def test_an_exit_code_comes_as_a_status(api: Api, stand: Stand) -> None:
    async def fail(process: Command) -> None:
        await process.opened("error", "stdout")
        await process.exit(7)

    command(stand, fail)
    async with socket(api, f"{EXEC}?command=false&stdout=1", V5) as ws:
        status = await ending(ws)
    assert (status["reason"], status["details"]["causes"][0]["message"]) == ("NonZeroExitCode", "7")


async def test_a_client_that_leaves_ends_the_command(api: Api, stand: Stand) -> None:
    async def wait(process: Command) -> None:
        await process.opened("error", "stdout")
        await process.send("stdout", b"on")
        while True:
            await process.next()

    command(stand, wait)
    async with socket(api, f"{EXEC}?command=sleep&stdout=1", V5) as ws:
        assert await receive(ws) == b"\x01"
        assert await receive(ws) == b"\x01on"
        assert ws._response.connection is not None
        transport = ws._response.connection.transport
        assert transport is not None
        transport.abort()
        async with asyncio.timeout(SECONDS):
            await stand.closed.get()


async def test_a_command_that_reads_no_more_does_not_hold_up_its_output(api: Api, stand: Stand) -> None:
    async def deaf(process: Command) -> None:
        await process.opened("error", "stdin", "stdout")
        process.link.reset(process.streams["stdin"])
        await process.send("stdout", b"done")
        await process.exit(0)

    command(stand, deaf)
    async with socket(api, f"{EXEC}?command=true&stdin=1&stdout=1", V5) as ws:
        assert await receive(ws) == b"\x01"
        await ws.send_bytes(b"\x00into nothing")
        assert await receive(ws) == b"\x01done"
        assert (await ending(ws))["status"] == "Success"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"nonsense", "is no Status"),
        (b'{"status":"Perhaps"}', "is no Status"),
    ],
)
async def test_an_ending_that_makes_no_sense(api: Api, stand: Stand, said: bytes, why: str) -> None:
    async def odd(process: Command) -> None:
        await process.opened("error", "stdout")
        await process.send("error", said)
        process.link.end(process.streams["stdout"])
        process.link.end(process.streams["error"])

    command(stand, odd)
    async with socket(api, f"{EXEC}?command=a&stdout=1", V5) as ws:
        status = await ending(ws)
    assert (status["code"], status["reason"]) == (500, "InternalError")
    assert why in status["message"]


async def test_a_kubelet_that_breaks_off(api: Api, stand: Stand) -> None:
    async def gone(process: Command) -> None:
        await process.opened("error", "stdout")
        process.writer.close()

    command(stand, gone)
    async with socket(api, f"{EXEC}?command=a&stdout=1", V5) as ws:
        status = await ending(ws)
    assert "ended the connection before the streams" in status["message"]


async def test_a_kubelet_that_speaks_something_else(api: Api, stand: Stand) -> None:
    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x80\x09" + b"\xff" * 100)
        await reader.read()

    stand.answer, stand.serve = upgraded("SPDY/3.1"), noise
    async with socket(api, f"{EXEC}?command=a&stdout=1", V5) as ws:
        assert "does not keep to SPDY" in (await ending(ws))["message"]


async def test_a_refusal_is_told_on_the_error_channel(api: Api, stand: Stand) -> None:
    stand.answer = b'HTTP/1.1 404 Not Found\r\nContent-Length: 25\r\n\r\ncontainer not found ("c")'
    async with socket(api, f"{EXEC}?command=a&stderr=1", V5) as ws:
        assert await receive(ws) == b"\x02"
        status = await ending(ws)
    assert status["message"] == 'Internal error occurred: unable to upgrade connection: container not found ("c")'


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
