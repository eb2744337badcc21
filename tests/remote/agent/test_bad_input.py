"""What is too large, packed badly, without an end or never read costs an agent little, and it goes on."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import httpx
import pytest
import pytest_asyncio
from wasmlet_agent.protocol.codec import decode
from wasmlet_agent.protocol.failures import Failure, TooLarge
from wasmlet_agent.protocol.messages import Line, StatusLine

from tests.remote.agents import PATIENCE, AgentProcess, Caller, calling, pod
from wasmlet.errors import InvalidInput

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
MOST_MEMORY = 400 * MIB
"""What the agent's process may ever have taken: some bodies of 32 MiB and what is made of them."""


@pytest_asyncio.fixture(loop_scope="module")
async def caller(agent: AgentProcess) -> AsyncIterator[Caller]:
    async with calling(agent) as found:
        await found.put(pod("a", "print", "text"))
        yield found
        assert (await found.ask("GET", "/v1/pods/a/containers/main/logs")).content == b"text\n"
        assert peak(agent) < MOST_MEMORY
        await found.clear()


def peak(agent: AgentProcess) -> int:
    """Bytes of memory that the agent has had at most."""
    assert agent.process is not None
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


async def test_a_body_of_100_megabytes_is_refused_before_it_is_sent(caller: Caller) -> None:
    """Four of them at once, one that says how long it is and one that does not."""
    piece = bytes(MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield piece

    async def send(headers: dict[str, str]) -> None:
        headers = headers | {"Wasmlet-Session": str(caller.session), "Wasmlet-Sequence": "500"}
        async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
            try:
                answer = await client.put(f"{caller.agent.url}/v1/pods/b", content=pieces(), headers=headers)
            except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
                return  # the agent has hung up while we were still sending
            assert answer.status_code == 413

    await asyncio.gather(*(send({"Content-Length": str(100 * MIB)} if told else {}) for told in (True, False) * 2))
    # One that only says how long it is.
    reader, writer = await asyncio.open_connection("127.0.0.1", int(caller.agent.url.rpartition(":")[2]))
    session = (f"Wasmlet-Session: {caller.session}", "Wasmlet-Sequence: 501")
    head = ("PUT /v1/pods/b HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {100 * MIB}", *session)
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert decode(Failure, answer.partition(b"\r\n\r\n")[2]).error == "TooLarge"


async def test_a_small_body_that_unpacks_to_256_mebibytes_is_refused(caller: Caller) -> None:
    packing = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packing.compress(bytes(MIB)) for _ in range(256)) + packing.flush()
    assert len(bomb) < MIB
    headers = {"Content-Encoding": "gzip"}
    assert isinstance(await caller.error("PUT", "/v1/pods/b", 413, content=bomb, headers=headers), TooLarge)


async def test_a_packed_body_counts_as_what_it_unpacks_to(caller: Caller) -> None:
    body = json.dumps({"pod": pod("b"), "inputs": {}}).encode()
    packed, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
    await caller.ask("PUT", "/v1/pods/b", content=packed, headers=headers)
    assert (await caller.pods())["b"].digest == hashlib.sha256(body).hexdigest()
    for content, packing in ((packed[:-9], "gzip"), (body, "gzip"), (b"", "gzip"), (body, "br")):
        rest = {"content": content, "headers": {"Content-Encoding": packing}}
        assert isinstance(await caller.error("PUT", "/v1/pods/b", 400, **rest), InvalidInput)


async def test_a_large_pod_is_taken(caller: Caller) -> None:
    config_maps = {f"c{n}": {"data": {"text": "x" * MIB}} for n in range(20)}
    await caller.put(pod("large"), {"config_maps": config_maps})
    assert "large" in await caller.pods()


async def test_headers_without_end_are_refused(caller: Caller) -> None:
    answer = await caller.http.get(f"{caller.agent.url}/v1/pods", headers={"X-Long": "x" * 100_000})
    assert answer.status_code == 400


async def test_two_hundred_streams_at_once(caller: Caller) -> None:
    async with AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        many = Caller(caller.agent, limits=limits)
        stack.push_async_callback(many.close)
        many.session = caller.session
        streams = [await stack.enter_async_context(many.changes()) for _ in range(200)]
        await caller.put(pod("seen"))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*map(until_seen, streams))


async def until_seen(lines: AsyncIterator[Line]) -> None:
    async for line in lines:
        if isinstance(line, StatusLine) and line.key.uid == "seen":
            return
    raise AssertionError("the stream has ended")


async def test_what_is_never_read_is_held_back(caller: Caller) -> None:
    """Of a command's output, a log and the changes."""
    headers = {"Wasmlet-Session": str(caller.session)}
    base = f"{caller.agent.url}/v1/pods/a/containers/main"
    params = {"command": ["zeros", "2000000000"], "stdout": "1"}
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for _ in range(4):
            await stack.enter_async_context(session.ws_connect(f"{base}/exec", params=params, headers=headers))
        await stack.enter_async_context(session.get(f"{base}/logs?follow", headers=headers))
        await stack.enter_async_context(session.get(f"{caller.agent.url}/v1/changes", headers=headers))
        before = len(await caller.pods())
        for number in range(50):
            await caller.put(pod(f"p{number}"))
        assert len(await caller.pods()) == before + 50
