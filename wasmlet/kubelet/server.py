"""The node's HTTPS API, as a kubelet serves it: its paths and their handlers, and its limits.

`wasmlet.kubelet.auth` decides who may ask; `logs`, `views` and `stats` make the answers. A request is bounded: in its
size, in the time that its head and the TLS handshake may take, and in the time that the provider has to measure.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import aiohttp
import attrs
import structlog
from aiohttp import web

from wasmlet.clock import Clock
from wasmlet.errors import ConfigError, InvalidInput, NotFound, Unsupported, WasmletError
from wasmlet.failures import described, text_of
from wasmlet.kubelet import stats, views
from wasmlet.kubelet.auth import Guard
from wasmlet.kubelet.cadvisor import cadvisor_metrics
from wasmlet.kubelet.connections import Connection, timed
from wasmlet.kubelet.descriptors import report_shortage_once
from wasmlet.kubelet.logs import BadQuery, check_container, log_options
from wasmlet.kubelet.outbox import Outbox
from wasmlet.kubelet.pods import PodSource
from wasmlet.kubelet.sessions import Timeouts
from wasmlet.kubelet.streaming import Streaming
from wasmlet.model.pod import Raw
from wasmlet.provider import LogOptions, Provider

log = structlog.get_logger(__name__)

REQUEST_BYTES = 64 * 1024
HEADER_BYTES = 32 * 1024
"""The longest line of a request's head: tokens of an identity provider can be long."""
IDLE_SECONDS = 90.0
STOP_SECONDS = 2.0
FOLLOW_SECONDS = 0.25
"""How long the headers of a log that is followed wait for its first piece, which may be an error instead."""
PROMETHEUS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


@attrs.frozen
class NodeFacts:
    """What the API tells of the node beside its pods.

    Attributes:
        metrics: the node's own figures, in Prometheus' text format.
        settings: what `/configz` shows, under the names of a KubeletConfiguration; no secrets.
        checks: what `/healthz` looks at, by name.
        capacity: of the node, resource name to quantity.
    """

    name: str
    metrics: Callable[[], bytes]
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    checks: Mapping[str, views.Check] = attrs.field(factory=lambda: {"ping": str, "log": str})
    capacity: Callable[[], Raw] = dict


