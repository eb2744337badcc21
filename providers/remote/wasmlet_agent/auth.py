"""Who may drive the agent: whoever shows a client certificate that it trusts, or its token."""

from __future__ import annotations

import functools
import hmac
import ssl

import attrs
from aiohttp import web

from wasmlet.clock import Clock, SystemClock
from wasmlet_agent.protocol.addresses import host_of, is_loopback
from wasmlet_agent.protocol.failures import Unauthorized


@attrs.frozen
class Guard:
    """Decides on requests.

    Attributes:
        token: what a request may show as `Authorization: Bearer`; None where there is none.
        certificates: whether TLS verifies client certificates; if so, a request with one needs nothing else.
        open: whether a request needs to show nothing: plain HTTP on loopback, or a connection that the agent dialled.
        loopback: whether the Host of a request has to be a loopback address. That stops web pages whose host name was
            made to lead to this machine (DNS rebinding): they send their own name.
    """

    token: str | None = attrs.field(default=None, repr=False)
    certificates: bool = False
    open: bool = False
    loopback: bool = False
    clock: Clock = attrs.field(factory=SystemClock)

    def check(self, request: web.Request) -> None:
        """Let the request pass.

        Raises:
            Unauthorized: it shows nothing that suffices.
        """
        if request.headers.get("Origin"):
            raise Unauthorized("no web page may drive an agent")
        if self.loopback and not is_loopback(host_of(request.headers.get("Host", ""))):
            raise Unauthorized(
                "Host: expected localhost or a loopback address, found another name; an agent that is to be reached by "
                "it needs --token-file or --client-ca-file"
            )
        if self.open or self._certified(request) or self._token_shown(request):
            return
        wanted = [*(["a client certificate"] * self.certificates), *(["a bearer token"] * (self.token is not None))]
        raise Unauthorized(f"expected {' or '.join(wanted)}, found none that suffices")

    def _certified(self, request: web.Request) -> bool:
        certificate = request.get_extra_info("peercert")
        if not self.certificates or not certificate:
            return False
        # A connection may outlive the certificate that it was made with.
        return _seconds(certificate["notAfter"]) > self.clock.now().timestamp()

    def _token_shown(self, request: web.Request) -> bool:
        if self.token is None:
            return False
        kind, _, shown = request.headers.get("Authorization", "").partition(" ")
        same = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), self.token.encode())
        return same and kind.lower() == "bearer"


@functools.lru_cache(maxsize=64)
def _seconds(until: str) -> int:
    """A certificate's time in seconds since the epoch. Every request asks for it, and to read it takes long."""
    return ssl.cert_time_to_seconds(until)
