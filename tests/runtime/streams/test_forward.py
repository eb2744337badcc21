"""Port-forwards to real servers: bytes both ways, ends of either side, and who is left when the caller leaves."""

from __future__ import annotations

import asyncio
import errno

import pytest

from tests.runtime.network.servers import tcp_server
from wasmlet.errors import InvalidInput
from wasmlet.runtime.network import dialing
from wasmlet.runtime.network.network import PodNetwork
from wasmlet.runtime.streams.forward import forward
from wasmlet.testing.contract.streams import Client

POD = PodNetwork(("127.0.0.1",))
PATIENCE = 30


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def test_bytes_both_ways_until_the_caller_sends_no_more() -> None:
    client, data = Client(), bytes(range(256)) * 4096
    async with tcp_server(echo) as port, asyncio.timeout(PATIENCE):
        for begin in range(0, len(data), 30_000):
            client.sends.put_nowait(data[begin : begin + 30_000])
        client.sends.put_nowait(b"")
        await forward(POD, "p", port, client, (port,))
    assert client.got == data


async def test_the_pods_side_closes_first() -> None:
    async def says_and_leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await writer.drain()

    client = Client()
    async with tcp_server(says_and_leaves) as port, asyncio.timeout(PATIENCE):
        await forward(POD, "p", port, client, (port,))
    assert client.got == b"bye"


async def test_a_caller_who_takes_no_more_ends_it() -> None:
    class Gone(Client):
        async def write(self, data: bytes) -> None:
            raise ConnectionResetError

    async with tcp_server(echo) as port, asyncio.timeout(PATIENCE):
        client = Gone()
        client.sends.put_nowait(b"x")
        await forward(POD, "p", port, client, (port,))


async def test_a_pod_whose_address_is_gone_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so with another error than that of a connection which its peer has closed."""
    connect = dialing.connect_inside

    async def lost(network: PodNetwork, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(network, port)
        reader.set_exception(OSError(errno.EHOSTUNREACH, "No route to host"))
        return reader, writer

    monkeypatch.setattr(dialing, "connect_inside", lost)
    async with tcp_server(echo) as port, asyncio.timeout(PATIENCE):
        await forward(POD, "p", port, Client(), (port,))


async def test_a_caller_who_leaves_hangs_up() -> None:
    ended = asyncio.Event()

    async def until_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        await reader.read()
        ended.set()

    async with tcp_server(until_end) as port, asyncio.timeout(PATIENCE):
        client = Client()
        job = asyncio.create_task(forward(POD, "p", port, client, (port,)))
        await client.until(1)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await ended.wait()


async def test_a_pod_that_reads_nothing_keeps_no_caller() -> None:
    """What is on its way to the pod would be waited for as long as the pod exists."""
    begun = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            writer.transport.abort()

    client = Client()
    client.sends.put_nowait(bytes(32 * 1024 * 1024))
    async with tcp_server(deaf) as port:
        job = asyncio.create_task(forward(POD, "p", port, client, (port,)))
        await begun.wait()
        job.cancel()
        done, _ = await asyncio.wait([job], timeout=PATIENCE)
        job.cancel()
        assert done


async def test_nothing_listens() -> None:
    async with tcp_server(echo) as port:
        pass
    with pytest.raises(InvalidInput, match=f"cannot connect to port {port} of the pod: .*refused"):
        await forward(POD, "p", port, Client(), (port,))
