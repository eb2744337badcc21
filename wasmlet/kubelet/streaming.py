"""`/exec`, `/attach` and `/portForward`: finds the pod, checks the request, and chooses the protocol.

What is wrong with a request is answered before anything is upgraded, with a kubelet's status and words; what goes wrong
later is told on the error stream.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import orjson
import structlog
from aiohttp import hdrs, web

from wasmlet.clock import Clock
from wasmlet.errors import InvalidInput, Unsupported
from wasmlet.kubelet import channels, portforward, remotecommand, upgrade
from wasmlet.kubelet.channels import ChannelSession
from wasmlet.kubelet.logs import BadQuery
from wasmlet.kubelet.pods import PodSource, PodView
from wasmlet.kubelet.portforward import Forwarder
from wasmlet.kubelet.remotecommand import KINDS, Call, Options
from wasmlet.kubelet.sessions import Carrier, Timeouts
from wasmlet.kubelet.spdy_frames import Limits
from wasmlet.kubelet.spdy_session import SpdySession
from wasmlet.kubelet.wires import TunnelWire
from wasmlet.model.status import PodStatus, Running
from wasmlet.provider import Provider

log = structlog.get_logger(__name__)

COMMAND_CHANNELS = (channels.V5, channels.V4, channels.BASE64, channels.EARLY, channels.EARLY_BASE64)
COMMAND_LIMITS = Limits(open_streams=16, streams=64)
"""A command has five streams at most."""


class Streaming:
    """Answers the paths that are streams."""

    def __init__(self, pods: PodSource, provider: Provider, clock: Clock, timeouts: Timeouts | None = None) -> None:
        self._pods = pods
        self._provider = provider
        self._clock = clock
        self._timeouts = timeouts or Timeouts()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for path, handler in {
            "/exec/{namespace}/{pod}/{container}": self._exec,
            "/exec/{namespace}/{pod}/{uid}/{container}": self._exec,
            "/attach/{namespace}/{pod}/{container}": self._attach,
            "/attach/{namespace}/{pod}/{uid}/{container}": self._attach,
            "/portForward/{namespace}/{pod}": self._port_forward,
            "/portForward/{namespace}/{pod}/{uid}": self._port_forward,
        }.items():
            router.add_route(hdrs.METH_GET, path, handler)
            router.add_route(hdrs.METH_POST, path, handler)

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        upgrade.check(request)
        options = Options.of(request.query)
        command = request.query.getall("command", [])
        if not command:
            raise InvalidInput("you must specify at least 1 command")
        view = self._pod(request)
        self._require("exec")
        container = _running_container(request, view.status)
        key = view.pod.key
        return await self._remote_command(
            request,
            options,
            lambda streams: self._provider.exec(key, container, command, streams),
            "executing command in container",
        )

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        upgrade.check(request)
        options = Options.of(request.query)
        view = self._pod(request)
        self._require("attach")
        container = _running_container(request, view.status)
        key = view.pod.key
        return await self._remote_command(
            request,
            options,
            lambda streams: self._provider.attach(key, container, streams),
            "attaching to container",
        )

    async def _remote_command(
        self, request: web.Request, options: Options, call: Call, doing: str
    ) -> web.StreamResponse:
        if upgrade.is_websocket(request):
            socket = await upgrade.websocket(request, COMMAND_CHANNELS)
            read = {0, 4} if options.stdin else {4}
            session = ChannelSession(socket, len(KINDS), read, self._clock, self._timeouts)
            streams = dict(zip(KINDS, session.streams, strict=True))

            async def over_channels() -> None:
                first = "stdout" if options.stdout else "stderr" if options.stderr else "error"
                await streams[first].write(b"")
                await remotecommand.serve(call, options, streams, socket.ws_protocol or "", doing)

            await self._carry(session, over_channels(), request)
            await socket.close()
            return socket

        version = upgrade.negotiated(request, remotecommand.SPDY_PROTOCOLS)
        response, wire = await upgrade.spdy(request, version)
        spdy = SpdySession(wire, self._clock, self._timeouts, COMMAND_LIMITS)

        async def over_spdy() -> None:
            wanted = options.kinds(resizable=version in remotecommand.RESIZABLE)
            streams = await remotecommand.streams_of(spdy, wanted)
            await remotecommand.serve(call, options, streams, version, doing)

        await self._carry(spdy, over_spdy(), request)
        return response

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        upgrade.check(request)
        websocket = upgrade.is_websocket(request)
        tunnel = websocket and bool(set(upgrade.asked(request, hdrs.SEC_WEBSOCKET_PROTOCOL)) & set(portforward.TUNNELS))
        ports = portforward.ports_of(request.query.getall("port", [])) if websocket and not tunnel else []
        view = self._pod(request)
        self._require("port_forward")
        if view.status is None or not view.status.running:
            raise BadQuery(500, f'pod not found ("{view.pod.name}_{view.pod.namespace}")')
        forwarder = Forwarder(self._provider, view.pod.key)

        if not websocket:
            protocol = upgrade.negotiated(request, portforward.SPDY_PROTOCOLS)
            response, wire = await upgrade.spdy(request, protocol)
            spdy = SpdySession(wire, self._clock, self._timeouts)
            await self._carry(spdy, forwarder.over_spdy(spdy), request)
            return response
        if tunnel:
            socket = await upgrade.websocket(request, portforward.TUNNELS)
            spdy = SpdySession(TunnelWire(socket), self._clock, self._timeouts)
            await self._carry(spdy, forwarder.over_spdy(spdy), request)
        else:
            socket = await upgrade.websocket(request, portforward.CHANNELS)
            read = range(0, 2 * len(ports), 2)
            session = ChannelSession(socket, 2 * len(ports), read, self._clock, self._timeouts)
            await self._carry(session, forwarder.over_channels(session, ports), request)
        await socket.close()
        return socket

    async def _carry(self, session: Carrier, work: Coroutine[Any, Any, None], request: web.Request) -> None:
        await session.carry(work)
        if session.ended:
            log.debug("a stream has ended", path=request.path, why=session.ended)

    def _pod(self, request: web.Request) -> PodView:
        where = request.match_info
        view = self._pods.find(where["namespace"], where["pod"], where.get("uid"))
        if view is None:
            raise BadQuery(404, "pod does not exist")
        return view

    def _require(self, name: str) -> None:
        """Refuse what the provider cannot do, before a connection is upgraded for it.

        The body is a Status, which kubectl shows as it is; in front of a plain text it says that a connection cannot be
        upgraded.
        """
        if not self._provider.supports(name):
            status = remotecommand.unsupported_status(str(Unsupported.by(self._provider.name, name)))
            body = orjson.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, **status})
            raise web.HTTPNotImplemented(text=body.decode(), content_type="application/json")


def _running_container(request: web.Request, status: PodStatus | None) -> str:
    name = request.match_info["container"]
    found = status.container(name) if status is not None else None
    if found is None or not isinstance(found.state, Running):
        raise BadQuery(500, f'container not found ("{name}")')
    return name
