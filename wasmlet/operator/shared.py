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
"""Pauses while the API server does not answer, or takes something badly."""


class Tell(Protocol):
    """Tells of what happens to a pool, for `kubectl describe`."""

    def __call__(self, reason: str, message: str, *, warning: bool = False) -> None: ...


class Wakes:
    """An event for each pool: something about it has changed."""

    def __init__(self) -> None:
        self._events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def of(self, pool: str) -> asyncio.Event:
        return self._events[pool]

    def wake(self, pool: str) -> None:
        """Told of each change; of pools that nobody keeps nothing is noted."""
        if (event := self._events.get(pool)) is not None:
            event.set()

    def knows(self, pool: str) -> bool:
        """Whether somebody keeps the pool."""
        return pool in self._events

    def forget(self, pool: str) -> None:
        self._events.pop(pool, None)


@attrs.define
class Shared:
    """What the tasks of all pools share.

    Attributes:
        evicting: a client that does not repeat by itself what the API server puts off.
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