class KubeletServer:
    """Serves the node's API until `stop`."""

    def __init__(
        self,
        pods: PodSource,
        provider: Provider,
        guard: Guard,
        facts: NodeFacts,
        clock: Clock,
        *,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._pods = pods
        self._streaming = Streaming(pods, provider, clock, timeouts)
        self._provider = provider
        self._guarded_by = guard
        self._facts = facts
        self._clock = clock
        self._head_seconds = (timeouts or Timeouts()).head
        self.outbox = Outbox()
        """What waits for those that follow logs."""
        self._runners: list[web.AppRunner] = []
        self._listeners: list[asyncio.Server] = []
        self.port = 0

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listen; `self.port` is the port then.

        Raises:
            ConfigError: the port cannot be had.
        """
        app = web.Application(middlewares=[self._guard], client_max_size=REQUEST_BYTES)
        add = app.router.add_route
        for path, handler in {
            "/pods": self._list_pods,
            "/runningpods": self._list_running,
            "/stats/summary": self._show_stats,
            "/metrics": self._show_metrics,
            "/metrics/cadvisor": self._show_container_metrics,
            "/metrics/resource": self._show_resource_metrics,
            "/metrics/probes": self._show_probe_metrics,
            "/configz": self._show_settings,
            "/logs": self._disabled,
            "/containerLogs/{namespace}/{pod}/{container}": self._logs,
            "/containerLogs/{namespace}/{pod}/{uid}/{container}": self._logs,
        }.items():
            add("GET", path, handler)
        add("GET", "/pods/", self._list_pods)
        add("GET", "/runningpods/", self._list_running)
        add("GET", "/logs/{path:.*}", self._disabled)
        add("POST", "/stats/summary", self._show_stats)
        self._streaming.add_routes(app.router)
        self._add_health(app)
        self.port = await self._listen(app, host, port, "--port", context)

    async def start_health(self, port: int) -> int:
        """Serve `/healthz` alone, without TLS and to this machine only, as a kubelet does at 10248. Returns the port.

        Raises:
            ConfigError: the port cannot be had.
        """
        app = web.Application(middlewares=[self._worded], client_max_size=REQUEST_BYTES)
        self._add_health(app)
        return await self._listen(app, "127.0.0.1", port, "--healthz-port", None)

    def _add_health(self, app: web.Application) -> None:
        app.router.add_route("GET", "/healthz", self._healthz)
        app.router.add_route("GET", "/healthz/{check}", self._healthz)

    async def _listen(
        self, app: web.Application, host: str, port: int, flag: str, context: ssl.SSLContext | None
    ) -> int:
        runner = web.AppRunner(app, shutdown_timeout=STOP_SECONDS, handler_cancellation=True)
        await runner.setup()
        self._runners.append(runner)
        assert runner.server is not None
        runner.server.request_handler = timed(runner.server.request_handler)
        loop = asyncio.get_running_loop()
        report_shortage_once(loop)

        def connection() -> asyncio.Protocol:
            assert runner.server is not None
            return Connection(
                runner.server,
                loop=loop,
                head_seconds=self._head_seconds,
                keepalive_timeout=IDLE_SECONDS,
                lingering_time=STOP_SECONDS,
                max_line_size=HEADER_BYTES,
                max_field_size=HEADER_BYTES,
            )

        try:
            listener = await loop.create_server(
                connection,
                host,
                port,
                ssl=context,
                ssl_handshake_timeout=None if context is None else self._head_seconds,
                backlog=512,
                reuse_address=True,
            )
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno is not None and error.errno > 0 else error
            raise ConfigError(f"port {port} on {host} cannot be used: {why}; choose another with {flag}") from None
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening; streams that are open are ended."""
        for listener in self._listeners:
            listener.close()
        for runner in self._runners:
            await runner.cleanup()
        self._listeners, self._runners = [], []
        self.outbox.close()
        await self._guarded_by.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse callers who may not use the API."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            if (refusal := await self._guarded_by.refusal(request)) is not None:
                return refusal
            response: web.StreamResponse = await handler(request)
            return response

        return await self._worded(request, guarded)

    @web.middleware
    async def _worded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Turn what goes wrong into an answer, in the kubelet's words where it has some."""
        if (request.content_length or 0) > REQUEST_BYTES:
            return _text(413, f"expected a body of at most {REQUEST_BYTES} bytes")
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except web.HTTPNotFound:
            return _text(404, "404: Page Not Found")
        except web.HTTPException:
            raise
        except BadQuery as error:
            return _text(error.status, str(error))
        except NotFound as error:
            return _text(404, str(error))
        except InvalidInput as error:
            return _text(400, str(error))
        except Unsupported as error:
            return _text(501, str(error))
        except ConnectionError:
            raise
        except Exception as error:
            log.warning("request failed", path=request.path, **described(error))
            # What a provider says of itself names no secret; any other error may.
            known = isinstance(error, WasmletError)
            return _text(500, text_of(error) if known else "the node could not answer; its log says why")

    async def _healthz(self, request: web.Request) -> web.Response:
        return views.health(self._facts.checks, request.query, request.match_info.get("check"))

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._facts.metrics(), headers=PROMETHEUS)

    async def _show_probe_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=stats.probe_metrics(self._provider.probe_counts()), headers=PROMETHEUS)

    async def _show_resource_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=stats.resource_metrics(await self._measured()), headers=PROMETHEUS)

    async def _show_container_metrics(self, request: web.Request) -> web.Response:
        body = cadvisor_metrics(await self._measured(), self._pods.find, self._facts.capacity())
        return web.Response(body=body, headers=PROMETHEUS)

    async def _measured(self) -> Raw | None:
        """The provider's Summary; None where it cannot be had, which a scraper sees in a metric, as with a kubelet."""
        try:
            return await self._summary()
        except Unsupported:
            raise
        except Exception as error:
            log.warning("the provider's stats cannot be had", error=str(error) or type(error).__name__)
            return None

    async def _show_stats(self, request: web.Request) -> web.Response:
        try:
            summary = await self._summary()
        except TimeoutError:
            return _text(500, f"provider {self._provider.name} did not measure within {stats.SECONDS:g} s")
        if request.query.get("only_cpu_and_memory") == "true":
            summary = stats.only_cpu_and_memory(summary)
        return views.json_answer(summary)

    async def _summary(self) -> Raw:
        async with asyncio.timeout(stats.SECONDS):
            return stats.completed(await self._provider.stats(), self._facts.name)

    async def _show_settings(self, request: web.Request) -> web.Response:
        return views.json_answer({"kubeletconfig": self._facts.settings})

    async def _disabled(self, request: web.Request) -> web.Response:
        return _text(405, "logs endpoint is disabled.\n")

    async def _list_pods(self, request: web.Request) -> web.Response:
        return views.json_answer(views.pod_list(view.shown for view in self._pods.all()))

    async def _list_running(self, request: web.Request) -> web.Response:
        known = {view.pod.uid: view.pod for view in self._pods.all()}
        async with asyncio.timeout(stats.SECONDS):
            records = await self._provider.list_pods()
        return views.json_answer(views.running_pods(records, known.get))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        where = request.match_info
        namespace, name, container = where["namespace"], where["pod"], where["container"]
        options = log_options(request.query, self._clock.now())
        view = self._pods.find(namespace, name, where.get("uid"))
        if view is None:
            raise BadQuery(404, f'pod "{name}" does not exist')
        check_container(view.pod, view.status, container, options.previous)
        try:
            if not self._provider.supports("logs"):
                raise Unsupported.by(self._provider.name, "logs")
            return await self._stream(request, self._provider.logs(view.pod.key, container, options), options)
        except Unsupported as error:
            # Of what a kubelet answers to this path, the API server passes on the text of a 400 alone as it is. It
            # makes a 501 an internal error of the server.
            raise BadQuery(400, str(error)) from None

    async def _stream(
        self, request: web.Request, source: AsyncGenerator[bytes, None], options: LogOptions
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        if (transport := request.transport) is None:
            raise ConnectionResetError("the reader has gone")
        left = options.limit_bytes
        async with AsyncExitStack() as stack:
            pieces = await stack.enter_async_context(aclosing(source))
            # An error before the first byte still becomes an answer of its own. A follower may wait long for that
            # byte, and gets its headers soon.
            if options.follow:
                pieces = await stack.enter_async_context(_begun(pieces))
            piece = await anext(pieces, None)
            await response.prepare(request)
            try:
                while piece is not None:
                    if left is not None:
                        piece = piece[:left]
                        left -= len(piece)
                    await self.outbox.write(response, transport, piece)
                    piece = await anext(pieces, None) if left != 0 else None
                await response.write_eof()
            except aiohttp.ClientConnectionResetError:
                log.debug("the reader of a log has gone", path=request.path)
            except Exception as error:
                # The answer has begun: to break it off is the only way left to say that something is missing.
                log.warning("a log breaks off", path=request.path, **described(error))
                transport.close()
        return response


@asynccontextmanager
async def _begun(pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The same pieces, of which the first is empty where none comes soon.

    Raises:
        Exception: as the pieces, where they begin with an error.
    """
    first = asyncio.ensure_future(anext(pieces, None))

    async def all_of_them() -> AsyncGenerator[bytes, None]:
        if not first.done():
            yield b""
        if (piece := await first) is not None:
            yield piece
            async for piece in pieces:
                yield piece

    try:
        await asyncio.wait([first], timeout=FOLLOW_SECONDS)
        if first.done():
            first.result()
        async with aclosing(all_of_them()) as found:
            yield found
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


def _text(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=message)
