"""Requests to the API server: raw objects in, raw objects out.

One aiohttp session per `Client`; make a second client where a connection of its own is wanted (the lease). A request
that the server puts off (429) is repeated after the time it names; everything else that fails raises one of
`wasmlet.kube.errors`, and how to go on is the caller's business. `wasmlet.kube.reflector` builds watches on this.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import orjson
import structlog
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorError
from multidict import CIMultiDict

from wasmlet.clock import Backoff, Clock, Retries, SystemClock
from wasmlet.errors import ConfigError
from wasmlet.kube import errors, paths
from wasmlet.kube.config import Identity
from wasmlet.kube.connections import opened_session
from wasmlet.kube.recovery import Recovery
from wasmlet.model.pod import Raw

log = structlog.get_logger(__name__)

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

REQUEST_SECONDS = 30.0
THROTTLED_TRIES = 10
"""client-go's number."""
CUT_SECONDS = 0.5
"""How long a request that an outage left without an answer has to be answered when the outage is over."""
THROTTLED = Backoff(initial=0.5, cap=10, jitter=0.2)
"""The least pauses between these tries, whatever the server asks for: one that asks for none is not flooded."""
_NO_LIMITS = aiohttp.ClientTimeout(total=None)
RELOAD_SECONDS = 10.0
"""The least time between two readings of the credentials, when they are not accepted."""


