"""Callers of exec, attach and port-forward: what an API server or kubectl sends to a node, over SPDY or a websocket."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import attrs

from tests.kubelet.harness import Kubelet, View
from wasmlet.kubelet import spdy
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import PodStatus
from wasmlet.provider import Channel, Streams
from wasmlet.testing.reference import ReferenceProvider

SECONDS = 30.0
V4 = "v4.channel.k8s.io"
V5 = "v5.channel.k8s.io"
KEY = PodKey("default", "p", "uid-1")


async def a_pod(kubelet: Kubelet) -> None:
    """The pod `p` with the container `c`, which runs and whose port 8080 echoes."""
    container = {"name": "c", "image": "none", "ports": [{"containerPort": 8080}]}
    metadata = {"namespace": KEY.namespace, "name": KEY.name, "uid": KEY.uid}
    pod = Pod({"metadata": metadata, "spec": {"containers": [container]}})
    await kubelet.provider.create_pod(pod, Inputs())
    kubelet.pods.views.append(View(pod, await kubelet.provider.pod_status(pod.key)))


def ended(kubelet: Kubelet, status: PodStatus) -> None:
    kubelet.pods.views[0].status = status


def path(what: str = "exec", *command: str, **query: Any) -> str:
    """`/exec/default/p/c?...`; streams are named as an API server does."""
    words = [f"{key}={value}" for key, value in query.items()] + [f"command={word}" for word in command]
    where = "/portForward/default/p" if what == "portForward" else f"/{what}/default/p/c"
    return f"{where}?{'&'.join(words)}"


@attrs.define
class Spdy:
    """A client's connection after the 101."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: str
    connection: spdy.Connection = attrs.field(factory=lambda: spdy.Connection(client=True))
    got: defaultdict[int, bytearray] = attrs.field(factory=lambda: defaultdict(bytearray))
    ended: set[int] = attrs.field(factory=set)
    reset: dict[int, int] = attrs.field(factory=dict)
    replied: set[int] = attrs.field(factory=set)
    pongs: int = 0
    closed: bool = False
    streams: dict[str, int] = attrs.field(factory=dict)

    def open(self, kind: str, **headers: str) -> int:
        number = self.connection.open_stream({"streamType": kind, **headers})
        self.streams[kind] = number
        return number

    def send(self) -> None:
        self.writer.write(self.connection.data_to_send())

    async def read(self) -> bool:
        """Take what comes next; False at the end."""
        try:
            data = await self.reader.read(256 * 1024)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.connection.receive_data(data):
            match event:
                case spdy.DataReceived(number, piece):
                    self.got[number] += piece
                case spdy.StreamEnded(number):
                    self.ended.add(number)
                case spdy.StreamReset(number, status):
                    self.reset[number] = status
                case spdy.StreamReplied(number, _):
                    self.replied.add(number)
                case spdy.PongReceived():
                    self.pongs += 1
        return True

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not holds():
                assert await self.read(), f"the node hung up; {self}"

    async def to_its_end(self) -> None:
        """Read until the node says that it is over, and hang up."""
        async with asyncio.timeout(SECONDS):
            while not self.connection.gone and await self.read():
                pass
        self.writer.close()

    async def hung_up_on(self) -> None:
        """Read until the node hangs up."""
        async with asyncio.timeout(SECONDS):
            while await self.read():
                pass

    def of(self, kind: str) -> bytes:
        return bytes(self.got[self.streams[kind]])

    @property
    def status(self) -> Any:
        return json.loads(self.of("error"))


def head(kubelet: Kubelet, target: str, method: str = "POST", **headers: str) -> bytes:
    fields = {
        "Host": "node",
        "Connection": "Upgrade",
        "Upgrade": "SPDY/3.1",
        "X-Stream-Protocol-Version": V4,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def spdy_to(
    kubelet: Kubelet, target: str, *kinds: str, method: str = "POST", **headers: str
) -> AsyncIterator[Spdy]:
    """Ask for the upgrade, and create streams of these kinds.

    Args:
        headers: in place of the usual ones; "" leaves one out.
    """
    context = kubelet.client("root")
    reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.server.port, ssl=context, limit=64 * 1024)
    try:
        writer.write(head(kubelet, target, method, **headers))
        async with asyncio.timeout(SECONDS):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        caller = Spdy(reader, writer, answer)
        for kind in kinds:
            caller.open(kind)
        caller.send()
        yield caller
    finally:
        # Not closed before: Python 3.11.2 loses the connection of a TLS transport that is closed twice, and fails here.
        with suppress(ConnectionError):
            writer.transport.abort()


@asynccontextmanager
async def websocket_to(
    kubelet: Kubelet, target: str, protocols: Sequence[str] = (V5,)
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    url = f"https://127.0.0.1:{kubelet.server.port}{target}"
    context = kubelet.client("root")
    async with kubelet.session.ws_connect(url, ssl=context, protocols=protocols, max_msg_size=0) as socket:
        yield socket


async def messages(socket: aiohttp.ClientWebSocketResponse) -> Mapping[int, bytes]:
    """What came on each channel until the node closed the websocket."""
    channels: defaultdict[int, bytes] = defaultdict(bytes)
    async with asyncio.timeout(SECONDS):
        async for message in socket:
            channels[message.data[0]] += message.data[1:]
    return channels


class Watched(ReferenceProvider):
    """The reference provider, which says what becomes of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        """What was called, and how it ended."""
        self.written = 0
        self.told = asyncio.Condition()
        self.streams: Streams | None = None

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        self.streams = streams
        await self._say("exec")
        try:
            if list(command) == ["flood"]:
                while True:
                    await streams.write_stdout(bytes(32 * 1024))
                    self.written += 32 * 1024
                    await self._say()
            if list(command) == ["deaf"]:
                await asyncio.Event().wait()
            return await super().exec(key, container, command, streams)
        except asyncio.CancelledError:
            await self._say("cleaning up")
            for _ in range(5):  # a second cancellation would strike here
                await asyncio.sleep(0.01)
            await self._say("cancelled")
            raise

    async def port_forward(self, key: PodKey, port: int, channel: Channel) -> None:
        await self._say("forward")
        try:
            await super().port_forward(key, port, channel)
        finally:
            self.calls.append("forward ended")
            await self._say()

    async def _say(self, what: str = "") -> None:
        async with self.told:
            if what:
                self.calls.append(what)
            self.told.notify_all()

    async def until_called(self, *calls: str) -> None:
        async with asyncio.timeout(SECONDS), self.told:
            await self.told.wait_for(lambda: self.calls == list(calls))

    async def until_stalled(self) -> int:
        """How much was written when nothing more was for a while."""
        while True:
            before = self.written
            try:
                async with asyncio.timeout(1.0), self.told:
                    await self.told.wait_for(lambda: self.written != before)  # noqa: B023 - evaluated in this turn
            except TimeoutError:
                return self.written
