"""Logs, exec, attach and port-forward of an agent, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from wasmlet_agent.protocol.failures import error_of
from wasmlet_agent.protocol.frames import STDERR, STDIN, STDOUT, Data, Resize, Result, frame_in, frame_out

from tests.remote.agents import PATIENCE, AgentProcess, Caller, calling, pod
from wasmlet.errors import InvalidInput, NotFound

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def caller(agent: AgentProcess) -> AsyncIterator[Caller]:
    async with calling(agent) as found:
        spec = pod("a", "print", "one", "print", "two")
        spec["spec"]["containers"][0]["ports"] = [{"containerPort": 80}]
        await found.put(spec)
        yield found
        await found.clear()


@asynccontextmanager
async def websocket(caller: Caller, path: str, params: list[tuple[str, str]]) -> AsyncIterator[Any]:
    headers = {"Wasmlet-Session": str(caller.session)}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{caller.agent.url}{path}", params=params, headers=headers) as socket,
    ):
        yield socket


async def received(socket: Any) -> tuple[dict[int, bytes], Result]:
    """What was written to each output, and the result."""
    outputs: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(PATIENCE):
        while True:
            match frame_in(await socket.receive_bytes()):
                case Data(stream, content):
                    outputs[stream] += content
                case Result() as result:
                    return outputs, result


EXEC = "/v1/pods/a/containers/main/exec"
EARLY = "0001-01-01T00:00:00+14:00"
"""A time of which there is none in UTC."""


def words(*command: str, **flags: str) -> list[tuple[str, str]]:
    return [*(("command", word) for word in command), *flags.items()]


async def test_a_command_has_its_streams_and_tells_its_code(caller: Caller) -> None:
    command = words("count", ";", "complain", "no", ";", "exit", "3", stdin="1", stdout="1", stderr="1")
    async with websocket(caller, EXEC, command) as socket:
        for _ in range(40):
            await socket.send_bytes(frame_out(Data(STDIN, bytes(500_000))))
        await socket.send_bytes(frame_out(Data(STDIN, b"")))
        assert await received(socket) == ({STDOUT: b"20000000\n", STDERR: b"no\n"}, Result(3))


async def test_a_command_may_be_as_long_as_a_kubelet_takes_it(caller: Caller) -> None:
    async with websocket(caller, EXEC, words("echo", "x" * 32_000, stdout="1")) as socket:
        outputs, result = await received(socket)
        assert (len(outputs[STDOUT].rstrip()), result) == (32_000, Result(0))


async def test_an_output_that_is_not_connected_is_dropped(caller: Caller) -> None:
    async with websocket(caller, EXEC, words("echo", "a", ";", "complain", "b", stderr="1")) as socket:
        assert await received(socket) == ({STDOUT: b"", STDERR: b"b\n"}, Result(0))


async def test_a_large_output_comes_whole(caller: Caller) -> None:
    async with websocket(caller, EXEC, words("zeros", "5000000", stdout="1")) as socket:
        outputs, result = await received(socket)
        assert (len(outputs[STDOUT]), result) == (5_000_000, Result(0))


async def test_a_terminal_has_sizes(caller: Caller) -> None:
    async with websocket(caller, EXEC, words("sizes", stdout="1", tty="1")) as socket:
        await socket.send_bytes(frame_out(Resize(80, 24)))
        assert frame_in(await socket.receive_bytes()) == Data(STDOUT, b"80x24\n")


async def test_what_fails_is_told(caller: Caller) -> None:
    async with websocket(caller, EXEC, words("nothing", stdout="1")) as socket:
        _, result = await received(socket)
        assert result.failure is not None
        assert isinstance(error_of(result.failure), InvalidInput)
    async with websocket(caller, EXEC, words("cat", stdin="1")) as socket:
        await socket.send_bytes(b"\x07what")
        _, result = await received(socket)
        assert result.failure is not None
        assert "kind 7" in result.failure.message
    async with websocket(caller, "/v1/pods/a/containers/other/exec", words("true")) as socket:
        _, result = await received(socket)
        assert result.failure is not None
        assert isinstance(error_of(result.failure), NotFound)


async def test_before_the_upgrade_errors_are_answers(caller: Caller) -> None:
    for path, status in (
        (EXEC, 400),  # no command
        (f"{EXEC}?command=true", 400),  # no websocket
        ("/v1/pods/b/containers/main/exec?command=true", 404),
        ("/v1/pods/a/portforward", 400),
        ("/v1/pods/a/portforward?port=0", 400),
        ("/v1/pods/a/containers/main/attach?tty=perhaps", 400),
    ):
        await caller.error("GET", path, status)


async def test_a_caller_that_leaves_ends_the_command_before_the_close_is_answered(caller: Caller) -> None:
    async with websocket(caller, "/v1/pods/a/containers/main/attach", [("stdin", "1"), ("stdout", "1")]) as socket:
        await socket.send_bytes(frame_out(Data(STDIN, b"typed\n")))
        assert frame_in(await socket.receive_bytes()) == Data(STDOUT, b"typed\n")
        assert await socket.close()
    log = await caller.ask("GET", "/v1/pods/a/containers/main/logs", params={"tail": 1})
    assert log.content == b"typed\n"


async def test_a_port_echoes(caller: Caller) -> None:
    async with websocket(caller, "/v1/pods/a/portforward", [("port", "80")]) as socket:
        await socket.send_bytes(frame_out(Data(STDIN, b"ping")))
        assert frame_in(await socket.receive_bytes()) == Data(STDOUT, b"ping")
        await socket.send_bytes(frame_out(Data(STDIN, b"")))
        assert (await received(socket))[1] == Result(0)
    async with websocket(caller, "/v1/pods/a/portforward", [("port", "81")]) as socket:
        _, result = await received(socket)
        assert result.failure is not None
        assert isinstance(error_of(result.failure), InvalidInput)


async def test_logs_have_their_options(caller: Caller) -> None:
    path = "/v1/pods/a/containers/main/logs"

    async def log(**params: Any) -> bytes:
        return (await caller.ask("GET", path, params=params)).content

    assert await log() == b"one\ntwo\n"
    assert await log(tail=1) == b"two\n"
    assert await log(limit=5) == b"one\nt"
    assert await log(since="2100-01-01T00:00:00Z") == b""
    assert (await log(timestamps="true")).splitlines()[0].endswith(b"Z one")
    assert isinstance(await caller.error("GET", path, 404, params={"previous": "1"}), NotFound)
    assert isinstance(await caller.error("GET", "/v1/pods/a/containers/other/logs", 404), NotFound)
    for since in ("yesterday", "2020-01-01T00:00:00", EARLY):
        assert isinstance(await caller.error("GET", path, 400, params={"since": since}), InvalidInput)
    for params in ({"tail": "-1"}, {"follow": "maybe"}):
        assert isinstance(await caller.error("GET", path, 400, params=params), InvalidInput)


async def test_a_log_is_followed_to_the_end_of_the_pod(caller: Caller) -> None:
    headers = {"Wasmlet-Session": str(caller.session)}
    url = f"{caller.agent.url}/v1/pods/a/containers/main/logs?follow=true&tail=0"
    async with asyncio.timeout(PATIENCE), caller.http.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        async with websocket(caller, "/v1/pods/a/containers/main/attach", [("stdin", "1")]) as socket:
            await socket.send_bytes(frame_out(Data(STDIN, b"more\n")))
            pieces = answer.aiter_bytes()
            assert await anext(pieces) == b"more\n"
        await caller.delete("a")
        assert [piece async for piece in pieces] == []
