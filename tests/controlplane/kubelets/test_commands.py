"""Exec in a websocket, which the control plane translates for a kubelet that speaks SPDY."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from tests.controlplane.client import Api
from tests.controlplane.kubelets.stand_in import (
    CHOSEN,
    EXEC,
    SECONDS,
    V4,
    V5,
    Command,
    Stand,
    receive,
    socket,
    upgraded,
)
from wasmlet.kubelet import spdy


async def ending(ws: aiohttp.ClientWebSocketResponse) -> Any:
    """The Status in the error channel, with which the websocket ends; what else comes before is passed over."""
    async with asyncio.timeout(SECONDS):
        while (data := await receive(ws))[0] != 3 or len(data) == 1:
            pass
        assert (await ws.receive()).type is WSMsgType.CLOSE
    return orjson.loads(data[1:])


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
