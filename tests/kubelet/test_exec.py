"""Exec and attach, as an API server asks for them: over SPDY, and over websockets."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from tests.kubelet.callers import KEY, SECONDS, V4, V5, Watched, a_pod, ended, messages, path, spdy_to, websocket_to
from tests.kubelet.harness import Kubelet, kubelet
from wasmlet.provider import Provider
from wasmlet.testing.reference import ReferenceProvider

DATA = random.Random(1).randbytes(3_000_000)
SUCCESS = {"metadata": {}, "status": "Success"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Kubelet]:
    async with kubelet(tmp_path) as node:
        await a_pod(node)
        yield node


# --- over SPDY


async def test_three_megabytes_each_way_and_a_closed_stdin(node: Kubelet) -> None:
    async with spdy_to(node, path("exec", "cat", input=1, output=1), "error", "stdin", "stdout") as caller:
        assert caller.head.startswith("HTTP/1.1 101 Switching Protocols\r\n")
        assert f"X-Stream-Protocol-Version: {V4}" in caller.head

        async def feed() -> None:
            for at in range(0, len(DATA), 30_000):
                caller.connection.send_data(caller.streams["stdin"], DATA[at : at + 30_000])
                caller.send()
                await caller.writer.drain()
            caller.connection.end(caller.streams["stdin"])
            caller.send()

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            await caller.to_its_end()
        assert caller.of("stdout") == DATA
        assert caller.status == SUCCESS
        assert caller.ended >= {caller.streams["stdout"], caller.streams["error"]}


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
async def test_exit_codes_in_every_version(node: Kubelet, protocol: str) -> None:
    async def run(*command: str) -> Any:
        target = path("exec", *command, output=1, error=1)
        async with spdy_to(
            node, target, "error", "stdout", "stderr", X_Stream_Protocol_Version=f"v9.x, {protocol}"
        ) as caller:
            assert f"X-Stream-Protocol-Version: {protocol}\r\n" in caller.head
            await caller.to_its_end()
            return caller.status if protocol == V4 else caller.of("error").decode(), caller.of("stderr")

    status, stderr = await run("complain", "no", ";", "exit", "3")
    assert stderr == b"no\n"
    if protocol != V4:
        assert status == "command terminated with non-zero exit code: exit code 3"
        assert await run("true") == ("", b"")
        return
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert await run("true") == (SUCCESS, b"")


async def test_what_a_provider_refuses_is_told_on_the_error_stream(node: Kubelet) -> None:
    async with spdy_to(node, path("exec", "nosuch", output=1), "error", "stdout") as caller:
        await caller.to_its_end()
        assert caller.status["code"] == 500
        assert caller.status["message"] == (
            "Internal error occurred: error executing command in container: "
            'exec: "nosuch": executable file not found in $PATH'
        )


async def test_a_terminal_is_resized(node: Kubelet) -> None:
    target = path("exec", "sizes", input=1, output=1, error=1, tty=1)
    async with spdy_to(node, target, "error", "stdin", "stdout", "resize") as caller:
        resize, stdout = caller.streams["resize"], caller.streams["stdout"]
        caller.connection.send_data(resize, b'{"Width":80,"Height":24}\n')
        caller.send()
        await caller.until(lambda: bytes(caller.got[stdout]) == b"80x24\n")
        for piece in (b'{"Width":1', b'00,"Height":33}{"Width":"x"}', b'{"Width":101,"Height":34}'):
            caller.connection.send_data(resize, piece)
            caller.send()
        await caller.until(lambda: caller.got[stdout].endswith(b"101x34\n"))
        assert bytes(caller.got[stdout]) in (b"80x24\n101x34\n", b"80x24\n100x33\n101x34\n")


async def test_stdin_that_nobody_reads_costs_no_output(node: Kubelet) -> None:
    """A connection closed over unread bytes would take the answer with it."""
    async with spdy_to(node, path("exec", "echo", "done", input=1, output=1), "error", "stdin", "stdout") as caller:
        caller.connection.send_data(caller.streams["stdin"], DATA)
        caller.send()
        await caller.to_its_end()
        assert (caller.of("stdout"), caller.status) == (b"done\n", SUCCESS)


async def test_pings_are_answered(node: Kubelet) -> None:
    async with spdy_to(node, path("exec", "sizes", input=1, output=1), "error", "stdin", "stdout") as caller:
        for _ in range(3):
            caller.connection.ping()
        caller.send()
        await caller.until(lambda: caller.pongs == 3)


async def test_attach_over_spdy(node: Kubelet) -> None:
    async with spdy_to(
        node, path("attach", input=1, output=1, error=1), "error", "stdin", "stdout", "stderr"
    ) as caller:
        caller.connection.send_data(caller.streams["stdin"], b"hello\n")
        caller.send()
        await caller.until(lambda: caller.of("stdout") == b"hello\n")
        node.provider.finish(KEY)
        await caller.to_its_end()
        assert caller.status == SUCCESS


async def test_the_same_under_uvloop(tmp_path: Path) -> None:
    async def play() -> tuple[bytes, Any]:
        async with kubelet(tmp_path) as node:
            await a_pod(node)
            async with spdy_to(node, path("exec", "zeros", "3000000", output=1), "error", "stdout") as caller:
                await caller.to_its_end()
                return caller.of("stdout"), caller.status

    assert await asyncio.to_thread(uvloop.run, play()) == (bytes(3_000_000), SUCCESS)


# --- over websockets


@pytest.mark.parametrize("protocol", [V5, V4])
async def test_a_websocket_carries_three_megabytes_each_way(node: Kubelet, protocol: str) -> None:
    command = ["cat"] if protocol == V5 else ["zeros", str(len(DATA))]
    async with websocket_to(node, path("exec", *command, input=1, output=1), [protocol]) as socket:
        assert socket.protocol == protocol

        async def feed() -> None:
            for at in range(0, len(DATA), 30_000):
                await socket.send_bytes(b"\0" + DATA[at : at + 30_000])
            await socket.send_bytes(bytes([255, 0]))

        async with asyncio.TaskGroup() as group:
            if protocol == V5:
                group.create_task(feed())
            channels = await messages(socket)
        assert channels[1] == (DATA if protocol == V5 else bytes(len(DATA)))
        assert json.loads(channels[3]) == SUCCESS
        assert socket.close_code == 1000


async def test_a_websocket_without_a_protocol_is_the_first_version(node: Kubelet) -> None:
    async with websocket_to(node, path("exec", "exit", "3", output=1), []) as socket:
        assert (await messages(socket))[3] == b"command terminated with non-zero exit code: exit code 3"


async def test_a_websocket_in_base64(node: Kubelet) -> None:
    target = path("exec", "count", input=1, output=1)
    async with websocket_to(node, target, ["v4.base64.channel.k8s.io"]) as socket:
        first = await socket.receive_str()
        assert first == "1"  # which says that the connection is there
        await socket.send_str("0aGVsbG8=")
        await socket.send_str("0?not base64?")
        await socket.send_str("9aGVsbG8=")
    async with websocket_to(node, path("exec", "echo", "hi", output=1), ["base64.channel.k8s.io"]) as socket:
        assert [await socket.receive_str(), await socket.receive_str()] == ["1", "1aGkK"]


async def test_a_terminal_over_a_websocket(node: Kubelet) -> None:
    async with websocket_to(node, path("exec", "sizes", input=1, output=1, tty=1)) as socket:
        assert await socket.receive_bytes() == b"\1"
        await socket.send_bytes(b'\4{"Width":80,"Height":24}')
        assert await socket.receive_bytes() == b"\x0180x24\n"
        await socket.ping()
        await socket.send_bytes(b'\4{"Width":90,"Height":24}')
        assert await socket.receive_bytes() == b"\x0190x24\n"


@pytest.mark.parametrize("signal", [b"\xff", b"\xff\x09", b"\xff\x00\x00"])
async def test_a_close_signal_that_makes_no_sense_ends_the_session(node: Kubelet, signal: bytes) -> None:
    async with websocket_to(node, path("exec", "cat", input=1, output=1)) as socket:
        await socket.send_bytes(signal)
        assert 3 not in await messages(socket)


async def test_attach_over_a_websocket(node: Kubelet) -> None:
    async with websocket_to(node, path("attach", input=1, output=1)) as socket:
        assert await socket.receive_bytes() == b"\1"
        await socket.send_bytes(b"\0hello\n")
        assert await socket.receive_bytes() == b"\1hello\n"
        node.provider.finish(KEY)
        assert json.loads((await messages(socket))[3]) == SUCCESS


# --- what is answered before anything is upgraded


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/exec/default/p/c?command=true", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/default/p/c?tty=1&error=1&command=true", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/attach/default/p/c", 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/default/p/c?stdout=true", 400, "you must specify at least 1 command"),
        ("/exec/default/q/c?output=1&command=true", 404, "pod does not exist"),
        ("/exec/default/p/another-uid/c?output=1&command=true", 404, "pod does not exist"),
        ("/attach/default/p/x?output=1", 500, 'container not found ("x")'),
        ("/exec/default/p/a%2Fb?output=1&command=true", 500, 'container not found ("a/b")'),
        ("/exec/default/%2e%2e%2fp/c?output=1&command=true", 404, "pod does not exist"),
        ("/exec/default/p/uid-1/c?output=1&command=true&color=blue", 400, "Upgrade request required"),
        ("/exec/default/p", 404, "404: Page Not Found"),
        ("/exec/default/p/a/b/c/d?output=1&command=true", 404, "404: Page Not Found"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_requests_that_cannot_be_served(node: Kubelet, method: str, target: str, status: int, text: str) -> None:
    assert await node(target, method=method) == (status, text)


async def test_a_container_that_has_ended(node: Kubelet) -> None:
    node.provider.finish(KEY)
    ended(node, await node.provider.pod_status(KEY))
    assert await node(path("exec", "true", output=1)) == (500, 'container not found ("c")')


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"X_Stream_Protocol_Version": ""}, 400, "unable to upgrade: header X-Stream-Protocol-Version does not exist"),
        ({"X_Stream_Protocol_Version": " , "}, 400, "but no valid protocols"),
        (
            {"X_Stream_Protocol_Version": "v9.x"},
            403,
            "unable to upgrade: unable to negotiate protocol: client supports [v9.x], server accepts [v4.",
        ),
        ({"Upgrade": "h2c"}, 400, "expected Upgrade: SPDY/3.1 in the request, found [h2c]"),
        ({"Content_Length": "5"}, 400, "expected a request without a body"),
    ],
)
async def test_protocols_that_cannot_be_agreed_on(
    node: Kubelet, headers: dict[str, str], status: int, text: str
) -> None:
    async with spdy_to(node, path("exec", "true", output=1), **headers) as caller:
        assert caller.head.startswith(f"HTTP/1.1 {status} ")
        assert text.encode() in await caller.reader.readuntil(text.encode())
        if status == 403:
            assert caller.head.count("X-Accepted-Stream-Protocol-Versions: ") == 4


async def test_websocket_protocols_that_cannot_be_agreed_on(node: Kubelet) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with websocket_to(node, path("exec", "true", output=1), ["v9.x"]):
            pass
    assert refused.value.status == 403


@pytest.mark.parametrize("what", ["exec", "attach", "portForward"])
async def test_what_a_provider_does_not_do_is_501_before_an_upgrade(tmp_path: Path, what: str) -> None:
    class Plain(ReferenceProvider):
        exec = Provider.exec
        attach = Provider.attach
        port_forward = Provider.port_forward

    async with kubelet(tmp_path, provider=Plain()) as node:
        await a_pod(node)
        name = {"portForward": "port-forward"}.get(what, what)
        answer = await node(path(what, "true", output=1), method="POST")
        status, body = answer
        assert (status, json.loads(body)["kind"]) == (501, "Status")
        assert json.loads(body)["message"] == f"this node's provider, reference, does not support {name}"


async def test_what_a_provider_finds_out_late_is_501_on_the_error_stream(tmp_path: Path) -> None:
    class Late(ReferenceProvider):
        async def exec(self, *arguments: Any) -> int:
            return await Provider.exec(self, *arguments)

    async with kubelet(tmp_path, provider=Late()) as node:
        await a_pod(node)
        async with spdy_to(node, path("exec", "true", output=1), "error", "stdout") as caller:
            await caller.to_its_end()
            assert (caller.status["code"], caller.status["message"]) == (
                501,
                "this node's provider, reference, does not support exec",
            )


async def test_a_providers_fault_is_not_told_to_the_caller(tmp_path: Path) -> None:
    class Faulty(ReferenceProvider):
        async def exec(self, *arguments: Any) -> int:
            raise KeyError("secret")

    async with kubelet(tmp_path, provider=Faulty()) as node:
        await a_pod(node)
        async with spdy_to(node, path("exec", "true", output=1), "error", "stdout") as caller:
            await caller.to_its_end()
            assert "the node's log says why" in caller.status["message"]
            assert "secret" not in caller.status["message"]


async def test_what_a_provider_is_told_of_the_streams(tmp_path: Path) -> None:
    provider = Watched()
    async with kubelet(tmp_path, provider=provider) as node:
        await a_pod(node)
        for query, kinds in [
            ({"stdin": "true", "stdout": "1"}, (True, True, False, False)),
            ({"error": "1"}, (False, False, True, False)),
            ({"output": "1", "error": "1", "tty": "1", "input": "0"}, (False, True, False, True)),
        ]:
            async with websocket_to(node, path("exec", "true", **query)) as socket, asyncio.timeout(SECONDS):
                await messages(socket)
            told = provider.streams
            assert told is not None
            assert (told.stdin, told.stdout, told.stderr, told.tty) == kinds
