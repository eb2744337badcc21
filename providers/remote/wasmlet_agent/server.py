"""The agent's HTTP API, `/v1`; `openapi` describes it, and `protocol` has what is sent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import structlog
from aiohttp import web

from wasmlet.artifacts.errors import BadContent, InvalidReference
from wasmlet.concurrency import in_thread
from wasmlet.errors import InvalidInput, Unsupported, WasmletError
from wasmlet.failures import described
from wasmlet.kubelet.listening import known
from wasmlet.model.pod import PodKey
from wasmlet.provider import Provider
from wasmlet_agent.agent import Agent
from wasmlet_agent.auth import Guard
from wasmlet_agent.batches import create_batch, delete_batch, forget_batch
from wasmlet_agent.bodies import Bodies
from wasmlet_agent.breaking import breaking_off
from wasmlet_agent.following import send_changes
from wasmlet_agent.logs import log_options, send_log
from wasmlet_agent.openapi import document
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.store import check_uid
from wasmlet_agent.protocol import (
    BLOB_PIECE,
    LARGE,
    MOST_BODY,
    MOST_PATH,
    PREFIX,
    SEQUENCE_HEADER,
    SESSION_HEADER,
)
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import Failure, SessionOver, failure_of
from wasmlet_agent.protocol.messages import (
    Accepted,
    BlobAnswer,
    ImageAnswer,
    ImageRequest,
    PodList,
    PodRequest,
    SessionRequest,
)
from wasmlet_agent.queries import flag, number, seconds, wanted
from wasmlet_agent.streams import serve_stream

log = structlog.get_logger(__name__)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SESSION = PREFIX + "/session"
PODS = PREFIX + "/pods"
POD = PODS + "/{uid}"
_PUBLIC = ("/healthz", "/openapi.json")
CONNECTION: Mapping[str, Any] = {"auto_decompress": False, "max_line_size": MOST_PATH}
"""Options of every connection of aiohttp that serves an agent."""


class Server:
    """Serves one agent.

    Args:
        guard: decides who may ask.
    """

    def __init__(self, agent: Agent, guard: Guard) -> None:
        self._agent = agent
        self._guard = guard
        self._bodies = Bodies()
        self._described = b""

    def runner(self) -> web.AppRunner:
        """What serves the API on sites, or on connections that are handed to its `server`."""
        app = web.Application(middlewares=[self._answer])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_post(SESSION, self._session)
        app.router.add_put(PREFIX + "/images", self._image)
        app.router.add_put(PREFIX + "/blobs/{digest}", self._blob)
        app.router.add_get(PODS, self._list)
        app.router.add_post(PODS, self._batch)
        app.router.add_post(PREFIX + "/deletes", self._deletes)
        app.router.add_post(PREFIX + "/forgets", self._forgets)
        app.router.add_put(POD, self._create)
        app.router.add_patch(POD, self._update)
        app.router.add_get(POD, self._get)
        app.router.add_delete(POD, self._delete)
        app.router.add_post(POD + "/forget", self._forget)
        app.router.add_get(POD + "/containers/{container}/logs", self._logs)
        app.router.add_get(POD + "/containers/{container}/exec", self._exec)
        app.router.add_get(POD + "/containers/{container}/attach", self._attach)
        app.router.add_get(POD + "/portforward", self._port_forward)
        app.router.add_get(PREFIX + "/changes", self._changes)
        app.router.add_get(PREFIX + "/node", self._node)
        app.router.add_get(PREFIX + "/stats", self._stats)
        app.on_shutdown.append(self._end_streams)
        # A caller that leaves ends its stream. Calls for pods go on: they are tasks of the agent's.
        return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0, **CONNECTION)

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer errors in the form of the protocol, and let nobody through who may not ask."""
        try:
            if request.path not in _PUBLIC:
                self._guard.check(request)
                known(request)
                if request.path.startswith(PREFIX) and request.path != SESSION:
                    self._agent.sessions.check(wanted(request.headers, SESSION_HEADER, least=0))
            return await handler(request)
        except web.HTTPException as error:
            name = "NotFound" if error.status == 404 else "InvalidInput"
            return _json(Failure(name, error.reason), error.status, error.headers.get("Allow"))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            if not isinstance(error, WasmletError):
                log.error("a request has failed", method=request.method, path=request.path, **described(error))
            status, failure = failure_of(error)
            answer = _json(failure, status)
            if not request.content.at_eof():
                answer.force_close()  # what is left of its body is not read
            return answer

    async def _end_streams(self, _: web.Application) -> None:
        self._agent.sessions.end_streams()

    # --- the session, and what is asked of the node

    async def _healthz(self, _: web.Request) -> web.Response:
        # Whoever asks may be a stranger: what is wrong is told on the stream of changes.
        return _json(Failure("Failed", "the agent is not well"), 503) if self._agent.trouble else _json(Accepted())

    async def _openapi(self, _: web.Request) -> web.Response:
        # Whoever asks may be a stranger, and to describe it takes some 20 ms.
        if not self._described:
            self._described = json.dumps(document()).encode()
        return web.Response(body=self._described, content_type="application/json")

    async def _session(self, request: web.Request) -> web.Response:
        return _json(await self._agent.claim(await self._body(request, SessionRequest)))

    async def _node(self, _: web.Request) -> web.Response:
        return _json(await self._agent.pods.provider.node_status())

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(await self._supported("stats").stats())

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        after = number(request.query, "after", least=0) or 0
        known = request.query.get("instance") == self._agent.changes.instance
        _ = self._agent.pods.provider
        return await send_changes(request, self._agent, after if known else 0)

    # --- images that the node loop brings

    async def _image(self, request: web.Request) -> web.Response:
        provider, asked = self._supported("take_image"), await self._body(request, ImageRequest)
        with _content():
            return _json(ImageAnswer(tuple(await provider.take_image(asked.reference, asked.image, files=asked.files))))

    async def _blob(self, request: web.Request) -> web.Response:
        provider, query = self._supported("take_image"), request.query
        size, offset = wanted(query, "size", least=0), wanted(query, "offset", least=0)
        data = await self._bodies.read(request, most=BLOB_PIECE)
        with _content():
            return _json(BlobAnswer(await provider.take_blob(request.match_info["digest"], size, offset, data)))

    # --- pods

    async def _list(self, _: web.Request) -> web.Response:
        n = self._agent.changes.n
        return _json(PodList(n, await self._agent.pods.listed()))

    async def _create(self, request: web.Request) -> web.Response:
        uid, fence = _uid(request), _fence(request)
        digest, body = await self._handed_over(request)
        await self._agent.pods.create(uid, fence, digest, body)
        return _json(Accepted())

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        session, body = await self._for_many(request)
        _ = self._agent.pods.provider
        return await create_batch(request, self._agent, session, body)

    async def _deletes(self, request: web.Request) -> web.Response:
        session, body = await self._for_many(request, most=LARGE)
        return _lines(await delete_batch(self._agent, session, body), 202)

    async def _forgets(self, request: web.Request) -> web.Response:
        session, body = await self._for_many(request, most=LARGE)
        return _lines(await forget_batch(self._agent, session, body), 200)

    async def _for_many(self, request: web.Request, most: int = MOST_BODY) -> tuple[int, bytes]:
        """The session and the body of a request for many pods."""
        session = wanted(request.headers, SESSION_HEADER, least=0)
        body = await self._bodies.read(request, most)
        self._agent.sessions.check(session)  # it may have ended while the body was on its way
        return session, body

    async def _update(self, request: web.Request) -> web.Response:
        uid, fence = _uid(request), _fence(request)
        digest, body = await self._handed_over(request)
        await self._agent.pods.update(uid, fence, digest, body)
        return _json(Accepted())

    async def _get(self, request: web.Request) -> web.Response:
        return _json(await self._agent.pods.get(_uid(request)))

    async def _delete(self, request: web.Request) -> web.Response:
        query = request.query
        key = PodKey(query.get("namespace", ""), query.get("name", ""), _uid(request))
        await self._agent.pods.delete(key, _fence(request), seconds(query, "grace"), keeps=flag(query, "keep"))
        return _json(Accepted(), 202)

    async def _forget(self, request: web.Request) -> web.Response:
        await self._agent.pods.forget(_uid(request), _fence(request))
        return _json(Accepted())

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        options = log_options(request.query)
        key = self._agent.pods.key(_uid(request))
        pieces = self._supported("logs").logs(key, request.match_info["container"], options)
        return await self._while_in_session(request, send_log(request, pieces, follow=options.follow))

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        provider, key = self._supported("exec"), self._agent.pods.key(_uid(request))
        command, container = request.query.getall("command", []), request.match_info["container"]
        if not command:
            raise InvalidInput("command: expected a program, found nothing")
        return await self._while_in_session(
            request, serve_stream(request, lambda caller: provider.exec(key, container, command, caller))
        )

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        provider, key = self._supported("attach"), self._agent.pods.key(_uid(request))
        container = request.match_info["container"]
        return await self._while_in_session(
            request, serve_stream(request, lambda caller: provider.attach(key, container, caller))
        )

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        provider, key = self._supported("port_forward"), self._agent.pods.key(_uid(request))
        port = wanted(request.query, "port", least=1)
        return await self._while_in_session(
            request, serve_stream(request, lambda caller: provider.port_forward(key, port, caller))
        )

    async def _while_in_session(
        self, request: web.Request, work: Coroutine[Any, Any, web.StreamResponse]
    ) -> web.StreamResponse:
        """Send a stream, which is broken off when its session is over."""
        task, over = asyncio.ensure_future(work), asyncio.ensure_future(self._agent.sessions.over.wait())
        try:
            await asyncio.wait([task, over], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return await task
            with breaking_off(request):
                raise SessionOver("another node loop has taken the agent over, or the agent stops")
        finally:
            over.cancel()
            task.cancel()
            await asyncio.wait([task])
        raise AssertionError("an answer is broken off with an error")

    def _supported(self, call: str) -> Provider:
        provider = self._agent.pods.provider
        if not provider.supports(call):
            raise Unsupported.by(provider.name, call)
        return provider

    async def _handed_over(self, request: web.Request) -> tuple[str, PodRequest]:
        body = await self._bodies.read(request)
        self._agent.sessions.check(_fence(request).session)  # it may have ended while the body was on its way
        return _pod_request(body) if len(body) < LARGE else await in_thread(_pod_request, body)

    async def _body(self, request: web.Request, kind: type[T]) -> T:
        body = await self._bodies.read(request)
        return decode(kind, body) if len(body) < LARGE else await in_thread(decode, kind, body)


@contextlib.contextmanager
def _content() -> Iterator[None]:
    """Turn errors about an image into `InvalidInput`: the fault is in what the caller has sent."""
    try:
        yield
    except (BadContent, InvalidReference) as error:
        raise InvalidInput(str(error)) from None


def _uid(request: web.Request) -> str:
    return check_uid(request.match_info["uid"])


def _fence(request: web.Request) -> Fence:
    return Fence(wanted(request.headers, SESSION_HEADER, least=0), wanted(request.headers, SEQUENCE_HEADER, least=1))


def _pod_request(body: bytes) -> tuple[str, PodRequest]:
    """The digest of a body, and what it says."""
    return hashlib.sha256(body).hexdigest(), decode(PodRequest, body)


def _lines(body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/x-ndjson")


def _json(value: object, status: int = 200, allow: str | None = None) -> web.Response:
    headers = {"Allow": allow} if allow is not None else None
    return web.Response(body=encode(value), status=status, headers=headers, content_type="application/json")
