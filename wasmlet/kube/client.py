"""Requests to the API server: raw objects in, raw objects out.

One pool of connections per `Client`; make a second client where a connection of its own is wanted (the lease). A
request that the server puts off (429) is repeated after the time it names; everything else that fails raises one of
`wasmlet.kube.errors`, and how to go on is the caller's business. `wasmlet.kube.reflector` builds watches on this.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
import orjson
import structlog
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorError

from wasmlet.clock import Backoff, Clock, Retries, SystemClock
from wasmlet.errors import ConfigError
from wasmlet.kube import errors, paths
from wasmlet.kube.config import Identity
from wasmlet.kube.pool import Pool
from wasmlet.kube.recovery import Recovery
from wasmlet.kube.wire import BODY_BYTES, Answer, Broken, HeadIsLate
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
ERROR_BYTES = 64 * 1024
"""How much is read of what a server says to a watch that it refuses."""
FAILURES = (TimeoutError, Broken, aiohttp.ClientError, ConnectionError)
"""What comes instead of an answer."""
_PLAIN = "/?:@!$&'()*+,;=~%"
_PIECE = 2**20
"""How much of a compressed body is unpacked at once."""
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
        self._pool: Pool | None = None
        self._retired: set[Pool] = set()
        """Connections with earlier credentials; they are closed when the last request in them has ended."""
        self._reloaded = float("-inf")
        self._reloading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        pools = [*self._retired, *filter(None, [self._pool])]
        self._pool, self._retired = None, set()
        for pool in pools:
            await pool.close()

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
        data = body if body is None or isinstance(body, bytes) else _encoded(body)
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
        retries, attempt = None, 0
        while True:
            attempt += 1
            try:
                return await self._once(method, path, params, data, content_type, seconds)
            except errors.TooManyRequests as error:
                if attempt > self._throttled_tries:
                    raise
                retries = retries or Retries(THROTTLED, self._clock, self._rng)
                await retries.wait(at_least=error.retry_after)
            except errors.Unauthorized:
                if attempt > self._throttled_tries or not await self._reload():
                    raise

    async def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        content_type: str,
        seconds: float,
    ) -> bytes:
        pool = await self._ready()
        if data is not None:
            more = b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (content_type.encode(), len(data), data)
        elif method == "GET":
            more = b"Accept-Encoding: gzip\r\n\r\n"
        else:
            more = b"Content-Length: 0\r\n\r\n"
        answer = None
        try:
            answer = await pool.ask(method, _target(path, params), more, since=self._clock.monotonic(), seconds=seconds)
            text = _unpacked(answer)
        except FAILURES as error:
            raise self._unreachable(error) from None
        finally:
            self._ended(method, answer)
            if self._retired:
                await self._close_unused()
        if answer.status >= 300:
            raise _error(answer, text)
        if self.recovery.away and (kind := paths.written_kind(method, path)):
            self.recovery.written(kind)
        return text

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, silence: float | None = None
    ) -> AsyncIterator[asyncio.StreamReader]:
        """GET without an end: the body as it arrives.

        Args:
            silence: seconds without a byte after which the connection counts as dead; None means never. Where it is
                not None, the answer has to begin within `wasmlet.kube.wire.HEAD_SECONDS` in any case.
        """
        pool = await self._ready()
        answer = None
        try:
            async with pool.stream(
                _target(path, params), b"\r\n", since=self._clock.monotonic(), silence=silence
            ) as answer:
                self._ended("GET", answer)
                assert answer.content is not None
                if answer.status >= 300:
                    error = _error(answer, await _beginning(answer.content))
                    if isinstance(error, errors.Unauthorized):
                        await self._reload()
                    raise error
                yield answer.content
        except FAILURES as error:
            raise self._unreachable(error) from None
        finally:
            if answer is None:
                self._ended("GET", None)
            if self._retired:
                await self._close_unused()

    async def _ready(self) -> Pool:
        """The connections to use now."""
        if (until := self.identity.until) is not None and self._clock.now() >= until:
            await self._reload()
        if self._pool is None:
            self._pool = Pool(self.identity, limit=self._connections)
        return self._pool

    def _ended(self, method: str, answer: Answer | None) -> None:
        """Note how a request was answered, if it was."""
        if answer is None:
            self.answered[method, "<error>"] += 1
            return
        self.answered[method, str(answer.status)] += 1
        if answer.status == 401 or answer.status >= 500:
            self.recovery.doubt()

    def _unreachable(self, error: Exception) -> errors.Unreachable:
        """What to raise where there was no answer."""
        self.recovery.doubt()
        server = self.identity.server
        if isinstance(error, HeadIsLate):
            return errors.Unreachable(f"{server} did not answer in time: {error}")
        if isinstance(error, TimeoutError):
            return errors.Unreachable(f"{server} did not answer in time")
        if isinstance(error, ClientConnectorCertificateError):
            return errors.Unreachable(f"{server}: its certificate is not trusted: {error}")
        if isinstance(error, ClientConnectorError):
            return errors.Unreachable(f"{server} cannot be reached: {error.strerror or error}")
        text = str(error) or type(error).__name__
        if isinstance(error, aiohttp.ClientResponseError):  # a proxy's, whose text has its URL with the password
            text = f"{error.status} {error.message}"
        return errors.Unreachable(f"the connection to {server} broke: {text}")

    def _recovered(self, silent: bool, began: float) -> None:
        """An outage has ended. If it was silent (no answers), older requests are given up, as a kubelet does.

        A connection on which nothing came for long may send again only after a long pause, or never (a router that was
        restarted has forgotten it). So requests and watches that began before the API server was back are ended soon.
        Their callers repeat them, over new connections.
        """
        if not silent:
            return
        pools = {*self._retired, *filter(None, [self._pool])}
        self._pool, self._retired = None, pools
        when = asyncio.get_running_loop().time() + CUT_SECONDS
        for pool in pools:
            pool.cut(began, when)

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
        self._retired |= {*filter(None, [self._pool])}
        self._pool = None
        await self._close_unused()

    async def _close_unused(self) -> None:
        """Close the pools in which nothing is under way; a watch in one that is closed would stay silent."""
        for pool in [pool for pool in self._retired if not pool.under_way]:
            self._retired.discard(pool)
            await pool.close()


def _target(path: str, params: Mapping[str, str] | None) -> bytes:
    """What a request asks for, with nothing in it that cannot stand there. What is escaped already stays so."""
    target = quote(path, safe=_PLAIN)
    return (f"{target}?{urlencode(params)}" if params else target).encode()


def _encoded(body: Any) -> bytes:
    """As JSON, with "?" for half a surrogate pair, which UTF-8 has no bytes for: somebody may quote a file's name."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return json.dumps(body, ensure_ascii=False).encode(errors="replace")


