"""The operator's own HTTP endpoints: Prometheus metrics and health, at `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)

from wasmlet.clock import Clock
from wasmlet.errors import ConfigError

STUCK_SECONDS = 1800.0
"""After so long, a look at a pool counts as stuck. Its requests take less even where the API server delays each (429).
"""
STATES = ("wanted", "ready", "updated", "draining")


class Metrics:
    """The Prometheus metrics of one operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._nodes = Gauge(
            "wasmlet_pool_nodes", "Nodes of a pool, by what they are.", ["pool", "state"], registry=self.registry
        )
        self._looks = Counter(
            "wasmlet_pool_looks", "How often a pool was compared with what it says.", ["pool"], registry=self.registry
        )
        self._failures = Counter(
            "wasmlet_pool_failures", "Steps that failed and are tried again.", ["pool"], registry=self.registry
        )

    def looked(self, pool: str, **nodes: int) -> None:
        """Count a look at a pool, and set how many nodes it has.

        Args:
            nodes: the number of nodes for each of `STATES`; 0 where it is left out.
        """
        self._looks.labels(pool).inc()
        for state in STATES:
            self._nodes.labels(pool, state).set(nodes.get(state, 0))

    def failed(self, pool: str) -> None:
        """Count a step that failed."""
        self._failures.labels(pool).inc()

    def forget(self, pool: str) -> None:
        """Remove the series of a pool that is gone."""
        for one in (self._looks, self._failures):
            with contextlib.suppress(KeyError):
                one.remove(pool)
        for state in STATES:
            with contextlib.suppress(KeyError):
                self._nodes.remove(pool, state)


class Pulse:
    """Detects an operator that hangs: a look at a pool is a few requests, each with a timeout, so it has to end.

    A look does not include waiting for the next look, nor for an API server that does not answer.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begun: dict[object, tuple[str, float]] = {}
        self.listed = False
        """Whether kopf has listed the pools once."""

    @contextmanager
    def looking(self, pool: str) -> Iterator[None]:
        """Mark that a look at the pool is under way while the context is open."""
        key = object()
        self._begun[key] = pool, self._clock.monotonic()
        try:
            yield
        finally:
            del self._begun[key]

    def stuck(self) -> str:
        """The name of a pool at which a look does not end; "" where there is none."""
        now = self._clock.monotonic()
        return next((pool for pool, since in self._begun.values() if now - since > STUCK_SECONDS), "")


@asynccontextmanager
async def served(
    address: str, port: int, metrics: Metrics, pulse: Pulse, missing: Callable[[], str]
) -> AsyncIterator[None]:
    """Serve the endpoints while the context is open.

    Args:
        port: 0 serves nothing.
        missing: what the operator does not know yet of the cluster, "" for nothing; `/readyz` answers with that.

    Raises:
        ConfigError: the port cannot be had.
    """
    if not port:
        yield
        return

    async def healthz(_: web.Request) -> web.Response:
        if pool := pulse.stuck():
            return web.Response(status=503, text=f"a look at pool {pool} does not end")
        return web.Response(text="ok")  # a restart would not help where the API server does not answer

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(status=503, text=text) if (text := missing()) else web.Response(text="ok")

    async def figures(_: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=generate_latest(metrics.registry), headers=headers)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", figures)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, address, port).start()
        except OSError as error:
            raise ConfigError(
                f"{address}:{port} cannot be listened on: {error.strerror}; set --health-address and --health-port"
            ) from None
        yield
    finally:
        await runner.cleanup()
