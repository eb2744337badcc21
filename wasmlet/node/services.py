"""What all pod tasks of a node share: the provider, the API, and what helps with both."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

import attrs

from wasmlet.clock import Backoff, Clock
from wasmlet.kube import History
from wasmlet.kube.client import Client
from wasmlet.kube.events import EventRecorder
from wasmlet.kube.recovery import Pauses
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.node.admission import Admission
from wasmlet.node.metrics import Metrics
from wasmlet.node.status_writer import StatusWriter
from wasmlet.provider import Provider

CALL_SECONDS = 60.0
"""How long a provider may take to accept a pod or a change, or to end a pod beyond its grace period."""


STEPS = Backoff(initial=0.5, cap=60)
"""The pauses between the tries of a step for one pod, and between those of the provider's list and stream of changes.
"""


class InputSource(Protocol):
    """Where a pod's inputs come from."""

    async def inputs(self, pod: Pod) -> Inputs:
        """What the pod refers to, as it stands now."""
        ...

    def release(self, uid: str) -> None:
        """The pod needs nothing any more."""
        ...


@attrs.frozen(kw_only=True)
class NodeServices:
    """What pod tasks call and share; one for each node, built with keywords.

    `call_seconds` is how long a provider may take for one call, beside a grace period.
    """

    provider: Provider
    client: Client
    writer: StatusWriter
    events: EventRecorder
    metrics: Metrics
    inputs: InputSource
    admission: Admission
    node_ips: Sequence[str]
    history: History
    clock: Clock
    rng: random.Random
    group: asyncio.TaskGroup
    backoff: Backoff = STEPS
    call_seconds: float = CALL_SECONDS
    starting: set[str] = attrs.field(factory=set)
    """UIDs of the pods that have not started, and that the API has not been told of."""

    def pauses(self) -> Pauses:
        """The growing pauses between the tries of one caller, which start over when an outage of the API ends."""
        return self.client.recovery.pauses(self.backoff, self.clock, self.rng)
