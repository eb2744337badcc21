"""What the tasks of all pools share."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Protocol

import attrs

from wasmlet.clock import Backoff, Clock, Pacing
from wasmlet.kube import Client
from wasmlet.kube.events import EventRecorder
from wasmlet.operator.config import OperatorConfig
from wasmlet.operator.fleet import Fleet
from wasmlet.operator.health import Metrics, Pulse
from wasmlet.operator.identity import Approvals
from wasmlet.operator.scaling import Waiting

RETRIES = Backoff(initial=0.5, cap=10, jitter=0.5)
"""The pauses between tries while the API server does not answer, or refuses a request."""


class Tell(Protocol):
    """Records an Event about a pool, which `kubectl describe` shows."""

    def __call__(self, reason: str, message: str, *, warning: bool = False) -> None: ...


class Wakes:
    """An `asyncio.Event` for each pool, which is set when something of the pool has changed."""

    def __init__(self) -> None:
        self._events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def of(self, pool: str) -> asyncio.Event:
        return self._events[pool]

    def wake(self, pool: str) -> None:
        """Set the pool's event. For a pool that no task keeps, nothing happens."""
        if (event := self._events.get(pool)) is not None:
            event.set()

    def knows(self, pool: str) -> bool:
        """Whether a task keeps the pool."""
        return pool in self._events

    def forget(self, pool: str) -> None:
        self._events.pop(pool, None)


@attrs.define
class Shared:
    """What the tasks of all pools share.

    Attributes:
        evicting: a client that does not itself repeat a request that the API server answers with 429.
    """

    config: OperatorConfig
    client: Client
    evicting: Client
    fleet: Fleet
    events: EventRecorder
    wakes: Wakes
    clock: Clock
    rng: random.Random
    metrics: Metrics
    pulse: Pulse
    waiting: Waiting
    approvals: Approvals

    @property
    def pacing(self) -> Pacing:
        return Pacing(self.clock, self.rng, RETRIES)
