"""The HTTP requests of probes and hooks: from the node to a pod's address, as a kubelet makes them.

No proxy, no kept connection, no verification of a certificate, redirects on the same host only. What comes back is
bounded. The rules are those of the kubelet's `pkg/probe/http` and `pkg/kubelet/lifecycle`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from wasmlet.errors import WasmletError

MAX_BODY = 10 * 1024
"""Bytes of an answer that are read."""
MAX_REDIRECTS = 10
KUBERNETES = "1.36"
"""The version that the User-Agent names: servers tell probes from other callers by `kube-probe/`."""

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
"""What OpenSSL makes of an answer that is no TLS."""

Purpose = Literal["probe", "lifecycle"]


class NoAnswer(WasmletError):
    """The request had no answer; the message says what was asked, and why.

    Attributes:
        speaks_http: the server was asked by TLS, and speaks HTTP without it.
    """

    def __init__(self, message: str, *, speaks_http: bool = False) -> None:
        super().__init__(message)
        self.speaks_http = speaks_http


@attrs.frozen
class HttpRequest:
    """One GET.

    Attributes:
        scheme: `http` or `https`.
        port: 1 to 65535.
        path: of the manifest; may have a query.
        headers: names and values, in the manifest's order; a name may come several times.
    """

    scheme: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()

    def url(self, host: str) -> URL:
        """Where it goes at this host (an address)."""
        try:
            parts = urlsplit(self.path)
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        except ValueError:  # what is no path goes as it is, as at a kubelet
            path = self.path
        name = f"[{host}]" if ":" in host else host
        return URL(f"{self.scheme}://{name}:{self.port}{'' if path.startswith('/') else '/'}{path}")

    def header_fields(self, purpose: Purpose) -> CIMultiDict[str]:
        """Its headers, and those that it has by default."""
        fields: CIMultiDict[str] = CIMultiDict(self.headers)
        fields.setdefault("User-Agent", f"kube-{purpose}/{KUBERNETES}")
        fields.setdefault("Accept", "*/*")
        for name in ("User-Agent", "Accept"):
            if fields[name] == "":
                del fields[name]
        return fields


@attrs.frozen
class HttpAnswer:
    """What came back: its status, and the first `MAX_BODY` bytes of its body."""

    status: int
    body: bytes

    @property
    def redirects(self) -> bool:
        """It leads to another host, or nowhere."""
        return 300 <= self.status < 400


async def get(request: HttpRequest, host: str, purpose: Purpose) -> HttpAnswer:
    """Make the request. The caller bounds how long it may take.

    Args:
        host: the pod's address.

    Raises:
        NoAnswer: there was none, or none in HTTP.
    """
    url = request.url(host)
    connector = aiohttp.TCPConnector(ssl=False, force_close=True, limit=1)
    # Headers that are not said are not sent: a guest sees what the manifest says.
    quiet = ("Accept", "Accept-Encoding", "User-Agent")
    async with aiohttp.ClientSession(
        connector=connector,
        skip_auto_headers=quiet,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
    ) as session:
        try:
            return await _follow(session, url, request.header_fields(purpose))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            plain = request.scheme == "https" and any(word in str(error) for word in _NO_TLS)
            why = "server gave HTTP response to HTTPS client" if plain else _reason(error, f"{host}:{request.port}")
            raise NoAnswer(f'Get "{url}": {why}', speaks_http=plain) from error


async def _follow(session: aiohttp.ClientSession, url: URL, headers: CIMultiDict[str]) -> HttpAnswer:
    first = url
    for _ in range(MAX_REDIRECTS):
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            target = _target(url, response)
            if target is None or target.host != first.host:
                return HttpAnswer(response.status, await _body(aiter(response.content.iter_any())))
            if target.host != url.host or target.port != url.port:
                headers.popall("Host", None)
            url = target
    raise ValueError(f"stopped after {MAX_REDIRECTS} redirects")


def _target(url: URL, response: aiohttp.ClientResponse) -> URL | None:
    location = response.headers.get("Location")
    if response.status not in (301, 302, 303, 307, 308) or not location:
        return None
    target = url.join(URL(location))
    if target.scheme not in ("http", "https"):
        raise ValueError(f"a redirect to {str(target)[:200]!r}; expected http or https")
    return target


async def _body(pieces: AsyncIterator[bytes]) -> bytes:
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) >= MAX_BODY:
            break
    return body[:MAX_BODY]


def _reason(error: BaseException, address: str) -> str:
    """Why there was no answer, in words that name the address."""
    inner = getattr(error, "os_error", None) or error
    if isinstance(inner, OSError) and inner.errno and isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {address}: connect: {os.strerror(inner.errno).lower()}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    return (str(error) or type(error).__name__)[:300]