def _unpacked(answer: Answer) -> bytes:
    """The body, which may be compressed where that was offered: for reads, of which a list may be long."""
    if answer.headers.get(b"content-encoding", b"identity").lower() != b"gzip":
        return answer.body
    text = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(answer.body)) as file:
            while piece := file.read(_PIECE):
                text += piece
                if len(text) > BODY_BYTES:
                    raise Broken(f"the body of an answer has over {BODY_BYTES} bytes when it is no longer compressed")
    except EOFError:
        raise Broken("what it sent is not compressed as it says: it breaks off") from None
    except (OSError, zlib.error) as error:
        raise Broken(f"what it sent is not compressed as it says: {error}") from None
    return bytes(text)


def _error(answer: Answer, text: bytes) -> errors.ApiError:
    """The error that an answer means. Where it sends us elsewhere, nobody goes: a node's writes could not follow."""
    wait, where = (answer.headers.get(name) for name in (b"retry-after", b"location"))
    if answer.status < 400 and where is not None:
        text = b"it wants to be asked at " + where
    return errors.from_answer(answer.status, text, None if wait is None else wait.decode("latin-1"))


async def _beginning(content: asyncio.StreamReader) -> bytes:
    """All of it, or as much as counts."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            return await content.readexactly(ERROR_BYTES)
    except asyncio.IncompleteReadError as end:
        return end.partial
