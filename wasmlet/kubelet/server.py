"""The node's HTTPS API.

`/containerLogs/{namespace}/{pod}/{container}`, `/pods`, `/metrics` and `/healthz`, over TLS, for clients that show a
certificate of the cluster's client CA and are the API server or an administrator. Everybody else is refused (403).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import orjson
import structlog
from aiohttp import web

from wasmlet.clock import Clock
from wasmlet.errors import ConfigError, InvalidInput, NotFound, Unsupported, WasmletError
from wasmlet.kubelet.logs import BadQuery, check_container, log_options
from wasmlet.model.pod import Pod
from wasmlet.model.status import PodStatus
from wasmlet.provider import LogOptions, Provider

log = structlog.get_logger(__name__)

ADMIN_GROUP = "system:masters"
API_SERVERS = ("kube-apiserver-kubelet-client", "kube-apiserver", "system:kube-apiserver", "system:apiserver")
"""Common names that distributions give the certificate with which their API server reaches kubelets."""
REQUEST_BYTES = 64 * 1024
STOP_SECONDS = 2.0


class PodView(Protocol):
    """A pod and what is known of it now."""

    @property
    def pod(self) -> Pod: ...

    @property
    def status(self) -> PodStatus | None: ...


class PodSource(Protocol):
    """The pods of the node."""

    def find(self, namespace: str, name: str, uid: str | None = None) -> PodView | None: ...

    def all(self) -> Sequence[PodView]: ...


class KubeletServer:
    """Serves the node's API until `stop`."""

    def __init__(self, pods: PodSource, provider: Provider, clock: Clock, metrics: Callable[[], bytes]) -> None:
        self._pods = pods
        self._provider = provider
        self._clock = clock
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listen; `self.port` is the port then.

        Raises:
            ConfigError: the port cannot be had.
        """
        app = web.Application(middlewares=[self._guard], client_max_size=REQUEST_BYTES)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/pods", self._list_pods)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{uid}/{container}", self._logs)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS, handler_cancellation=True)
        await runner.setup()
        self._runner = runner
        try:
            site = web.TCPSite(runner, host, port, ssl_context=context, reuse_address=True)
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                f"port {port} on {host} cannot be used: {error.strerror or error}; choose another with --port"
            ) from None
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening; streams that are open are ended."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Let nobody in who may not be, and turn what goes wrong into an answer."""
        if (who := _refused(request)) is not None:
            return _text(403, f"Forbidden ({who})")
        try:
            response: web.StreamResponse = await handler(request)
            return response
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
            log.warning("request failed", path=request.path, exc_info=not isinstance(error, WasmletError))
            return _text(500, "the node could not answer; its log says why")

    async def _healthz(self, request: web.Request) -> web.Response:
        return _text(200, "ok")

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _list_pods(self, request: web.Request) -> web.Response:
        items = [view.pod.raw for view in self._pods.all()]
        body = orjson.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
        return web.Response(body=body, content_type="application/json")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        where = request.match_info
        namespace, name, container = where["namespace"], where["pod"], where["container"]
        options = log_options(request.query, self._clock.now())
        view = self._pods.find(namespace, name, where.get("uid"))
        if view is None:
            raise BadQuery(404, f'pod "{name}" does not exist')
        check_container(view.pod, view.status, container, options.previous)
        return await self._stream(request, self._provider.logs(view.pod.key, container, options), options)

    async def _stream(
        self, request: web.Request, source: AsyncGenerator[bytes, None], options: LogOptions
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        left = options.limit_bytes
        async with aclosing(source) as pieces:
            # An error before the first byte still becomes an answer of its own. A follower may wait long for that
            # byte, and gets its headers at once.
            piece = b"" if options.follow else await anext(pieces, None)
            await response.prepare(request)
            while piece is not None:
                if left is not None:
                    piece = piece[:left]
                    left -= len(piece)
                await response.write(piece)
                piece = await anext(pieces, None) if left != 0 else None
        await response.write_eof()
        return response


def _refused(request: web.Request) -> str | None:
    """None where the client may use this API, else who it is.

    The TLS layer has checked the certificate already; this is about whose it is.
    """
    certificate = request.get_extra_info("peercert") or {}
    subject: dict[str, list[str]] = {}
    for part in certificate.get("subject", ()):
        for key, value in part:
            subject.setdefault(key, []).append(value)
    names = subject.get("commonName", [])
    if ADMIN_GROUP in subject.get("organizationName", []) or any(name in API_SERVERS for name in names):
        return None
    return f"user={names[0] if names else 'unknown'}"


def _text(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=message)
