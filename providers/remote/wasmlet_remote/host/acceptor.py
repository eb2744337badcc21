"""The host's HTTP server for agents: they join here, and open their links here."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import Failure, Unauthorized
from wasmlet_agent.protocol.joining import AUTHORITIES, JOIN, LINK, MOST_JOIN, MOST_MESSAGE, JoinAnswer, JoinRequest

from wasmlet import Clock, ConfigError, InvalidInput, SystemClock, WasmletError
from wasmlet.failures import Seldom, described, text_of
from wasmlet.kube import errors
from wasmlet.kubelet.listening import HEAD_SECONDS, Limits, known, listening
from wasmlet_remote.host.links import Line
from wasmlet_remote.host.nodes import Nodes
from wasmlet_remote.host.tokens import Agent, Refusal

log = structlog.get_logger(__name__)

JOINS = 8
"""Requests to join that are looked at at once: each asks the API server."""
JOIN_SECONDS = 20.0
LIMITS = Limits(strangers=512, seconds=HEAD_SECONDS + JOIN_SECONDS)
"""The limits for connections of callers that are not known as agents yet. They have as long as joining takes."""
_MOST_PATH = 200
"""Characters of a path that are logged."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Admit = Callable[[JoinRequest], Awaitable[Agent]]


class Acceptor:
    """Serves agents.

    Args:
        admit: lets an agent in by its token, or raises.
        authorities: PEM, shown to anybody.
    """

    def __init__(self, nodes: Nodes, admit: Admit, authorities: bytes, clock: Clock | None = None) -> None:
        self._nodes = nodes
        self._admit = admit
        self._authorities = authorities
        self._joins = asyncio.Semaphore(JOINS)
        self._seldom = Seldom(clock or SystemClock())

    @asynccontextmanager
    async def serving(self, address: tuple[str, int], context: ssl.SSLContext | None) -> AsyncIterator[str]:
        """Listen while the context lasts; the URL.

        Raises:
            ConfigError: the address cannot be had.
        """
        app = web.Application(middlewares=[self._answered], client_max_size=MOST_JOIN)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get(AUTHORITIES, self._show_authorities)
        app.router.add_post(JOIN, self._join)
        app.router.add_get(LINK, self._link)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        async with AsyncExitStack() as stack:
            try:
                url = await stack.enter_async_context(listening(runner, address, context, LIMITS))
            except OSError as error:
                raise ConfigError(f"--listen {address[0]}:{address[1]}: {error.strerror}") from None
            yield url

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"agents": len(self._nodes)})

    async def _show_authorities(self, _: web.Request) -> web.Response:
        return web.Response(body=self._authorities, content_type="application/x-pem-file")

    async def _join(self, request: web.Request) -> web.Response:
        async with asyncio.timeout(JOIN_SECONDS):
            body = decode(JoinRequest, await request.read())
            if self._joins.locked():
                raise web.HTTPTooManyRequests
            async with self._joins:
                agent = await self._admit(body)
        known(request)
        self._nodes.joined(agent)
        log.info("an agent has joined", node=agent.name, pool=agent.pool)
        return web.Response(body=encode(JoinAnswer(agent.name, agent.pool)), content_type="application/json")

    async def _link(self, request: web.Request) -> web.StreamResponse:
        kind, _, key = request.headers.get("Authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
        lines = self._nodes.lines(request.match_info["name"], digest)
        if not self._nodes.in_sync.is_set():
            raise web.HTTPServiceUnavailable
        if lines is None or kind.lower() != "bearer" or request.headers.get("Origin"):
            raise Unauthorized("expected the key of an agent that has joined under this name, found another")
        if lines.full:
            raise web.HTTPTooManyRequests
        known(request)
        socket = web.WebSocketResponse(max_msg_size=MOST_MESSAGE, compress=False, timeout=5.0)
        with lines.opening():
            await socket.prepare(request)
        await lines.keep(Line(socket))
        await socket.close()
        return socket

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer errors in the form of the protocol, without what only a log may say."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _failed(error.status, "Failed", error.reason)
        except Unauthorized as error:
            self._warn("an agent is not let in", request, error)
            return _failed(401, "Unauthorized", str(error))
        except InvalidInput as error:
            return _failed(400, "InvalidInput", str(error))
        except Refusal as error:
            self._warn("an agent cannot join", request, error)
            return _failed(403, "NotAdmitted", str(error))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except (errors.ApiError, TimeoutError) as error:
            self._warn("the API server does not let an agent join", request, error)
            return _failed(503, "Starting", "the host cannot reach its API server, or may not ask it")
        except Exception as error:
            if not isinstance(error, WasmletError):
                log.error("a request of an agent has failed", path=request.path, **described(error))
            return _failed(500, "Failed", "the host has failed; its log says why")

    def _warn(self, event: str, request: web.Request, error: Exception) -> None:
        """Log what anybody may cause, now and then."""
        path = request.path[:_MOST_PATH]
        if (fields := self._seldom.fields(f"{event} {path}")) is not None:
            log.warning(event, path=path, error=text_of(error), **fields)


def _failed(status: int, name: str, message: str) -> web.Response:
    return web.Response(status=status, body=encode(Failure(name, message)), content_type="application/json")
