"""Access control of the node's API: what a kubelet calls the webhook mode, and no other mode.

A request is made by the owner of a client certificate of the cluster's client CA (common name: the user; organizations:
the groups) or of a bearer token that the API server knows. What it does is a verb on a subresource of this `nodes`
object, and the API server says whether that user may. A request needs both answers: 401 without a user, 403
for one who may not or about whom there is no answer.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import attrs
import structlog
from aiohttp import web

from wasmlet.clock import Clock
from wasmlet.kubelet.reviews import COMPLAINT_SECONDS, Reviews, Unanswered, User

log = structlog.get_logger(__name__)

AUTHENTICATED = "system:authenticated"
_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_FINE = {"/pods": "pods", "/healthz": "healthz", "/configz": "configz", "/runningpods": "pods"}
"""Paths with a subresource of their own, beside which `proxy` is enough too (KubeletFineGrainedAuthz, KEP-2862)."""
_COARSE = {
    "/stats": "stats",
    "/metrics": "metrics",
    "/logs": "log",
    "/checkpoint": "checkpoint",
    "/statusz": "statusz",
    "/flagz": "configz",
}
_STREAMS = ("/exec", "/attach", "/portForward")


def attributes(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """What a request does: the verb, and the subresources of `nodes` one of which has to be allowed.

    A GET that a websocket upgrades to a command in a container counts as `create`, as its POST does: with a kubelet
    before 1.36, a user with the right to read `nodes/proxy` could run commands that way.

    Args:
        path: decoded, without the query.
    """
    verb = _VERBS.get(method, "")
    if verb == "get" and any(_below(path, root) for root in _STREAMS):
        verb = "create"
    for root, subresource in _COARSE.items():
        if _below(path, root):
            return verb, (subresource,)
    for root, subresource in _FINE.items():
        if _below(path, root):
            return verb, (subresource, "proxy")
    return verb, ("proxy",)


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")


class Guard:
    """Decides on requests.

    Args:
        node_name: of the Node that permissions are about.
    """

    def __init__(self, node_name: str, reviews: Reviews, clock: Clock) -> None:
        self._node_name = node_name
        self._reviews = reviews
        self._clock = clock
        self._complained = float("-inf")

    async def refusal(self, request: web.Request) -> web.Response | None:
        """None where the request may be served, else the answer to give instead, in the kubelet's words."""
        try:
            user = await self._user(request)
        except Unanswered:
            user = None
        if user is None:
            return web.Response(status=401, text="Unauthorized")
        verb, subresources = attributes(request.method, request.path)
        for subresource in subresources:
            try:
                if await self._reviews.allowed(user, verb, self._node_name, subresource):
                    return None
            except Unanswered:
                what = f"user={user.name}, verb={verb}, resource=nodes, subresource={subresource}"
                return web.Response(status=403, text=f"Authorization error ({what})")
        if (now := self._clock.monotonic()) - self._complained >= COMPLAINT_SECONDS:
            self._complained = now
            log.info("forbidden", user=user.name, verb=verb, subresources=subresources)
        what = f"user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(subresources)}]"
        return web.Response(status=403, text=f"Forbidden ({what})\n")

    async def close(self) -> None:
        """Ask nothing more."""
        await self._reviews.close()

    async def _user(self, request: web.Request) -> User | None:
        certificate = request.get_extra_info("peercert")
        if certificate and (user := certificate_user(certificate, self._clock.now().timestamp())) is not None:
            return user
        token = bearer_token(request.headers.get("Authorization", ""))
        if token is None or (user := await self._reviews.user(token)) is None:
            return None
        return user if AUTHENTICATED in user.groups else attrs.evolve(user, groups=(*user.groups, AUTHENTICATED))


def certificate_user(certificate: Mapping[str, Any], now: float) -> User | None:
    """The user of a certificate that the TLS layer has verified, as `SSLSocket.getpeercert` describes it.

    Args:
        now: seconds since 1970; a connection may outlive its certificate.
    """
    if ssl.cert_time_to_seconds(certificate["notAfter"]) < now:
        return None
    name, groups = "", []
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return User(name, (*groups, AUTHENTICATED)) if name else None


def bearer_token(header: str) -> str | None:
    """The token of an `Authorization` header; what is not printable ASCII is none (RFC 6750)."""
    kind, _, token = header.strip().partition(" ")
    token = token.strip()
    if kind.lower() != "bearer" or not token.isascii() or not token.isprintable():
        return None
    return token or None
