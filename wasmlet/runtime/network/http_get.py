"""The HTTP requests of probes and hooks, from the node to a pod's address, as a kubelet makes them.

There is no proxy, no connection reuse and no check of certificates; redirects are followed on the same host only. The
size of answers is limited. The rules are those of the kubelet's `pkg/probe/http` and `pkg/kubelet/lifecycle`.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import Literal
from urllib.parse import urlsplit

import attrs
import h11
from multidict import CIMultiDict
from yarl import URL

from wasmlet.errors import WasmletError
from wasmlet.runtime.network.dialing import Place, hang_up, words

MAX_BODY = 10 * 1024
"""Bytes of an answer that are read."""
MAX_HEAD = 16 * 1024
"""Bytes within which an answer has to begin."""
_CHUNK = 4096
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


async def get(request: HttpRequest, place: Place, purpose: Purpose) -> HttpAnswer:
    """Make the request. The caller bounds how long it may take.

    Args:
        place: the pod.

    Raises:
        NoAnswer: there was none, or none in HTTP.
    """
    url = request.url(place.address)
    try:
        return await _follow(url, request.header_fields(purpose), place)
    except (h11.ProtocolError, OSError, ValueError) as error:  # errors of TLS are those of the system, too
        plain = request.scheme == "https" and any(word in str(error) for word in _NO_TLS)
        why = (
            "server gave HTTP response to HTTPS client" if plain else _reason(error, f"{place.address}:{request.port}")
        )
        raise NoAnswer(f'Get "{url}": {why}', speaks_http=plain) from error


async def _follow(first: URL, headers: CIMultiDict[str], place: Place) -> HttpAnswer:
    url = first
    for _ in range(MAX_REDIRECTS):
        assert url.port is not None
        place.check(url.port)
        answer, location = await _exchange(url, headers)
        target = _target(url, answer.status, location)
        if target is None or target.host != first.host:
            return answer
        if target.port != url.port:
            headers.popall("Host", None)
        url = target
    raise ValueError(f"stopped after {MAX_REDIRECTS} redirects")


def _target(url: URL, status: int, location: str) -> URL | None:
    if status not in (301, 302, 303, 307, 308) or not location:
        return None
    target = url.join(URL(location))
    if target.scheme not in ("http", "https"):
        raise ValueError(f"a redirect to {str(target)[:200]!r}; expected http or https")
    return target


async def _exchange(url: URL, headers: CIMultiDict[str]) -> tuple[HttpAnswer, str]:
    """One request, over a connection of its own: its answer, and where that leads ("" for nowhere)."""
    fields = [(name, value) for name, value in headers.items() if name.lower() not in ("host", "connection")]
    authority = headers.get("Host") or url.authority
    connection = h11.Connection(h11.CLIENT)
    asked = connection.send(
        h11.Request(
            method="GET",
            target=url.raw_path_qs,
            headers=[("Host", authority), *fields, ("Connection", "close")],
        )
    )
    assert asked is not None
    reader, writer = await asyncio.open_connection(
        url.host, url.port, ssl=_unverified() if url.scheme == "https" else None
    )
    try:
        writer.write(asked + (connection.send(h11.EndOfMessage()) or b""))
        return await _read(connection, reader)
    finally:
        await hang_up(writer)


async def _read(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[HttpAnswer, str]:
    """What comes back, of bounded size whatever it is: a server may say `100 Continue` without end."""
    response, body, received = None, b"", 0
    while len(body) < MAX_BODY:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if response is None and received > MAX_HEAD:
                raise ValueError(f"no answer within {MAX_HEAD} bytes")
            data = await reader.read(_CHUNK)
            received += len(data)
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            break
    if response is None:
        raise ValueError("EOF")
    location = next((value.decode("latin-1") for name, value in response.headers if name == b"location"), "")
    return HttpAnswer(response.status_code, body[:MAX_BODY]), location


@functools.cache
def _unverified() -> ssl.SSLContext:
    """As at a kubelet: a pod's certificate is for names that the node does not know it by."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _reason(error: Exception, address: str) -> str:
    """Why there was no answer, in words that name the address."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return f"dial tcp {address}: connect: {words(error)}"
    return (str(error) or type(error).__name__)[:300]