class Client:
    """A connection pool to one API server under one identity. Use as an async context manager, or `close` it.

    Args:
        recovery: shared by all clients of the same API server; told of requests that fail as in an outage.
        throttled_tries: how often a request that is put off with 429 is repeated before the caller hears of it.
        answered: counts answers by method and status code; the code is `<error>` if there was no answer. Clients may
            share it.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        connections: int = 32,
        clock: Clock | None = None,
        recovery: Recovery | None = None,
        rng: random.Random | None = None,
        throttled_tries: int = THROTTLED_TRIES,
        answered: Counter[tuple[str, str]] | None = None,
    ) -> None:
        self.identity = identity
        self.recovery = recovery or Recovery()
        self.recovery.on_end(self._recovered)
        self.answered = Counter() if answered is None else answered
        self._connections = connections
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._throttled_tries = throttled_tries
        self._session: aiohttp.ClientSession | None = None
        self._retired: set[aiohttp.ClientSession] = set()
        """Sessions with earlier credentials; each is closed when the last request in it has ended."""
        self._under_way: Counter[aiohttp.ClientSession] = Counter()
        self._waiting: dict[asyncio.Timeout, float] = {}
        """The requests that are under way, with the time at which each began."""
        self._reloaded = float("-inf")
        self._reloading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        sessions = [*self._retired, *filter(None, [self._session])]
        self._session, self._retired = None, set()
        for session in sessions:
            await session.close()

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """GET an object or a list."""
        return await self.request("GET", path, params=params)

    async def create(self, path: str, body: Raw) -> dict[str, Any]:
        """POST an object to its collection."""
        return await self.request("POST", path, body=body)

    async def replace(self, path: str, body: Raw) -> dict[str, Any]:
        """PUT an object; a 409 says that somebody else changed it meanwhile."""
        return await self.request("PUT", path, body=body)

    async def patch(self, path: str, body: Any, kind: str = STRATEGIC_PATCH) -> dict[str, Any]:
        """PATCH an object; `kind` is the content type of the patch."""
        return await self.request("PATCH", path, body=body, content_type=kind)

    async def delete(self, path: str, body: Raw | None = None) -> None:
        """DELETE an object; `body` is a `DeleteOptions`. What the server says of it is not read."""
        await self._send("DELETE", path, None, None if body is None else orjson.dumps(body), JSON, REQUEST_SECONDS)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        seconds: float = REQUEST_SECONDS,
    ) -> dict[str, Any]:
        """One request and its decoded answer.

        Args:
            path: from the server's root, as `/api/v1/nodes`.
            body: encoded as JSON unless it is bytes already.
            seconds: how long one try may take.

        Raises:
            ApiError: one of its subclasses, by the kind of answer.
        """
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        text = await self._send(method, path, params, data, content_type, seconds)
        try:
            answer = orjson.loads(text) if text else {}
        except ValueError:
            raise errors.ServerError(500, "", f"{method} {path}: expected JSON, found {text[:80]!r}") from None
        if not isinstance(answer, dict):
            raise errors.ServerError(500, "", f"{method} {path}: expected an object, found {text[:80]!r}")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        content_type: str,
        seconds: float,
    ) -> bytes:
        """The request until it is answered with something else than "later" or "who are you?"."""
        retries = Retries(THROTTLED, self._clock, self._rng)
        for attempt in range(self._throttled_tries + 1):
            try:
                return await self._once(method, path, params, data, content_type, seconds)
            except errors.TooManyRequests as error:
                if attempt == self._throttled_tries:
                    raise
                await retries.wait(at_least=error.retry_after)
            except errors.Unauthorized:
                if attempt == self._throttled_tries or not await self._reload():
                    raise
        raise AssertionError("the last try returns or raises")

    async def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        content_type: str,
        seconds: float,
    ) -> bytes:
        headers = {"Content-Type": content_type} if data is not None else {}
        async with self._open(method, path, params, data, headers, _NO_LIMITS, seconds) as answer:
            text = await answer.read()
            if answer.status >= 400:
                raise errors.from_answer(answer.status, text, answer.headers.get("Retry-After"))
            if self.recovery.away and (kind := paths.written_kind(method, path)):
                self.recovery.written(kind)
            return text

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, silence: float | None = None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """GET without an end: the body as it arrives.

        Args:
            silence: seconds without a byte after which the connection counts as dead; None means never.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=silence)
        async with self._open("GET", path, params, None, {}, limits) as answer:
            if answer.status >= 400:
                error = errors.from_answer(answer.status, await answer.read(), answer.headers.get("Retry-After"))
                if isinstance(error, errors.Unauthorized):
                    await self._reload()
                raise error
            try:
                yield answer.content
            finally:
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()  # there is more to come, which nobody waits for

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
        seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body is not read yet; it has to be read within `seconds` from now."""
        if (until := self.identity.until) is not None and self._clock.now() >= until:
            await self._reload()
        identity = self.identity
        session = self._session
        if session is None:
            session = self._session = self._connect()
        self._under_way[session] += 1
        cut = asyncio.timeout(seconds)  # aiohttp's own limit would be a second timer
        self._waiting[cut] = self._clock.monotonic()
        code = ""
        try:
            async with (
                cut,
                session.request(
                    method,
                    identity.server + path,
                    params=params,
                    data=data,
                    headers=CIMultiDict([*headers.items(), *(await identity.headers()).items()]),
                    server_hostname=identity.server_hostname,
                    timeout=limits,
                ) as answer,
            ):
                code = str(answer.status)
                self.answered[method, code] += 1
                if answer.status == 401 or answer.status >= 500:
                    self.recovery.doubt()
                yield answer
        except TimeoutError:
            raise self._unreachable(f"{identity.server} did not answer in time") from None
        except ClientConnectorCertificateError as error:
            raise self._unreachable(f"{identity.server}: its certificate is not trusted: {error}") from None
        except ClientConnectorError as error:
            raise self._unreachable(f"{identity.server} cannot be reached: {error.strerror or error}") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            text = str(error) or type(error).__name__
            if isinstance(error, aiohttp.ClientResponseError):  # a proxy's, whose text has its URL with the password
                text = f"{error.status} {error.message}"
            raise self._unreachable(f"the connection to {identity.server} broke: {text}") from None
        finally:
            if not code:
                self.answered[method, "<error>"] += 1
            del self._waiting[cut]
            self._under_way[session] -= 1
            if self._retired:
                await self._close_unused()

    def _unreachable(self, message: str) -> errors.Unreachable:
        self.recovery.doubt()
        return errors.Unreachable(message)

    def _recovered(self, silent: bool, began: float) -> None:
        """An outage has ended. If it was silent (no answers), older requests are given up, as a kubelet does.

        A connection on which nothing came for long may send again only after a long pause, or never (a router that was
        restarted has forgotten it). So requests and watches that began before the API server was back are ended soon.
        Their callers repeat them, over new connections.
        """
        if not silent:
            return
        self._retired |= {*filter(None, [self._session])}
        self._session = None
        when = asyncio.get_running_loop().time() + CUT_SECONDS
        for cut, since in self._waiting.items():
            if since < began and not cut.expired() and (cut.when() or when) >= when:
                cut.reschedule(when)

    def _connect(self) -> aiohttp.ClientSession:
        return opened_session(
            self.identity.proxy,
            self.identity.ssl_context,
            limit=self._connections,
            headers={"User-Agent": "wasmlet", "Accept": JSON},
            # One watched object may be as large as the API allows, so a line can be some MiB.
            read_bufsize=2**20,
        )

    async def _reload(self) -> bool:
        """Read the credentials again, after a 401 or their end; False where that was done a moment ago or fails."""
        before = self.identity
        async with self._reloading:
            if self.identity is not before:
                return True
            now = self._clock.monotonic()
            if now - self._reloaded < RELOAD_SECONDS:
                return False
            self._reloaded = now
            try:
                self.identity = await before.reload()
            except ConfigError as error:
                log.warning("the credentials are no longer good and cannot be read again", error=str(error))
                return False
            await self._renew()
        return True

    async def use(self, identity: Identity) -> None:
        """Go on with other credentials; requests that are under way end with those they began with."""
        async with self._reloading:
            self.identity = identity
            await self._renew()

    async def _renew(self) -> None:
        self._retired |= {*filter(None, [self._session])}
        self._session = None
        await self._close_unused()

    async def _close_unused(self) -> None:
        """Close the sessions in which nothing is under way; a watch in one that is closed would stay silent."""
        for session in [session for session in self._retired if not self._under_way[session]]:
            self._retired.discard(session)
            del self._under_way[session]
            await session.close()
