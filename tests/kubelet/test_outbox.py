"""Callers that follow a log and do not read it: what they hold together is bounded, and is given back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.kubelet.callers import a_pod
from tests.kubelet.harness import Kubelet, kubelet
from wasmlet.kubelet.outbox import WAITING_BYTES, Outbox
from wasmlet.model.pod import PodKey
from wasmlet.provider import LogOptions
from wasmlet.testing.reference import ReferenceProvider

PIECE = 64 * 1024
FOLLOWED = b"GET /containerLogs/default/p/c?follow=true HTTP/1.1\r\nHost: x\r\n\r\n"
CALLERS = """
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain(sys.argv[2])
held = []
for _ in range(int(sys.argv[3])):
    held.append(context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])))))
    held[-1].sendall(sys.argv[4].encode())
print("ready", flush=True)
sys.stdin.read()
"""


class Flood(ReferenceProvider):
    """A log that never ends and is always there to be read."""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(PIECE)
            await asyncio.sleep(0)


@asynccontextmanager
async def flooding(directory: Path) -> AsyncIterator[Kubelet]:
    async with asyncio.timeout(80), kubelet(directory, provider=Flood()) as node:
        await a_pod(node)
        yield node


@asynccontextmanager
async def callers(node: Kubelet, count: int) -> AsyncIterator[None]:
    """So many in a process of their own, none of which reads anything."""
    node.client("root")
    arguments = ("-c", CALLERS, str(node.server.port), str(node.directory / "client.pem"), str(count))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        FOLLOWED.decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def until_still(outbox: Outbox) -> None:
    """Wait until nobody has read for half a second."""
    before, same = -1, 0
    while same < 5 or not before:
        await asyncio.sleep(0.1)
        same = same + 1 if outbox.waiting == before else 0
        before = outbox.waiting


def resident() -> int:
    """The memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_two_hundred_that_never_read(tmp_path: Path) -> None:
    async with flooding(tmp_path) as node:
        outbox = node.server.outbox
        async with callers(node, 3):
            await until_still(outbox)
        before = resident()
        async with callers(node, 200):
            await until_still(outbox)
            assert outbox.waiting <= WAITING_BYTES
            assert resident() - before < 100 * 2**20
        while outbox.waiting or resident() - before > 20 * 2**20:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.1)


async def test_who_reads_is_served_beside_them(tmp_path: Path) -> None:
    async with flooding(tmp_path) as node, callers(node, 200):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port, ssl=node.client("root"))
        writer.write(FOLLOWED)
        try:
            for _ in range(200):
                assert len(await reader.readexactly(PIECE)) == PIECE
        finally:
            writer.transport.abort()


class Stalled:
    """A transport and its answer that takes nothing until it is aborted."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return 100

    def abort(self) -> None:
        self.gone.set()

    async def write(self, data: bytes) -> None:
        await self.gone.wait()
        raise ConnectionResetError


async def test_who_has_read_nothing_for_longest_is_hung_up_on() -> None:
    outbox, stalled = Outbox(most=1000), [Stalled() for _ in range(5)]

    async def write(one: Stalled) -> None:
        with suppress(ConnectionResetError):
            await outbox.write(one, one, bytes(200))  # type: ignore[arg-type]

    tasks = []
    for one in stalled:
        tasks.append(asyncio.create_task(write(one)))
        await asyncio.sleep(0)
    assert [one.gone.is_set() for one in stalled] == [True, True, False, False, False]
    assert outbox.waiting == 900
    for one in stalled:
        one.abort()
    await asyncio.gather(*tasks)
    assert outbox.waiting == 0
