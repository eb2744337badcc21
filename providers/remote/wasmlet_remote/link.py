"""The way to one agent: requests and long streams over HTTP, with what both sides show each other."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import httpx
from wasmlet_agent.protocol import LARGE, MOST_BODY, MOST_LINE, PREFIX, SESSION_HEADER
from wasmlet_agent.protocol.codec import decode
from wasmlet_agent.protocol.failures import error_in

from wasmlet import ConfigError, InvalidInput, WasmletError
from wasmlet.concurrency import in_thread
from wasmlet.options import content_of
from wasmlet.proxies import Proxies
from wasmlet.tls import client_context, show
from wasmlet_remote.config import Config
from wasmlet_remote.network import PoolTransport, StreamBackend

T = TypeVar("T")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""Without a byte of its answer for so long, a request has failed."""
MOST_SECONDS = 300.0
"""After so long without the whole of its answer, too: a byte now and then holds nobody up for ever."""
KEEP_SECONDS = 60.0
"""How long a connection that nobody uses is kept."""
MOST_NONSENSE = 64
"""Lines of one answer that may make no sense: to find out what is wrong with one takes long."""
_MOST_ERROR = 64 * 1024

Params = Mapping[str, str] | tuple[tuple[str, str], ...]
Transports = Callable[[httpx.Limits], httpx.AsyncBaseTransport]
"""Makes what carries requests, within the limits."""


class Away(WasmletError):
    """The agent cannot be reached, or does not answer."""


class Untrusted(Away):
    """The agent is not who is meant, or does not take us for who we are."""


class Link:
    """Requests to one agent.

    Requests and streams have clients of their own: streams live long and would use up the places of short requests.

    Args:
        url: of the agent.
        transports: makes what carries the requests.
        connections: how many requests are under way at once.
        token: shown to the agent; "" shows none.
        most_streams: how many streams may be open at once, but for those of the node loop itself; None: any number.
    """

    def __init__(
        self, url: str, transports: Transports, connections: int, token: str = "", most_streams: int | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._most_streams = most_streams
        self._open_streams = 0
        headers = {"Accept-Encoding": "identity", "User-Agent": "wasmlet-remote"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.succeeded = asyncio.Event()
        """Set by each request that is answered."""
        # httpcore walks over all that wait for a connection whenever one is free, so nothing is to wait there.
        self._slots = asyncio.Semaphore(connections)
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEP_SECONDS
        )
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None)
        self._requests, self._streams = (
            httpx.AsyncClient(base_url=self.url, transport=transports(each), headers=headers, timeout=timeout)
            for each in (limits, httpx.Limits(max_connections=None, max_keepalive_connections=0))
        )

    def in_session(self, number: int) -> None:
        """From now on, requests belong to this session."""
        for client in (self._requests, self._streams):
            client.headers[SESSION_HEADER] = str(number)

    async def close(self) -> None:
        """Close all connections."""
        await self._requests.aclose()
        await self._streams.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The body of the answer to a request below `/v1`.

        Raises:
            Away: there is no whole answer.
            WasmletError: the agent answers with this error.
        """
        try:
            async with (
                self._slots,
                asyncio.timeout(MOST_SECONDS),
                self._requests.stream(
                    method, PREFIX + path, content=body or None, params=params, headers=headers
                ) as response,
            ):
                good = response.status_code < 400
                content = await self._content(response, MOST_BODY if good else _MOST_ERROR)
        except TimeoutError:
            raise Away(f"agent {self.url}: there is no whole answer within {MOST_SECONDS:g} s") from None
        except httpx.HTTPError as error:
            raise self._away(error) from None
        self.succeeded.set()
        if not good:
            raise self._refused(response.status_code, content)
        return content

    async def lines(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """The lines of the answer to a POST below `/v1`, as they come.

        Raises:
            Away: there is no whole answer, or it is too long.
            WasmletError: the agent answers with this error.
        """
        headers, size = {"Content-Type": "application/x-ndjson"}, 0
        try:
            async with (
                self._slots,
                self._requests.stream("POST", PREFIX + path, content=body, headers=headers) as response,
            ):
                if response.status_code >= 400:
                    self.succeeded.set()
                    raise self._refused(response.status_code, await self._content(response, _MOST_ERROR))
                async with contextlib.aclosing(lines_of(response)) as lines:
                    async for line in lines:
                        size += len(line) + 1
                        if size > MOST_BODY:
                            raise Away(f"agent {self.url}: expected an answer of at most {MOST_BODY} bytes")
                        yield line
        except httpx.HTTPError as error:
            raise self._away(error) from None
        self.succeeded.set()

    @contextlib.asynccontextmanager
    async def stream(
        self,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
        own: bool = False,
    ) -> AsyncIterator[httpx.Response]:
        """The answer to a GET below `/v1` whose body comes as long as it likes.

        Args:
            silence: seconds without a byte of the body after which it has failed; None waits for ever.
            own: it is the node loop's own one, which is opened however many there are.

        Raises:
            Away: the agent does not answer; also out of the body, where it breaks off.
            WasmletError: the agent answers with this error, or too many streams are open.
        """
        with contextlib.nullcontext() if own else self._one_more():
            async with self._streamed(path, params, headers, silence) as response:
                yield response

    @contextlib.contextmanager
    def _one_more(self) -> Iterator[None]:
        """Count a stream that somebody asks for."""
        if self._open_streams == self._most_streams:
            raise WasmletError(
                f"agent {self.url}: {self._most_streams} logs, execs and port-forwards are open, and it has links for "
                "no more; end one of them"
            )
        self._open_streams += 1
        try:
            yield
        finally:
            self._open_streams -= 1

    @contextlib.asynccontextmanager
    async def _streamed(
        self, path: str, params: Params | None, headers: Mapping[str, str] | None, silence: float | None
    ) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(silence, connect=CONNECT_SECONDS, write=ANSWER_SECONDS, pool=None)
        try:
            async with self._streams.stream(
                "GET", PREFIX + path, params=params, headers=headers, timeout=timeout
            ) as response:
                if response.status_code >= 400:
                    raise self._refused(response.status_code, await self._content(response, _MOST_ERROR))
                yield response
        except httpx.InvalidURL as error:
            raise InvalidInput(f"the request is too long for an agent: {error}") from None
        except httpx.HTTPError as error:
            raise self._away(error) from None

    async def _content(self, response: httpx.Response, most: int) -> bytes:
        """The body, of a bounded size."""
        found = bytearray()
        async for piece in response.aiter_raw():
            found += piece
            if len(found) > most:
                raise Away(f"agent {self.url}: expected an answer of at most {most} bytes, found a longer one")
        return bytes(found)

    def _away(self, error: httpx.HTTPError) -> Away:
        text = f"agent {self.url}: {error or type(error).__name__}"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Untrusted(f"{text}; name the authority that vouches for it with --tls-ca-file")
            cause = cause.__cause__ or cause.__context__
        return Away(text)

    def _refused(self, status: int, content: bytes) -> WasmletError:
        error = error_in(status, content)
        if status in (401, 403):
            return Untrusted(f"agent {self.url}: {error}; see --token-file and --tls-cert-file")
        return error


async def understood(kind: type[T], content: bytes) -> T:
    """What an answer says; one that is large is read in a thread.

    Raises:
        InvalidInput: it says something else.
    """
    return decode(kind, content) if len(content) < LARGE else await in_thread(decode, kind, content)


async def lines_of(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The lines of a body, each of a bounded length.

    Raises:
        Away: one is longer.
    """
    rest = bytearray()
    async for piece in response.aiter_raw():
        start = len(rest)
        rest += piece
        while (end := rest.find(b"\n", start)) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
            start = 0
        if len(rest) > MOST_LINE:
            raise Away(f"expected lines of at most {MOST_LINE} bytes, found a longer one")


