"""A SOCKS5 proxy on loopback (RFC 1928 and 1929): enough of it to see who asks for what."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs


@attrs.define
class SocksProxy:
    """What came to the proxy.

    Attributes:
        asked: host and port of each connection, as the client named them; a name is not looked up by the client.
        users: who said a name and a password.
    """

    port: int = 0
    asked: list[tuple[str, int]] = attrs.field(factory=list)
    users: list[tuple[str, str]] = attrs.field(factory=list)


@asynccontextmanager
async def socks_proxy(*, password: bool = False) -> AsyncIterator[SocksProxy]:
    """Serve until the context ends. Every name leads to loopback.

    Args:
        password: ask each client for a name and a password.
    """
    found = SocksProxy()
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            host, port = await _greeted(found, reader, writer, password)
            found.asked.append((host, port))
            there = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
            with contextlib.closing(there[1]):
                async with asyncio.TaskGroup() as group:
                    group.create_task(_passed(reader, there[1]))
                    group.create_task(_passed(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        yield found
        if handlers:  # each ends with its connection
            await asyncio.wait(handlers, timeout=10)


async def _greeted(
    found: SocksProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, password: bool
) -> tuple[str, int]:
    version, methods = await reader.readexactly(2)
    offered = await reader.readexactly(methods)
    assert version == 5
    method = 2 if password else 0
    if method not in offered:
        writer.write(b"\x05\xff")
        raise OSError("no method")
    writer.write(bytes([5, method]))
    if password:
        await reader.readexactly(1)
        name = await reader.readexactly((await reader.readexactly(1))[0])
        secret = await reader.readexactly((await reader.readexactly(1))[0])
        found.users.append((name.decode(), secret.decode()))
        writer.write(b"\x01\x00")
    _, _, _, kind = await reader.readexactly(4)
    if kind == 3:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    else:
        family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
        host = socket.inet_ntop(family, await reader.readexactly(size))
    return host, int.from_bytes(await reader.readexactly(2))


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()
