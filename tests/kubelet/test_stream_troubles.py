"""Callers that leave, stall, flood or send nonsense: what was done for them ends, and memory stays bounded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from tests.kubelet.callers import KEY, SECONDS, Spdy, Watched, a_pod, head, messages, path, spdy_to, websocket_to
from tests.kubelet.harness import Kubelet, kubelet
from wasmlet.kubelet.sessions import Timeouts
from wasmlet.kubelet.spdy_frames import Reset
from wasmlet.testing import FakeClock

BOUND = 24 * 1024 * 1024
"""More than the kernel holds of a connection on loopback, for both sides."""
FLOOD = 64 * 1024 * 1024


@attrs.define
class Troubled:
    """A node with a clock that a test moves."""

    node: Kubelet
    clock: FakeClock
    provider: Watched


@pytest.fixture
async def troubled(tmp_path: Path) -> AsyncIterator[Troubled]:
    clock, provider = FakeClock(), Watched()
    async with kubelet(tmp_path, provider=provider, clock=clock) as node:
        await a_pod(node)
        yield Troubled(node, clock, provider)


ENDED = ("exec", "cleaning up", "cancelled")


def leave(caller: Spdy, how: str) -> None:
    if how == "abort":
        caller.writer.transport.abort()
    elif how == "close":
        caller.writer.close()
    else:
        caller.writer.write(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("how", ["abort", "close", "nonsense"])
@pytest.mark.parametrize("command", ["cat", "deaf", "flood", "sizes"])
async def test_a_caller_that_leaves_ends_its_command_once(troubled: Troubled, how: str, command: str) -> None:
    target = path("exec", command, input=1, output=1)
    async with spdy_to(troubled.node, target, "error", "stdin", "stdout") as caller:
        await troubled.provider.until_called("exec")
        leave(caller, how)
        await troubled.provider.until_called(*ENDED)


@pytest.mark.parametrize("kinds", [(), ("error",), ("error", "stdin")])
async def test_a_caller_that_leaves_before_its_streams_are_there(troubled: Troubled, kinds: tuple[str, ...]) -> None:
    target = path("exec", "cat", input=1, output=1)
    async with spdy_to(troubled.node, target, *kinds) as caller:
        await caller.until(lambda: len(caller.replied) == len(kinds))
        caller.writer.transport.abort()
    assert (await troubled.node("/pods"))[0] == 200
    assert troubled.provider.calls == []


@pytest.mark.parametrize("command", ["cat", "deaf", "flood"])
async def test_a_websocket_that_is_dropped_ends_its_command_once(troubled: Troubled, command: str) -> None:
    async with websocket_to(troubled.node, path("exec", command, input=1, output=1)) as socket:
        await troubled.provider.until_called("exec")
        connection = socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()
        await troubled.provider.until_called(*ENDED)


async def test_a_websocket_that_is_closed_ends_its_command(troubled: Troubled) -> None:
    async with websocket_to(troubled.node, path("exec", "deaf", input=1, output=1)) as socket:
        await troubled.provider.until_called("exec")
        await socket.close()
        await troubled.provider.until_called(*ENDED)


async def test_a_caller_that_leaves_while_its_stdin_is_not_read_is_noticed(troubled: Troubled) -> None:
    """Nothing is read from such a caller, so its leaving is seen by what cannot be sent to it any more."""
    target = path("exec", "deaf", input=1, output=1)
    async with spdy_to(troubled.node, target, "error", "stdin", "stdout") as caller:
        await troubled.provider.until_called("exec")
        caller.connection.send_data(caller.streams["stdin"], bytes(2_000_000))
        caller.send()
        await troubled.clock.next_sleep(at_most=10)  # the node does not read on
        caller.writer.transport.abort()
        async with asyncio.timeout(SECONDS):
            while troubled.provider.calls != list(ENDED):
                troubled.clock.advance(10)
                await asyncio.sleep(0.01)


async def test_a_reader_that_does_not_read_holds_its_command_up(troubled: Troubled) -> None:
    target = path("exec", "flood", output=1)
    async with spdy_to(troubled.node, target, "error", "stdout") as caller:
        await troubled.provider.until_called("exec")
        written = await troubled.provider.until_stalled()
        assert written < BOUND
        await caller.until(lambda: len(caller.got[caller.streams["stdout"]]) > written + 10_000_000)


async def test_a_websocket_that_is_not_read_holds_its_command_up(troubled: Troubled) -> None:
    async with websocket_to(troubled.node, path("exec", "flood", output=1)) as socket:
        await troubled.provider.until_called("exec")
        written = await troubled.provider.until_stalled()
        assert written < BOUND
        got = 0
        async with asyncio.timeout(SECONDS):
            while got < written + 10_000_000:
                got += len(await socket.receive_bytes()) - 1


async def test_a_command_that_does_not_read_holds_its_caller_up(troubled: Troubled) -> None:
    target = path("exec", "deaf", input=1, output=1)
    async with spdy_to(troubled.node, target, "error", "stdin", "stdout") as caller:
        await troubled.provider.until_called("exec")
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while sent < FLOOD:
                caller.connection.send_data(caller.streams["stdin"], bytes(256 * 1024))
                caller.send()
                await caller.writer.drain()
                sent += 256 * 1024

        flooding = asyncio.create_task(flood())
        await troubled.clock.next_sleep(at_most=10)
        before = -1
        while sent != before:
            before = sent
            await asyncio.wait([flooding], timeout=1.0)
        flooding.cancel()
        assert sent < BOUND


async def test_output_reaches_a_caller_whose_input_is_not_read(troubled: Troubled) -> None:
    target = path("exec", "flood", input=1, output=1)
    async with spdy_to(troubled.node, target, "error", "stdin", "stdout") as caller:
        caller.connection.send_data(caller.streams["stdin"], bytes(2_000_000))
        caller.send()
        await caller.until(lambda: len(caller.got[caller.streams["stdout"]]) > 20_000_000)


async def test_input_reaches_a_command_whose_output_is_not_read(troubled: Troubled) -> None:
    """As when Ctrl-C is to end a flood on a terminal that is held."""
    target = path("exec", "flood", input=1, output=1)
    async with spdy_to(troubled.node, target, "error", "stdin", "stdout") as caller:
        await troubled.provider.until_called("exec")
        await troubled.provider.until_stalled()
        for _ in range(100):
            caller.connection.ping()
        caller.connection.send_data(caller.streams["stdin"], b"\x03")
        caller.send()
        assert troubled.provider.streams is not None
        async with asyncio.timeout(SECONDS):
            assert await troubled.provider.streams.read_stdin() == b"\x03"


async def test_streams_that_never_come_end_the_session(troubled: Troubled) -> None:
    target = path("exec", "cat", input=1, output=1)
    async with spdy_to(troubled.node, target, "error", "stdin") as caller:
        await caller.until(lambda: len(caller.replied) == 2)
        assert await troubled.clock.next_sleep(at_most=30) == 30
        troubled.clock.advance(30)
        await caller.hung_up_on()
    assert troubled.provider.calls == []


async def test_half_a_frame_ends_the_session_too(troubled: Troubled) -> None:
    async with spdy_to(troubled.node, path("exec", "cat", input=1, output=1)) as caller:
        caller.open("error")
        caller.writer.write(caller.connection.data_to_send()[:11])
        await troubled.clock.next_sleep(at_most=30)
        troubled.clock.advance(30)
        await caller.hung_up_on()


@pytest.mark.parametrize("over", ["spdy", "websocket"])
async def test_silence_ends_a_session_after_four_hours(troubled: Troubled, over: str) -> None:
    target = path("exec", "cat", input=1, output=1)
    if over == "spdy":
        async with spdy_to(troubled.node, target, "error", "stdin", "stdout") as caller:
            await troubled.provider.until_called("exec")
            await _silent(troubled, caller)
            await caller.hung_up_on()
            assert caller.of("stdout") == b"still"
    else:
        async with websocket_to(troubled.node, target) as socket:
            await troubled.provider.until_called("exec")
            troubled.clock.advance(4 * 3600)
            await troubled.provider.until_called(*ENDED)
            assert 3 not in await messages(socket)


async def test_silence_never_ends_a_session_without_a_limit(troubled: Troubled) -> None:
    troubled.node.server._streaming._timeouts = Timeouts(idle=0)
    async with spdy_to(troubled.node, path("exec", "cat", input=1, output=1), "error", "stdin", "stdout") as caller:
        await troubled.provider.until_called("exec")
        troubled.clock.advance(30 * 24 * 3600)
        caller.connection.send_data(caller.streams["stdin"], b"still")
        caller.send()
        await caller.until(lambda: caller.of("stdout") == b"still")


async def _silent(troubled: Troubled, caller: Spdy) -> None:
    """Say something just before the end, and then nothing."""
    troubled.clock.advance(4 * 3600 - 1)
    caller.connection.send_data(caller.streams["stdin"], b"still")
    caller.send()
    await caller.until(lambda: caller.of("stdout"))
    troubled.clock.advance(1)
    assert troubled.provider.calls == ["exec"]
    await troubled.clock.next_sleep(at_least=3600)
    troubled.clock.advance(4 * 3600)
    await troubled.provider.until_called(*ENDED)


async def test_a_caller_that_does_not_hang_up_is_hung_up_on(troubled: Troubled) -> None:
    async with spdy_to(troubled.node, path("exec", "true", output=1), "error", "stdout") as caller:
        await caller.until(lambda: caller.connection.gone)
        assert await troubled.clock.next_sleep(at_most=10) == 10
        troubled.clock.advance(10)
        await caller.hung_up_on()


async def test_more_streams_than_a_command_has_are_refused(troubled: Troubled) -> None:
    target = path("exec", "cat", input=1, output=1)
    async with spdy_to(troubled.node, target, "error", "stdin", "odd") as caller:
        odd = caller.streams["odd"]
        await caller.until(lambda: odd in caller.reset)
        again = caller.open("stdin")
        caller.open("stdout")
        late = caller.open("resize")
        caller.send()
        await caller.until(lambda: {again, late} <= caller.reset.keys())
        assert caller.reset[late] == Reset.REFUSED_STREAM
        await troubled.provider.until_called("exec")


async def test_ten_thousand_streams_for_a_command_end_the_session(troubled: Troubled) -> None:
    async with spdy_to(troubled.node, path("exec", "cat", input=1, output=1)) as caller:
        for _ in range(10_000):
            caller.open("odd")
        caller.send()
        await caller.hung_up_on()


async def test_a_second_upgrade_on_a_connection_is_none(troubled: Troubled) -> None:
    target = path("exec", "cat", input=1, output=1)
    async with spdy_to(troubled.node, target, "error", "stdin", "stdout") as caller:
        await troubled.provider.until_called("exec")
        caller.writer.write(head(troubled.node, target))
        await caller.hung_up_on()
        await troubled.provider.until_called(*ENDED)
    context = troubled.node.client("root")
    reader, writer = await asyncio.open_connection("127.0.0.1", troubled.node.server.port, ssl=context)
    writer.write(2 * head(troubled.node, target))
    async with asyncio.timeout(SECONDS):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        writer.close()
        assert b"HTTP/1.1" not in await reader.read()


async def test_random_bytes_after_an_upgrade_do_no_harm(troubled: Troubled) -> None:
    rng = random.Random(7)
    for _ in range(20):
        async with spdy_to(troubled.node, path("exec", "cat", input=1, output=1)) as caller:
            caller.writer.write(b"\x80\x03" + rng.randbytes(2000))
            caller.writer.write_eof() if caller.writer.can_write_eof() else caller.writer.close()
    assert (await troubled.node("/pods"))[0] == 200
    assert troubled.provider.calls == []


async def test_the_end_of_the_node_ends_its_sessions(tmp_path: Path) -> None:
    provider = Watched()
    async with kubelet(tmp_path, provider=provider) as node:
        await a_pod(node)
        async with spdy_to(node, path("exec", "deaf", output=1), "error", "stdout") as caller:
            await provider.until_called("exec")
            async with asyncio.TaskGroup() as group:
                group.create_task(node.server.stop())
                await caller.hung_up_on()
            await provider.until_called(*ENDED)


async def test_two_hundred_followers_of_one_log(tmp_path: Path) -> None:
    async with kubelet(tmp_path) as node:
        await a_pod(node)
        provider, lines = node.provider, [b"line %d\n" % number for number in range(50)]
        for line in lines[:25]:
            provider.log(KEY, "c", line)
        url = f"https://127.0.0.1:{node.server.port}/containerLogs/default/p/c?follow=true"
        context, listening = node.client("root"), asyncio.Barrier(201)

        async def follow() -> bytes:
            async with node.session.get(url, ssl=context) as answer:
                first = await answer.content.readexactly(len(lines[0]))
                await listening.wait()
                return first + await answer.read()

        followers = [asyncio.create_task(follow()) for _ in range(200)]
        async with asyncio.timeout(60):
            await listening.wait()
            for line in lines[25:]:
                provider.log(KEY, "c", line)
            provider.finish(KEY)
            assert set(await asyncio.gather(*followers)) == {b"".join(lines)}
