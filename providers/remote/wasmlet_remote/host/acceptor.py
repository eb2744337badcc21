"""Where agents dial in: they join here, and their links arrive here."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from wasmlet_agent.protocol.codec import decode, encode
from wasmlet_agent.protocol.failures import Failure, Unauthorized
from wasmlet_agent.protocol.joining import AUTHORITIES, JOIN, LINK, MOST_JOIN, MOST_MESSAGE, JoinAnswer, JoinRequest

from wasmlet import ConfigError, InvalidInput, WasmletError
from wasmlet.failures import described
from wasmlet.kube import errors
from wasmlet.kubelet.connections import Connection, timed
from wasmlet.kubelet.descriptors import report_shortage_once
from wasmlet_remote.host.links import Line
from wasmlet_remote.host.nodes import Nodes
from wasmlet_remote.host.tokens import Agent, Refusal

log = structlog.get_logger(__name__)

JOINS = 8
"""Requests to join that are looked at at once: each asks the API server."""
JOIN_SECONDS = 20.0
HEAD_SECONDS = 10.0
"""How long the head of a request, or a TLS handshake, may take."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Admit = Callable[[JoinRequest], Awaitable[Agent]]


class Acceptor:
    """Serves agents.

    Args:
        admit: lets an agent in by its token, or raises.
        authorities: PEM, shown to anybody.
    """

    def __init__(self, nodes: Nodes, admit: Admit, authorities: bytes) -> None:
        self._nodes = nodes
        self._admit = admit
        self._authorities = authorities
        self._joins = asyncio.Semaphore(JOINS)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> str:
        """Listen; returns the URL.

        Raises:
            ConfigError: the address cannot be had.
        """
        app = web.Application(middlewares=[_answered], client_max_size=MOST_JOIN)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get(AUTHORITIES, self._show_authorities)
        app.router.add_post(JOIN, self._join)
        app.router.add_get(LINK, self._link)
        runner = self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        server, loop = runner.server, asyncio.get_running_loop()
        assert server is not None
        server.request_handler = timed(server.request_handler)  # anybody may connect here, and be slow
        report_shortage_once(loop)
        try:
            self._listener = await loop.create_server(
                lambda: Connection(server, loop=loop, head_seconds=HEAD_SECONDS),
                host,
                port,
                ssl=context,
                ssl_handshake_timeout=None if context is None else HEAD_SECONDS,
                backlog=1024,
            )
        except OSError as error:
            raise ConfigError(f"--listen {host}:{port}: {error.strerror}") from None
        shown, number = self._listener.sockets[0].getsockname()[:2]
        return f"{'https' if context else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{number}"

    async def stop(self) -> None:
        """End all links, and listen no more."""
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

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
        socket = web.WebSocketResponse(max_msg_size=MOST_MESSAGE, compress=False, timeout=5.0)
        with lines.opening():
            await socket.prepare(request)
        await lines.keep(Line(socket))
        await socket.close()
        return socket


@web.middleware
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors in the form of the protocol, without what only a log may say."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _failed(error.status, "Failed", error.reason)
    except Unauthorized as error:
        log.warning("an agent is not let in", path=request.path, error=str(error))
        return _failed(401, "Unauthorized", str(error))
    except InvalidInput as error:
        return _failed(400, "InvalidInput", str(error))
    except Refusal as error:
        log.warning("an agent cannot join", error=str(error))
        return _failed(403, "NotAdmitted", str(error))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except (errors.ApiError, TimeoutError) as error:
        log.warning("the API server does not let an agent join", error=str(error))
        return _failed(503, "Starting", "the host cannot reach its API server, or may not ask it")
    except Exception as error:
        if not isinstance(error, WasmletError):
            log.error("a request of an agent has failed", path=request.path, **described(error))
        return _failed(500, "Failed", "the host has failed; its log says why")


def _failed(status: int, name: str, message: str) -> web.Response:
    return web.Response(status=status, body=encode(Failure(name, message)), content_type="application/json")
