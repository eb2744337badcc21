"""HTTP requests to registries: one request at a time, with its redirects, and errors that state the cause.

A redirect to another origin carries no credentials. No redirect goes from TLS to plain HTTP, and their number is
limited. Cookies are never kept, because one pod's session must not serve another pod. Proxies come from the
environment, by the rules of `wasmlet.proxies`. `session` adds authentication and retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Iterator, Mapping
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self

import httpx
import orjson

from wasmlet.artifacts.credentials import Credential
from wasmlet.artifacts.errors import Absent, ArtifactError, BadContent, Denied, Unavailable
from wasmlet.artifacts.hosts import Endpoint, RegistryConfig
from wasmlet.clock import Clock
from wasmlet.errors import ConfigError
from wasmlet.proxies import Proxies
from wasmlet.tls import client_context, unverified_context

CONNECT_SECONDS, IDLE_SECONDS = 10.0, 30.0
HEAD_SECONDS = 60.0
"""How long the head of an answer may take. A server may send any number of interim answers (1xx) before it."""
MAX_REDIRECTS = 5
MAX_WAIT = 60.0
"""The most seconds that are waited because of a Retry-After header."""

_MOST_PIECES, _LEAST_PIECE = 4096, 64
"""A body has at most so many pieces, and more if each has so many bytes on average.

To read a piece takes as long, however small it is: 64 KiB in pieces of a byte would hold up all of the node's loop."""
_MAX_ERROR = 16 * 1024
_LONGEST_HOST = 300
"""Characters of a host and a port in a URL that a server names; a name of DNS has at most 253."""
_REDIRECTS = (301, 302, 303, 307, 308)

Content = Callable[[], AsyncIterable[bytes]]


