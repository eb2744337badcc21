"""Port-forward, whatever carries the streams: one call of the provider for each connection that the caller makes.

A connection is two streams: its bytes, and a text for what went wrong. Over SPDY the caller opens a pair for each,
whenever it likes; over a websocket the ports are in the query, with two channels for each and one connection in all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import attrs
import structlog

from wasmlet.errors import InvalidInput, WasmletError
from wasmlet.failures import described
from wasmlet.kubelet.channels import BASE64, MOST_CHANNELS, V4, ChannelSession, ChannelStream
from wasmlet.kubelet.sessions import CallerLeft, ended, within
from wasmlet.kubelet.spdy_frames import Reset
from wasmlet.kubelet.spdy_session import SpdySession, SpdyStream
from wasmlet.model.pod import PodKey
from wasmlet.provider import Provider

log = structlog.get_logger(__name__)

SPDY_PROTOCOLS = ("portforward.k8s.io",)
TUNNELS = tuple(f"SPDY/3.1+{name}" for name in SPDY_PROTOCOLS)
CHANNELS = (V4, BASE64)


def ports_of(texts: Sequence[str]) -> list[int]:
    """The ports that a websocket's query asks for (`port=80,443&port=8080`).

    Raises:
        InvalidInput: there are no ports, too many, or one is not a port number.
    """
    if not texts:
        raise InvalidInput('query parameter "port" is required')
    ports = []
    for text in texts:
        if not text:
            raise InvalidInput('query parameter "port" cannot be empty')
        ports += [port_of(word) for word in text.split(",")]
    if 2 * len(ports) > MOST_CHANNELS:
        raise InvalidInput(f"expected at most {MOST_CHANNELS // 2} ports in one request, found {len(ports)}")
    return ports


def port_of(text: str) -> int:
    """Raises InvalidInput for what is no port."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise InvalidInput(f'unable to parse "{text}" as a port')
    if int(text) < 1:
        raise InvalidInput(f'port "{text}" must be > 0')
    return int(text)


@attrs.define(eq=False)
class _Pair:
    """The streams of a connection that is about to be made."""

    request: str
    streams: dict[str, SpdyStream] = attrs.field(factory=dict)
    timer: asyncio.Task[None] | None = None


class Forwarder:
    """Forwards to the ports of one pod."""

    def __init__(self, provider: Provider, key: PodKey) -> None:
        self._provider = provider
        self._key = key

    async def over_channels(self, session: ChannelSession, ports: Sequence[int]) -> None:
        """Connect each port to its pair of channels, until the last is closed by the pod."""
        for number, stream in enumerate(session.streams):
            await stream.write(ports[number // 2].to_bytes(2, "little"))
        async with asyncio.TaskGroup() as group:
            for number, port in enumerate(ports):
                data, error = session.streams[2 * number : 2 * number + 2]
                group.create_task(self._forward(port, data, error))

    async def over_spdy(self, session: SpdySession) -> None:
        """Connect every pair of streams that the caller opens, until cancelled."""
        pairs: dict[str, _Pair] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                stream = await session.opened()
                kind, problem = stream.headers.get("streamtype", ""), ""
                try:
                    port = port_of(stream.headers.get("port", ""))
                except InvalidInput as error:
                    problem = str(error)
                if problem or kind not in ("data", "error"):
                    log.info("port-forward: a stream is refused", kind=kind, problem=problem)
                    stream.reset(Reset.PROTOCOL_ERROR)
                    continue
                session.accept(stream)
                request = stream.headers.get("requestid") or _request_of(stream, kind)
                pair = pairs.get(request)
                if pair is None:
                    pair = pairs[request] = _Pair(request)
                    pair.timer = group.create_task(self._expire(session, pairs, pair, stream))
                if kind in pair.streams:
                    await _say(pair, f"error processing stream for request {request}: {kind} stream already assigned")
                    stream.reset(Reset.PROTOCOL_ERROR)
                    continue
                pair.streams[kind] = stream
                if len(pair.streams) == 2:
                    del pairs[request]
                    assert pair.timer is not None
                    pair.timer.cancel()
                    group.create_task(self._forward(port, pair.streams["data"], pair.streams["error"]))

    async def _expire(self, session: SpdySession, pairs: dict[str, _Pair], pair: _Pair, first: SpdyStream) -> None:
        """Give up a pair whose second stream does not come, or whose first one was reset."""
        if not await within(session.clock, session.timeouts.create, first.broken.wait()):
            await _say(pair, f"(request={pair.request}) timed out waiting for streams")
        if pairs.get(pair.request) is pair:
            del pairs[pair.request]
        for stream in pair.streams.values():
            await stream.end()
            stream.reset()

    async def _forward(self, port: int, data: SpdyStream | ChannelStream, error: SpdyStream | ChannelStream) -> None:
        """One connection, from its first byte until the pod or the caller closes it."""
        error.inbox.discard()
        job = asyncio.create_task(self._provider.port_forward(self._key, port, data))
        waits = [asyncio.create_task(data.broken.wait())] if isinstance(data, SpdyStream) else []
        try:
            await asyncio.wait([job, *waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(job, *waits)
        data.inbox.discard()
        try:
            if not job.cancelled() and (problem := job.exception()) is not None:
                await self._tell(port, problem, error)
                if isinstance(data, SpdyStream):
                    data.reset()
            await data.end()
            await error.end()
        except CallerLeft:
            pass

    async def _tell(self, port: int, problem: BaseException, error: SpdyStream | ChannelStream) -> None:
        if isinstance(problem, CallerLeft):
            return
        text = str(problem) if isinstance(problem, WasmletError | OSError) else "the provider failed"
        if not isinstance(problem, WasmletError | OSError):
            log.warning("port-forward failed", pod=str(self._key), port=port, **described(problem))
        where = f"port {port} to pod {self._key.name}, uid {self._key.uid}"
        await error.write(f"error forwarding {where}: {text}".encode())


def _request_of(stream: SpdyStream, kind: str) -> str:
    """The request id for a client that sends none: the number of its error stream; the data stream comes next."""
    return str(stream.number if kind == "error" else stream.number - 2)


async def _say(pair: _Pair, text: str) -> None:
    if (error := pair.streams.get("error")) is not None:
        with suppress(CallerLeft):
            await error.write(text.encode())