def direct(config: Config) -> tuple[Transports, str]:
    """What carries requests to the agent that the settings name, and the token to show it. Reads files.

    Raises:
        ConfigError: a file cannot be read or does not hold what is meant.
    """
    config.check()
    context = tls_context(config)
    proxy = Proxies.of_environment().before(config.endpoint)

    def transport(limits: httpx.Limits) -> httpx.AsyncBaseTransport:
        if proxy is not None:
            return httpx.AsyncHTTPTransport(verify=context, limits=limits, proxy=proxy, trust_env=False)
        return PoolTransport(StreamBackend(), limits, context)

    token = ""
    if config.token_file is not None:
        token = content_of(config.token_file, "--token-file").decode("utf-8", "replace").strip()
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise ConfigError(f"token-file: expected a token in {config.token_file}, found something else")
    return transport, token


class Trust(Protocol):
    """Settings that name the files of TLS, `Config` for one."""

    @property
    def tls_ca_file(self) -> Path | None: ...
    @property
    def tls_cert_file(self) -> Path | None: ...
    @property
    def tls_key_file(self) -> Path | None: ...


def tls_context(config: Trust) -> ssl.SSLContext:
    """Whom a client trusts and what it shows. Reads files.

    Raises:
        ConfigError: a file cannot be read or does not hold what is meant.
    """
    authorities = None if config.tls_ca_file is None else content_of(config.tls_ca_file, "--tls-ca-file")
    try:
        context = client_context(authorities)
    except ValueError as error:
        raise ConfigError(f"tls-ca-file: {config.tls_ca_file}: {error}") from None
    if config.tls_cert_file is not None and config.tls_key_file is not None:
        try:
            show(
                context,
                content_of(config.tls_cert_file, "--tls-cert-file"),
                content_of(config.tls_key_file, "--tls-key-file"),
            )
        except ValueError as error:
            raise ConfigError(f"tls-cert-file: {config.tls_cert_file}: {error}") from None
    return context
