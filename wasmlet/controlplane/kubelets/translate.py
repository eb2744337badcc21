"""A client's websocket of protocol v5, translated to SPDY/3.1 for the kubelet: exec and attach as from API server 1.30.

A websocket message begins with the number of its channel: 0 stdin, 1 stdout, 2 stderr, 3 the result (a Status), 4 the
size of the terminal, 255 the message that a channel is closed. To the kubelet, each channel is a SPDY stream of its
own, except 255: there, stdin is closed by the end of its stream. Errors after the websocket was opened are sent on
channel 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import attrs
import orjson
from aiohttp import WSMsgType, hdrs, web

from wasmlet.controlplane.kubelets.registered import ANSWER, Connection, Kubelets, refused, said
from wasmlet.controlplane.kubelets.tunnel import CHUNK, MESSAGE, either
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.kubelet import spdy
from wasmlet.kubelet.spdy_frames import SpdyError

SPDY = "SPDY/3.1"
V5 = "v5.channel.k8s.io"
PROTOCOL = "X-Stream-Protocol-Version"
PING_SECONDS = 5.0
CREATE_SECONDS = 30.0
"""How long a kubelet may take to accept a stream."""
_PROTOCOLS = (V5, "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_NAMES = {_ERROR: "error", _STDIN: "stdin", _STDOUT: "stdout", _STDERR: "stderr", _RESIZE: "resize"}


@attrs.frozen
class Streams:
    """Which streams a client wants."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @property
    def channels(self) -> list[int]:
        """The channels that become streams, in the order in which kubelets are used to see them opened."""
        wanted = {_STDIN: self.stdin, _STDOUT: self.stdout, _STDERR: self.stderr and not self.tty, _RESIZE: self.tty}
        return [_ERROR, *(channel for channel, there in wanted.items() if there)]


def spdy_headers(protocols: Iterable[str]) -> list[tuple[str, str]]:
    """The headers of a request to speak SPDY, by one of these protocols of Kubernetes."""
    return [(hdrs.CONNECTION, "Upgrade"), (hdrs.UPGRADE, SPDY), *((PROTOCOL, name) for name in protocols)]


async def translate(
    request: web.BaseRequest, kubelets: Kubelets, node: str, target: str, wanted: Streams
) -> web.StreamResponse:
    """Answer an upgrade to a websocket of protocol v5; returns at the end of the streams."""
    socket = web.WebSocketResponse(protocols=[V5], compress=False, max_msg_size=MESSAGE)
    await socket.prepare(request)
    with suppress(ConnectionError):
        first = _STDOUT if wanted.stdout else _STDERR if wanted.stderr else _ERROR
        await socket.send_bytes(bytes([first]))  # tells the client that the connection is there
        try:
            status = await _run(socket, kubelets, node, target, wanted)
        except ApiError as error:
            status = orjson.dumps(error.status)
        if not socket.closed:
            await socket.send_bytes(bytes([_ERROR]) + status)
    await socket.close()
    return socket


async def _run(socket: web.WebSocketResponse, kubelets: Kubelets, node: str, target: str, wanted: Streams) -> bytes:
    """Open the streams and serve them to their end. Returns the Status with the result."""
    kubelet = await kubelets.ask(node, "POST", target, spdy_headers(_PROTOCOLS))
    try:
        if kubelet.head.status != 101:
            body = await kubelet.body()
            if (status := said(body)) is not None:
                raise status
            text = refused(kubelet.head.status, body).message.removeprefix("Internal error occurred: ")
            raise _internal(f"unable to upgrade connection: {text}")
        streams = _Translation(socket, kubelet, wanted)
        await either(streams.upward(), streams.downward(), streams.pings())
        return streams.status()
    finally:
        kubelet.close()


