"""`pods/exec`, `pods/attach` and `pods/portforward`: passes upgrade requests on to the kubelet of the pod's node.

API servers do this in three ways, by their version; `mode` chooses one:

- "pass", as up to 1.29: whatever the client upgrades to, SPDY or a websocket, goes to the kubelet byte for byte.
- "translate", as from 1.30 (port-forward: 1.31): a websocket of protocol v5 ends here and becomes SPDY to the kubelet,
  and the SPDY that is tunnelled through a websocket is taken out of it. SPDY and websockets of older protocols pass.
- "declared", as from 1.36: websockets pass to a node that declares ExtendWebSocketsToKubelet; else as "translate".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote, urlencode

import attrs
from aiohttp import hdrs, web

from wasmlet.concurrency import cut
from wasmlet.controlplane.kubelets.registered import Connection, Head, Kubelets, container_of
from wasmlet.controlplane.kubelets.translate import PROTOCOL, V5, Streams, spdy_headers, translate
from wasmlet.controlplane.kubelets.tunnel import MESSAGE, Done, copy, either, from_socket, taken, to_socket
from wasmlet.controlplane.storage.status import Object, bad_request

Mode = Literal["pass", "translate", "declared"]
SUBRESOURCES = ("attach", "exec", "portforward")
FEATURE = "ExtendWebSocketsToKubelet"
TUNNEL = "SPDY/3.1+"
"""Prefix of the names of websocket protocols whose binary messages hold SPDY."""
_FLAGS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
"""What the API calls a stream, and what the kubelet calls it."""


def _wanted(params: Mapping[str, str]) -> Streams:
    """A flag is false if it is missing, "0" or "false", as the API server converts booleans of a query."""
    return Streams(**{name: params.get(name, "0").lower() not in ("0", "false") for name in _FLAGS})


def location(pod: Object, sub: str, request: web.BaseRequest) -> str:
    """Path and query at the kubelet for a request at the API server.

    Raises:
        ApiError: 400, no such container, several to choose from, an invalid port, or a pod without a node.
    """
    meta, params = pod["metadata"], request.query
    query: list[tuple[str, str]] = []
    parts = [meta["namespace"], meta["name"]]
    if sub == "portforward":
        ports = [port for text in params.getall("ports", []) for port in text.split(",")]
        for port in ports:
            if not (port.isascii() and port.isdecimal()):
                raise bad_request(f"ports are numbers, found {port!r}")
        if ports:
            query.append(("port", ",".join(ports)))
        path = "portForward"
    else:
        parts.append(container_of(pod, params.get("container", "")))
        wanted = attrs.asdict(_wanted(params))
        query += [(kubelet, "1") for name, kubelet in _FLAGS.items() if wanted[name]]
        query += [("command", word) for word in params.getall("command", [])] if sub == "exec" else []
        path = sub
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {meta['name']} does not have a host assigned")
    where = "/".join(["", path, *(quote(part, safe="") for part in parts)])
    return f"{where}?{urlencode(sorted(query, key=lambda item: item[0]))}" if query else where


def _words(request: web.BaseRequest, name: str) -> list[str]:
    """The words of a header that is a list."""
    return [word.strip() for value in request.headers.getall(name, []) for word in value.split(",")]


def _forwarded(request: web.BaseRequest) -> list[tuple[str, str]]:
    """The headers that are passed on to the kubelet: all but the client's credentials."""
    kept = [
        (key, value)
        for key, value in request.headers.items()
        if key.lower() not in ("host", "authorization", "content-length", "transfer-encoding", "x-forwarded-for")
        and not key.lower().startswith("impersonate-")
    ]
    before, peer = request.headers.get("X-Forwarded-For"), request.remote or ""
    return [*kept, ("X-Forwarded-For", f"{before}, {peer}" if before else peer)]


class PodStreams:
    """Answers upgrades."""

    def __init__(self, kubelets: Kubelets, mode: Mode) -> None:
        self._kubelets = kubelets
        self._mode = mode
        self._open: set[asyncio.Transport] = set()

    def end(self) -> None:
        """Cut all streams."""
        for transport in self._open:
            cut(transport)

    async def answer(self, request: web.BaseRequest, pod: Object, sub: str) -> web.StreamResponse:
        """Pass a request on to the kubelet; returns at the end of the streams.

        Raises:
            ApiError: 400 for what the request lacks, 404 for the node, 500 if the kubelet cannot be reached.
        """
        target, node = location(pod, sub, request), pod["spec"]["nodeName"]
        if "upgrade" not in (word.lower() for word in _words(request, hdrs.CONNECTION)):
            raise bad_request("Upgrade request required")
        offered = _words(request, hdrs.SEC_WEBSOCKET_PROTOCOL)
        socket = request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
        ours = socket and (
            self._mode == "translate" or (self._mode == "declared" and FEATURE not in self._kubelets.features(node))
        )
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self._open.add(transport)
        try:
            if ours and sub == "portforward" and any(name.startswith(TUNNEL) for name in offered):
                return await self._tunnel(request, node, target, offered)
            if ours and sub != "portforward" and V5 in offered:
                return await translate(request, self._kubelets, node, target, _wanted(request.query))
            return await self._pass(request, node, target)
        finally:
            self._open.discard(transport)

    async def _pass(self, request: web.BaseRequest, node: str, target: str) -> web.StreamResponse:
        """Pass the client's upgrade on unchanged."""
        kubelet = await self._kubelets.ask(node, request.method, target, _forwarded(request))
        try:
            if kubelet.head.status != 101:
                return await _echo(kubelet)
            async with taken(request) as (reader, writer):
                writer.write(kubelet.head.raw)
                await either(copy(reader, kubelet.writer), copy(kubelet.reader, writer))
            return Done()
        finally:
            kubelet.close()

    async def _tunnel(self, request: web.BaseRequest, node: str, target: str, offered: list[str]) -> web.StreamResponse:
        """Take SPDY out of the client's websocket, and pass it on."""
        protocols = [name.removeprefix(TUNNEL) for name in offered if name.startswith(TUNNEL)]
        kubelet = await self._kubelets.ask(node, "POST", target, spdy_headers(protocols))
        try:
            if kubelet.head.status != 101:
                return await _echo(kubelet)
            socket = web.WebSocketResponse(
                protocols=[TUNNEL + _chosen(kubelet.head)], compress=False, max_msg_size=MESSAGE
            )
            await socket.prepare(request)
            await either(from_socket(socket, kubelet.writer), to_socket(kubelet.reader, socket))
            await socket.close()
            return socket
        finally:
            kubelet.close()


def _chosen(head: Head) -> str:
    """The protocol that a kubelet took."""
    return str(head.headers.get(PROTOCOL, "")).strip()


async def _echo(kubelet: Connection) -> web.Response:
    """A kubelet's answer that is not an upgrade, passed on unchanged, as the API server does.

    Raises:
        ApiError: 400, the answer is neither an upgrade nor an error.
    """
    status = kubelet.head.status
    if status < 400:
        raise bad_request(f"invalid upgrade response: status code {status}")
    kind = kubelet.head.headers.get("Content-Type", "text/plain; charset=utf-8")
    return web.Response(status=status, body=await kubelet.body(), headers={"Content-Type": str(kind)})