class Http:
    """The connections to all registries; an async context manager."""

    def __init__(self, config: RegistryConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._schemes: dict[str, str] = {}
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        checked = await asyncio.to_thread(_tls, self._config)
        proxies = Proxies.of_environment()
        proxies.check()
        self._clients = {True: _client(checked, proxies), False: _client(unverified_context(), proxies)}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def base(self, endpoint: Endpoint) -> httpx.URL:
        """The base URL of an endpoint, up to `/v2/`. If its scheme is not known, this tries which one works."""
        scheme = endpoint.scheme or self._schemes.get(endpoint.host)
        if scheme is None:
            scheme = await self._found(endpoint)
        try:
            return httpx.URL(f"{scheme}://{endpoint.host}{endpoint.path}/v2/")
        except httpx.InvalidURL as error:
            raise ArtifactError(f"registry {endpoint.name}: {error}") from None

    async def _found(self, endpoint: Endpoint) -> str:
        with contextlib.suppress(httpx.TransportError):
            async with self._clients[False].stream("GET", f"https://{endpoint.host}/v2/"):
                return "https"
        return "http"

    def _note(self, url: httpx.URL, status: int) -> None:
        """Remember by which scheme a server has answered, if it is one that may have either.

        One that has not answered may have been down when its scheme was tried.
        """
        scheme, host = _origin(url)
        if host in self._config.insecure_registries and status != 400:  # which a server of TLS says to plain HTTP
            self._schemes.setdefault(host, scheme)

    @contextlib.asynccontextmanager
    async def answer(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str],
        authorization: str | None,
        content: Content | None = None,
        raw: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, and follow redirects; the response's body is still to be read (`body`, `chunks`).

        Raises:
            ArtifactError: there was no response, or a redirect cannot be followed.
        """
        start, hops = url, 0
        while True:
            kept = {**headers, "Accept-Encoding": "identity"} | (
                {"Authorization": authorization} if authorization is not None else {}
            )
            with transport_errors(url):
                client = self._clients[_origin(url)[1] not in self._config.insecure_registries]
                request = client.build_request(
                    method, url, headers=kept, content=content() if content is not None else raw
                )
                response = await _head_of(client, request, bounded=content is None and raw is None)
            self._note(url, response.status_code)
            try:
                location = response.headers.get("Location")
                if response.status_code not in _REDIRECTS or location is None or method not in ("GET", "HEAD"):
                    yield response
                    return
            finally:
                await response.aclose()
            hops += 1
            if hops > MAX_REDIRECTS:
                raise BadContent(f"{_host(start)} redirects without end (more than {MAX_REDIRECTS} times)")
            url, before = self._target(url, location), url
            if _origin(url) != _origin(before):
                authorization = None

    def _target(self, url: httpx.URL, location: str) -> httpx.URL:
        try:
            target = url.join(location).copy_with(userinfo=b"", fragment=None)
        except (httpx.InvalidURL, ValueError):
            raise BadContent(f"{_host(url)} redirects to what is no address") from None
        if not is_address(target):
            raise BadContent(f"{_host(url)} redirects to what is no address of HTTP")
        if url.scheme == "https" and target.scheme == "http":
            raise BadContent(f"{_host(url)} redirects from TLS to plain HTTP at {_host(target)}")
        return target

    async def error_of(
        self, response: httpx.Response, url: httpx.URL, what: str, credential: Credential | None
    ) -> ArtifactError:
        """The error to raise for a response that does not have a good status.

        Args:
            credential: the credential that the server may know. What it says is not passed on if that is in it.
        """
        status, host = response.status_code, _host(response.url)
        said = ""
        if _origin(response.url) == _origin(url):
            said = await self._registry_message(response, _secrets(response.request, credential))
        text = f"{host} answered {status} {httpx.codes.get_reason_phrase(status)} for {what}{said}".replace("  ", " ")
        if status in (401, 403):
            return Denied(text, forbidden=status == 403)
        if status == 404:
            return Absent(text)
        if status in (408, 429) or status >= 500:
            return Unavailable(text, _after(response.headers.get("Retry-After"), self._clock))
        return BadContent(text)

    async def _registry_message(self, response: httpx.Response, secrets: Collection[str]) -> str:
        """The registry's own error message; "" if there is none in the usual form, or if it has a secret in it."""
        try:
            found = orjson.loads(await body(response, _MAX_ERROR))["errors"][0]
            text = str(found.get("message") or found.get("code") or "")
        except (ArtifactError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            return ""
        if any(secret in text for secret in secrets):
            return ""
        text = "".join(c if c.isprintable() else " " for c in text)[:200]
        return f": {text}" if text else ""


async def chunks(response: httpx.Response) -> AsyncGenerator[bytes]:
    """The body of a response, in pieces as they arrive.

    Raises:
        Unavailable: it broke off.
        BadContent: it comes in very many small pieces.
    """
    pieces = size = 0
    with transport_errors(response.url):
        async for chunk in response.aiter_raw():
            pieces, size = pieces + 1, size + len(chunk)
            if pieces > _MOST_PIECES + size // _LEAST_PIECE:
                raise BadContent(f"{_host(response.url)} sends its answer in pieces that are too small")
            yield chunk


async def body(response: httpx.Response, limit: int) -> bytes:
    """The whole body of a response.

    Raises:
        BadContent: it is larger than `limit` bytes.
        Unavailable: it broke off.
    """
    content = b""
    stated = response.headers.get("Content-Length", "")
    if stated.isdecimal() and int(stated) > limit:
        raise BadContent(f"{_host(response.url)} answered with {stated} bytes, more than the {limit} allowed")
    async with contextlib.aclosing(chunks(response)) as parts:
        async for chunk in parts:
            content += chunk
            if len(content) > limit:
                raise BadContent(f"{_host(response.url)} answered with more than the {limit} bytes allowed")
    return content


async def _head_of(client: httpx.AsyncClient, request: httpx.Request, *, bounded: bool) -> httpx.Response:
    """Send a request; return the response once its head is there.

    Args:
        bounded: wait for `HEAD_SECONDS` at most. To send a body may take longer.
    """
    try:
        async with asyncio.timeout(HEAD_SECONDS if bounded else None):
            return await client.send(request, stream=True)
    except TimeoutError:
        raise BadContent(f"{_host(request.url)} has not begun to answer within {HEAD_SECONDS:g} s") from None


@contextlib.contextmanager
def transport_errors(url: httpx.URL) -> Iterator[None]:
    """Turn connection errors into `ArtifactError`s, which show the host and never the whole URL."""
    host = _host(url)
    try:
        yield
    except httpx.TimeoutException as error:
        seconds = CONNECT_SECONDS if isinstance(error, httpx.ConnectTimeout) else IDLE_SECONDS
        raise Unavailable(f"{host} said nothing for {seconds:g} s") from None
    except (httpx.TransportError, httpx.StreamError) as error:
        raise _of_transport(host, error) from None
    except (httpx.InvalidURL, httpx.HTTPError) as error:
        raise ArtifactError(f"{host}: {error}") from None


def _of_transport(host: str, error: Exception) -> ArtifactError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ArtifactError(
                f"{host}: its certificate is not trusted ({cause.verify_message}); name its authority with "
                "--registry-ca-file"
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return ArtifactError(
                f"{host} does not speak TLS; if plain HTTP is good enough there, allow it "
                "(--insecure; for a node --insecure-registries)"
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError):
        return Unavailable(f"{host} cannot be reached: {_system_error(error) or error}")
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        return ArtifactError(f"{host}: {error}")
    words, _, _ = str(error).partition(": bytearray(")  # what follows is what the server has sent
    return Unavailable(f"{host}: {words or type(error).__name__}")


def _system_error(error: BaseException) -> str:
    """The operating system's message for a failed connection (`Connection refused`); "" if there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]  # one error for each address that was tried
        elif isinstance(seen, OSError) and seen.errno is not None and seen.strerror:
            return (
                os.strerror(seen.errno) if seen.errno > 0 and not isinstance(seen, socket.gaierror) else seen.strerror
            )
        else:
            seen = seen.__cause__ or seen.__context__
    return ""


class _Routes(httpx.AsyncBaseTransport):
    """Sends each request through the proxy that is configured for its server, or directly if there is none."""

    def __init__(self, context: ssl.SSLContext, proxies: Proxies) -> None:
        self._context = context
        self._proxies = proxies
        self._transports: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = self._proxies.before(str(request.url.copy_with(path="/", query=None)))
        transport = self._transports.get(proxy)
        if transport is None:
            transport = self._transports[proxy] = httpx.AsyncHTTPTransport(
                verify=self._context,
                trust_env=False,
                proxy=_proxy(proxy, self._context) if proxy is not None else None,
            )
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()


def _proxy(url: str, context: ssl.SSLContext) -> httpx.Proxy:
    return httpx.Proxy(url, ssl_context=context if url.startswith("https:") else None)


def _client(context: ssl.SSLContext, proxies: Proxies) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=_Routes(context, proxies),
        trust_env=False,
        timeout=httpx.Timeout(IDLE_SECONDS, connect=CONNECT_SECONDS, pool=None),
        headers={"User-Agent": f"wasmlet/{importlib.metadata.version('wasmlet')}"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def _tls(config: RegistryConfig) -> ssl.SSLContext:
    file = config.registry_ca_file
    try:
        return client_context(file.read_bytes() if file is not None else None, system=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"registry CA file {file}: {reason}; set it with --registry-ca-file") from None


def _after(text: str | None, clock: Clock) -> float | None:
    """How many seconds a Retry-After header asks to wait. The header may have a number of seconds or a date."""
    if text is None:
        return None
    try:
        seconds = float(text) if text.isdecimal() else (parsedate_to_datetime(text) - clock.now()).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_WAIT)


def is_address(url: httpx.URL) -> bool:
    """Whether a URL that a server has named may be asked."""
    return url.scheme in ("http", "https") and 0 < len(url.netloc) <= _LONGEST_HOST and bool(url.host)


def _secrets(request: httpx.Request, credential: Credential | None) -> list[str]:
    """All that nobody else may see of a request and of the credential that it is about."""
    sent = request.headers.get("Authorization", "").partition(" ")[2]
    known = (credential.password, credential.identity_token, credential.registry_token) if credential else ()
    return [secret for secret in (sent, *known) if secret]


def _origin(url: httpx.URL) -> tuple[str, str]:
    """The origin of a URL: its scheme, and its host with the port. Credentials are sent to their own origin only."""
    return url.scheme, url.netloc.decode("ascii", "replace")


def _host(url: httpx.URL) -> str:
    return _origin(url)[1]