def _internal(why: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {why}")


class _Translation:
    """The streams of one client."""

    def __init__(self, socket: web.WebSocketResponse, kubelet: Connection, wanted: Streams) -> None:
        self._socket = socket
        self._reader, self._writer = kubelet.reader, kubelet.writer
        self._spdy = spdy.Connection(client=True)
        self._number = {channel: self._spdy.open_stream({"streamType": _NAMES[channel]}) for channel in wanted.channels}
        self._channel = {number: channel for channel, number in self._number.items()}
        self._waiting = set(self._channel)
        self._accepted = asyncio.Event()
        self._receiving = {channel for channel in self._number if channel in (_STDOUT, _STDERR, _ERROR)}
        self._said = b""
        self._broken: str | None = "the kubelet ended the connection before the streams"

    def _flush(self) -> None:
        self._writer.write(self._spdy.data_to_send())

    async def upward(self) -> None:
        """Pass on what the client sends to the kubelet; ends when the client goes."""
        self._flush()
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                await self._accepted.wait()
        except TimeoutError:
            self._broken = f"the kubelet did not accept the streams within {CREATE_SECONDS:.0f} s"
            return
        with suppress(ConnectionError):
            while (message := await self._socket.receive()).type is WSMsgType.BINARY:
                self._take(message.data)
                self._flush()
                await self._writer.drain()
        if not self._socket.closed:
            self._broken = "expected binary messages on the websocket"

    def _take(self, message: bytes) -> None:
        """Pass one message on; a message for a stream that is not open is ignored."""
        if not message:
            return
        channel, data = message[0], message[1:]
        with suppress(spdy.StreamClosed):
            if channel == _CLOSE and data == bytes([_STDIN]) and _STDIN in self._number:
                self._spdy.end(self._number[_STDIN])
            elif channel in (_STDIN, _RESIZE) and channel in self._number:
                self._spdy.send_data(self._number[channel], data)

    async def downward(self) -> None:
        """Pass on what the kubelet sends to the client, up to the last stream; never waits for the kubelet to read."""
        with suppress(ConnectionError):
            while self._receiving:
                data = await self._reader.read(CHUNK)
                if not data:
                    return
                try:
                    events = self._spdy.receive_data(data)
                except SpdyError as error:
                    self._broken = f"the kubelet does not keep to SPDY: {error}"
                    return
                self._flush()
                for event in events:
                    await self._on(event)
            self._broken = None

    async def _on(self, event: spdy.Event) -> None:
        match event:
            case spdy.StreamReplied(number):
                self._waiting.discard(number)
                if not self._waiting:
                    self._accepted.set()
            case spdy.DataReceived(number, data):
                channel = self._channel[number]
                if channel == _ERROR:
                    self._said = (self._said + data)[:ANSWER]
                elif channel in (_STDOUT, _STDERR):
                    await self._socket.send_bytes(bytes([channel]) + data)
            case spdy.StreamEnded(number) | spdy.StreamReset(number):
                channel = self._channel[number]
                self._receiving.discard(channel)
                if channel == _STDIN:  # the guest has closed its stdin, and what the client sends to it is dropped
                    with suppress(spdy.StreamClosed):
                        self._spdy.end(number)
                    self._flush()
            case spdy.StreamOpened(number):
                self._spdy.reset(number)
                self._flush()

    async def pings(self) -> None:
        """Ask the kubelet every few seconds whether it is there, as the API server does."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            self._spdy.ping()
            self._flush()

    def status(self) -> bytes:
        """The Status at the end of the streams, as the client expects it.

        Raises:
            ApiError: 500, the streams broke off or the kubelet's words make no sense.
        """
        if self._broken is not None:
            raise _internal(self._broken)
        if not self._said:
            return orjson.dumps({"metadata": {}, "status": "Success"})
        status: Object | None = None
        with suppress(orjson.JSONDecodeError):
            status = orjson.loads(self._said)
        if not isinstance(status, dict) or status.get("status") not in ("Success", "Failure"):
            raise _internal(f"error stream protocol error: {self._said[:200]!r} is no Status")
        return self._said
