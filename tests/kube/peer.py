"""A server that follows a script for each connection, byte by byte: for what no HTTP server would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from tests.kube.server import write_kubeconfig
from wasmlet.kube import Client, load_identity

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@attrs.define
class Peer:
    """A server that is one function for each connection.

    Attributes:
        requests: the first line of each request, connection by connection.
    """

    client: Client
    requests: list[list[str]]


@attrs.frozen
class Talk:
    """One connection, as a script of a test sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lines: list[str]

    async def asked(self) -> str:
        """The head of the next request; its body is read, too."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        self.lines.append(head.partition("\r\n")[0])
        length = next((int(line[16:]) for line in head.split("\r\n") if line.startswith("Content-Length: ")), 0)
        await self.reader.readexactly(length)
        return head

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)


Script = Callable[[Talk], Awaitable[None]]


@asynccontextmanager
async def peer(directory: Path, *scripts: Script, connections: int = 32) -> AsyncIterator[Peer]:
    """A client of a server that follows one script for each connection, the last one for all further ones."""
    requests: list[list[str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append([])
        try:
            await scripts[min(len(requests), len(scripts)) - 1](Talk(reader, writer, requests[-1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        kubeconfig = write_kubeconfig(directory, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with Client(await load_identity(kubeconfig), connections=connections) as client:
            yield Peer(client, requests)


def answering(*pieces: bytes) -> Script:
    """Give each request the same answer."""

    async def script(talk: Talk) -> None:
        while True:
            await talk.asked()
            await talk.say(*pieces)

    return script
