"""From HTTP to a stream: which protocol caller and node agree on, and the 101.

A caller asks for SPDY/3.1 and lists its subprotocols in `X-Stream-Protocol-Version`, or asks for a websocket and lists
them in `Sec-WebSocket-Protocol`. What cannot be agreed on is refused in the kubelet's words.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import hdrs, web

from wasmlet.kubelet.wires import RawWire

SPDY = "SPDY/3.1"
VERSION = "X-Stream-Protocol-Version"
ACCEPTED = "X-Accepted-Stream-Protocol-Versions"
CLOSE_SECONDS = 30.0
"""How long the caller may take to read what is left and to close its side of a websocket."""
MESSAGE_BYTES = 4 * 1024 * 1024


_HEADERS = (
    hdrs.CONNECTION,
    hdrs.UPGRADE,
    hdrs.SEC_WEBSOCKET_KEY,
    hdrs.SEC_WEBSOCKET_VERSION,
    hdrs.SEC_WEBSOCKET_PROTOCOL,
    hdrs.SEC_WEBSOCKET_EXTENSIONS,
    VERSION,
)


def check(request: web.Request) -> None:
    """See that the headers that an upgrade is about can be read.

    Raises:
        HTTPBadRequest: one of them has other bytes than printable ASCII.
    """
    for header in _HEADERS:
        for value in request.headers.getall(header, []):
            if not value.isascii() or not value.isprintable():
                raise web.HTTPBadRequest(text=f"unable to upgrade: expected printable ASCII in header {header}")


def is_websocket(request: web.Request) -> bool:
    return request.headers.get(hdrs.UPGRADE, "").lower() == "websocket" and _upgrades(request)


def _upgrades(request: web.Request) -> bool:
    return "upgrade" in ",".join(request.headers.getall(hdrs.CONNECTION, [])).lower()


def asked(request: web.Request, header: str) -> list[str]:
    """The names in a header, which may be there several times with several names each."""
    names = ",".join(request.headers.getall(header, [])).split(",")
    return [name.strip() for name in names if name.strip()]


async def websocket(request: web.Request, supported: Sequence[str]) -> web.WebSocketResponse:
    """Answer with a websocket that speaks the first of the caller's subprotocols that is supported, or none at all.

    Raises:
        HTTPForbidden: none of its subprotocols is supported.
        HTTPBadRequest: this is no proper request for a websocket.
    """
    wanted = asked(request, hdrs.SEC_WEBSOCKET_PROTOCOL)
    if request.method != hdrs.METH_GET:
        raise web.HTTPBadRequest(text=f"unable to upgrade: a websocket is asked for with GET, found {request.method}")
    if wanted and not set(wanted) & set(supported):
        text = f"requested protocol(s) are not supported: [{' '.join(wanted)}]; supports [{' '.join(supported)}]"
        raise web.HTTPForbidden(text=text)
    socket = web.WebSocketResponse(
        protocols=supported, compress=False, timeout=CLOSE_SECONDS, max_msg_size=MESSAGE_BYTES
    )
    await socket.prepare(request)
    return socket


def negotiated(request: web.Request, supported: Sequence[str]) -> str:
    """The subprotocol to speak over SPDY.

    Raises:
        HTTPBadRequest: the caller does not ask for SPDY/3.1, names no subprotocol, or sends a body.
        HTTPForbidden: none of its subprotocols is supported; a header lists those that are.
    """
    if not _upgrades(request):
        raise web.HTTPBadRequest(text="Upgrade request required")
    if VERSION not in request.headers:
        text = f"unable to upgrade: header {VERSION} does not exist in request with {len(request.headers)} headers"
        raise web.HTTPBadRequest(text=text)
    wanted = asked(request, VERSION)
    if not wanted:
        found = request.headers.getall(VERSION)
        text = f"unable to upgrade: header {VERSION} contains [{' '.join(found)}], but no valid protocols"
        raise web.HTTPBadRequest(text=text)
    protocol = next((name for name in wanted if name in supported), None)
    if protocol is None:
        text = (
            "unable to upgrade: unable to negotiate protocol: "
            f"client supports [{' '.join(wanted)}], server accepts [{' '.join(supported)}]"
        )
        raise web.HTTPForbidden(text=text, headers=[(ACCEPTED, name) for name in supported])
    if SPDY.lower() not in request.headers.get(hdrs.UPGRADE, "").lower():
        found = request.headers.getall(hdrs.UPGRADE, [])
        text = f"unable to upgrade: expected Upgrade: {SPDY} in the request, found [{' '.join(found)}]"
        raise web.HTTPBadRequest(text=text)
    if request.can_read_body:
        raise web.HTTPBadRequest(text="unable to upgrade: expected a request without a body, found one")
    return protocol


async def spdy(request: web.Request, protocol: str) -> tuple[web.StreamResponse, RawWire]:
    """Answer 101 and take the connection over; the response is what the request's handler returns in the end."""
    headers = {hdrs.CONNECTION: "Upgrade", hdrs.UPGRADE: SPDY, VERSION: protocol}
    response = web.StreamResponse(status=101, headers=headers)
    response.force_close()
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the caller hung up")
    await response.prepare(request)
    await response.write_eof()
    return response, RawWire(transport)
