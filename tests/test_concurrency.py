"""What everybody uses to break a connection."""

from __future__ import annotations

import asyncio
import contextlib

from wasmlet.concurrency import cut


class Transport(asyncio.WriteTransport):
    """As a TLS transport of Python 3.11.2 is once it was closed twice: its connection is not known to it any more."""

    connection = None

    def abort(self) -> None:
        self.connection.abort()  # type: ignore[attr-defined]


def test_a_connection_that_was_closed_twice_is_left_alone() -> None:
    cut(Transport())
    cut(None)


async def test_a_connection_is_broken_at_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut(writer.transport)
        cut(writer.transport)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
