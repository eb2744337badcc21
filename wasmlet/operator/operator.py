"""Puts the operator together: its clients, its watches, and kopf. `run` and `cleanup` are its two commands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from wasmlet.clock import Backoff, Clock, Pacing, SystemClock
from wasmlet.concurrency import first_of
from wasmlet.kube import Client, errors, load_identity
from wasmlet.kube.events import EventRecorder
from wasmlet.node.credentials import first_contact
from wasmlet.operator import handlers, leftovers
from wasmlet.operator.cleanup import remove_all
from wasmlet.operator.config import OperatorConfig
from wasmlet.operator.fleet import Fleet
from wasmlet.operator.health import Metrics, Pulse, served
from wasmlet.operator.identity import Approvals
from wasmlet.operator.pool import POOLS
from wasmlet.operator.scaling import Waiting
from wasmlet.operator.shared import RETRIES, Shared, Wakes
from wasmlet.signals import on_stop_signals

log = structlog.get_logger(__name__)
DEFINITION = Backoff(initial=0.5, cap=5, jitter=0.5)
"""How often to look whether the cluster has the definition of pools by now."""


async def run(config: OperatorConfig) -> None:
    """Run the operator until a stop signal comes. Nodes and pods stay as they are then.

    Raises:
        ConfigError: the API server is away at the start, or does not accept the credentials.
    """
    stop = asyncio.Event()
    with on_stop_signals(stop.set):
        async with _shared(config) as shared:
            log.info("operator started", namespace=config.namespace)
            await first_of(_definition(shared), stop.wait())
            if not stop.is_set():
                await first_of(handlers.serve(shared, stop), leftovers.follow(shared))
            await shared.events.flush(1.0)


async def cleanup(config: OperatorConfig) -> None:
    """Remove all pools and their nodes.

    Raises:
        ConfigError: the API server is away at the start, or does not accept the credentials.
        ApiError: pools cannot be listed or deleted.
    """
    async with _shared(config) as shared:
        await remove_all(shared)
        await shared.events.flush(1.0)


@asynccontextmanager
async def _shared(config: OperatorConfig) -> AsyncIterator[Shared]:
    """Make what the tasks of all pools share; the watches and the event recorder run while the context is open."""
    clock: Clock = SystemClock()
    identity, rng = await load_identity(config.kubeconfig), random.Random()
    async with (
        Client(identity, clock=clock, rng=rng) as client,
        Client(identity, clock=clock, rng=rng, throttled_tries=0) as evicting,
        asyncio.TaskGroup() as group,
    ):
        await first_contact(client, clock)
        wakes = Wakes()
        fleet = Fleet(client, config.namespace, Pacing(clock, rng, RETRIES), wakes.wake)
        events = EventRecorder(client, "wasmlet-operator", clock=clock)
        metrics, pulse, waiting = Metrics(), Pulse(clock), Waiting()
        pacing = Pacing(clock, rng, RETRIES)
        approvals = Approvals(client, config.namespace, pacing)

        def missing() -> str:
            return "not in sync yet" if not fleet.known() else "" if pulse.listed else "pools are not listed yet"

        tasks = [
            group.create_task(work)
            for work in (fleet.run(), events.run(), waiting.run(client, pacing), approvals.run())
        ]
        try:
            async with served(config.health_address, config.health_port, metrics, pulse, missing):
                yield Shared(
                    config, client, evicting, fleet, events, wakes, clock, rng, metrics, pulse, waiting, approvals
                )
        finally:
            for task in tasks:
                task.cancel()


async def _definition(shared: Shared) -> None:
    """Return when the API server serves pools, or gives another reason for not listing them.

    kopf looks what there is to follow, and then follows the definitions. One that comes in between would be lost to it.
    """
    told = False
    for pause in DEFINITION.pauses(shared.rng):
        try:
            await shared.client.get(POOLS, limit="1")
            return
        except errors.ObjectNotFound:
            if not told:
                log.warning(
                    "the cluster has no WasmNodePools yet; apply charts/wasmlet-operator/crds, and the operator goes on"
                )
                told = True
        except errors.ApiError as error:
            log.warning("pools cannot be listed", error=str(error))
            return
        await shared.clock.sleep(pause)
