"""Pools and what is seen of them, and what the tasks of pools share, for the tests of parts of the operator."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from wasmlet.clock import Pacing
from wasmlet.kube import Client
from wasmlet.kube.events import EventRecorder
from wasmlet.model.quantity import Quantity
from wasmlet.operator.config import OperatorConfig
from wasmlet.operator.fleet import Fleet
from wasmlet.operator.health import Metrics, Pulse
from wasmlet.operator.identity import Approvals
from wasmlet.operator.pool import Pool
from wasmlet.operator.scaling import Waiting
from wasmlet.operator.seen import Member, NodeSeen, PodSeen, Seen, SetSeen
from wasmlet.operator.shared import Shared, Wakes

NEW, OLD = "edge-new", "edge-old"


def pool(name: str = "edge", **spec: Any) -> Pool:
    """A pool as the API server gives it: with the defaults of its schema."""
    given = {"replicas": 1, "provider": "wasmtime", "capacity": {"pods": 250}, **spec}
    metadata = {"name": name, "uid": f"uid-of-{name}", "generation": 1, "resourceVersion": "1"}
    return Pool.of({"metadata": metadata, "spec": given})


def node(ordinal: int, *, ready: bool = True, draining: datetime | None = None, **more: Any) -> NodeSeen:
    given: dict[str, Any] = {
        "name": f"edge-{ordinal}",
        "uid": f"node-{ordinal}",
        "version": "1",
        "ready": ready,
        "since": None,
        "cordoned": draining is not None,
        "draining": draining,
        "program": "wasmlet",
        "pods": Quantity.parse("250"),
        "labels": {"handler.wasmlet.dev/wasmlet": "true"},
        "annotations": {},
        "taints": (),
    }
    return NodeSeen(**(given | more))


def pod(
    ordinal: int, revision: str = NEW, *, ready: bool = True, running: bool = True, ending: bool = False
) -> PodSeen:
    return PodSeen(f"edge-{ordinal}", f"pod-{ordinal}", revision, ready, running, ending, "")


def member(
    ordinal: int,
    revision: str = NEW,
    *,
    ready: bool = True,
    running: bool = True,
    ending: bool = False,
    draining: datetime | None = None,
    has_pod: bool = True,
    has_node: bool = True,
) -> Member:
    """A node of the pool `edge`."""
    return Member(
        ordinal,
        f"edge-{ordinal}",
        pod(ordinal, revision, ready=ready, running=running, ending=ending) if has_pod else None,
        node(ordinal, ready=ready, draining=draining) if has_node else None,
    )


def stateful(replicas: int, revision: str = NEW) -> SetSeen:
    return SetSeen("set", replicas, revision, replicas == 0)


def seen(members: Sequence[Member], replicas: int, revision: str = NEW) -> Seen:
    return Seen(stateful(replicas, revision), list(members))


def shared_of(
    client: Client, namespace: str, fleet: Fleet, events: EventRecorder, wakes: Wakes, pacing: Pacing
) -> Shared:
    """What the tasks of pools share, with the same client for everything."""
    clock, rng = pacing.clock, pacing.rng
    approvals = Approvals(client, namespace, pacing)
    return Shared(
        OperatorConfig(namespace=namespace), client, client, fleet, events, wakes, clock, rng,
        Metrics(), Pulse(clock), Waiting(), approvals,
    )  # fmt: skip
