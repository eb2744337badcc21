"""A TLS server in a kubelet's place, with what upgrades to it under the test's control, and a client that upgrades."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import orjson
import yaml
from aiohttp import web

from tests.controlplane.client import PODS, Api, Object, node, pod
from wasmlet.controlplane.certificates.pki import Authority
from wasmlet.kubelet import spdy
from wasmlet.testing import ControlPlane

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECONDS = 30
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
SPDY = ("Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0")
CHOSEN = "X-Stream-Protocol-Version: "
EXEC = f"{PODS}/p/exec"


def upgraded(protocol: str, *headers: str) -> bytes:
    """The head of an answer that upgrades."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {protocol}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, no faster than it is taken."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@attrs.define
class Stand:
    """What was asked, and what is to be answered."""

    answer: bytes = b""
    serve: Serve = echo
    heads: list[str] = attrs.field(factory=list)
    opened: asyncio.Queue[str] = attrs.field(factory=asyncio.Queue)
    closed: asyncio.Queue[str] = attrs.field(factory=asyncio.Queue)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            self.opened.put_nowait(head.partition("\r\n")[0])
            writer.write(self.answer)
            if self.answer.startswith(b"HTTP/1.1 101"):
                await self.serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the test has ended the connection
        finally:
            writer.close()
            self.closed.put_nowait("")

    @property
    def target(self) -> str:
        """Method and path of the last request."""
        return " ".join(self.heads[-1].partition("\r\n")[0].split()[:2])

    def values(self, name: str) -> list[str]:
        """The values of a header of the last request."""
        lines = [line.partition(": ") for line in self.heads[-1].split("\r\n")[1:]]
        return [value for key, _, value in lines if key.lower() == name.lower()]


def kubelet_tls(plane: ControlPlane, directory: Path) -> ssl.SSLContext:
    """TLS as a kubelet on loopback has it: with a certificate of its own, for whom the client CA vouches for."""
    pair = Authority("kubelet", datetime.now(UTC)).server(["127.0.0.1"])
    file = directory / "kubelet.pem"
    file.write_bytes(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(plane.client_ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(file)
    return context


def node_at(port: int) -> Object:
    """The node n1, whose kubelet is at that port of loopback."""
    made = node("n1")
    made["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    return made


@asynccontextmanager
async def web_kubelet(plane: ControlPlane, directory: Path, answers: Mapping[str, Handler]) -> AsyncIterator[Object]:
    """A kubelet that answers requests at these paths; the node that is to be made for it."""
    app = web.Application()
    for path, handler in answers.items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        context = await asyncio.to_thread(kubelet_tls, plane, directory)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield node_at(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def stand_in(plane: ControlPlane, api: Api, tmp_path: Path) -> AsyncIterator[Stand]:
    """Take the place of the kubelet of node n1, which has a pod p with a container c."""
    stand = Stand()
    context = await asyncio.to_thread(kubelet_tls, plane, tmp_path)
    server = await asyncio.start_server(stand.handle, "127.0.0.1", 0, ssl=context)
    await api.ok("POST", "/api/v1/nodes", node_at(server.sockets[0].getsockname()[1]))
    await api.ok("POST", PODS, pod(nodeName="n1"))
    try:
        yield stand
    finally:
        server.close()


@asynccontextmanager
async def raw_client(
    plane: ControlPlane, method: str, path: str, *headers: str
) -> AsyncIterator[tuple[str, asyncio.StreamReader, asyncio.StreamWriter]]:
    """The head of the answer to a request of the administrator, and the connection after it."""
    config = yaml.safe_load(await asyncio.to_thread(plane.kubeconfig.read_text))
    user = config["users"][0]["user"]
    pair = plane.directory / "raw-client.pem"
    data = user["client-certificate-data"], user["client-key-data"]
    await asyncio.to_thread(pair.write_bytes, b"".join(base64.b64decode(part) for part in data))
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    context.load_cert_chain(pair)
    host, _, port = plane.url.removeprefix("https://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        yield head, reader, writer
    finally:
        writer.close()


@attrs.define
class Command:
    """Serves SPDY as a kubelet does for exec: what `run` is given is each stream's number by its type."""

    run: Callable[[Command], Awaitable[None]]
    link: spdy.Connection = attrs.field(factory=lambda: spdy.Connection(client=False))
    streams: dict[str, int] = attrs.field(factory=dict)
    reader: asyncio.StreamReader = attrs.field(init=False)
    writer: asyncio.StreamWriter = attrs.field(init=False)
    events: list[spdy.Event] = attrs.field(factory=list)
    accept: bool = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        await self.run(self)
        await self.flush()
        await reader.read()  # the API server closes

    async def _read(self) -> None:
        """Take what comes: streams are accepted at once, the rest is in `events`."""
        data = await self.reader.read(65536)
        if not data:
            raise ConnectionResetError
        for event in self.link.receive_data(data):
            if isinstance(event, spdy.StreamOpened):
                kind = event.headers["streamtype"]
                self.streams[kind] = event.stream
                if self.accept:
                    self.link.reply(event.stream)
            else:
                self.events.append(event)
        await self.flush()

    async def next(self) -> spdy.Event:
        """The next event that is no new stream."""
        while not self.events:
            await self._read()
        return self.events.pop(0)

    async def opened(self, *kinds: str) -> None:
        """Wait for these streams."""
        while not {*kinds} <= self.streams.keys():
            await self._read()

    async def flush(self) -> None:
        self.writer.write(self.link.data_to_send())
        await self.writer.drain()

    async def send(self, kind: str, data: bytes) -> None:
        self.link.send_data(self.streams[kind], data)
        await self.flush()

    async def exit(self, code: int) -> None:
        """End as a command with that exit code."""
        status: dict[str, object] = {"metadata": {}, "status": "Success"}
        if code:
            status = {
                "metadata": {},
                "status": "Failure",
                "message": f"command terminated with non-zero exit code: exit status {code}",
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
            }
        self.link.send_data(self.streams["error"], orjson.dumps(status))
        for kind in ("stdout", "stderr", "error"):
            if kind in self.streams:
                self.link.end(self.streams[kind])
        await self.flush()


def socket(api: Api, path: str, *protocols: str) -> Any:
    """A websocket to the API server."""
    return api.session.ws_connect(api.server + path, protocols=protocols, max_msg_size=0)


async def receive(ws: aiohttp.ClientWebSocketResponse) -> bytes:
    async with asyncio.timeout(SECONDS):
        data: bytes = await ws.receive_bytes()
    return data
