"""Keeps what `wasmlet top` shows of the nodes of wasmlet and of their pods, with the help of two reflectors.

Only what is shown of an object is kept, since a cluster may have many more pods than those of wasmlet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import attrs

from wasmlet.controlplane.http.tables import cells
from wasmlet.model.pod import Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.times import parse

NODE_LABEL = "wasmlet.dev/provider"


@attrs.frozen(kw_only=True)
class NodeRow:
    """A node.

    Attributes:
        status: as kubectl shows it: `Ready`, `NotReady,SchedulingDisabled`.
        pods, cpu, memory: what the node can give to pods: a number of pods, cores, bytes.
    """

    name: str
    provider: str
    status: str
    pods: int
    cpu: float
    memory: int
    created: datetime

    @property
    def ready(self) -> bool:
        return self.status.partition(",")[0] == "Ready"


@attrs.frozen(kw_only=True)
class PodRow:
    """A pod.

    Attributes:
        node: "" where it has none yet.
        ready, status: as kubectl shows them.
        start: seconds from its creation to the start of its last container; None before that, and after a restart,
            when the API does not have the first start any more.
        ours: it asks for a RuntimeClass of wasmlet's.
    """

    namespace: str
    name: str
    node: str
    phase: str
    ready: str
    status: str
    restarts: int
    start: float | None
    created: datetime
    ours: bool


def node_row(node: Raw, now: datetime) -> NodeRow:
    """The row of a Node."""
    have = node.get("status", {}).get("allocatable") or {}
    amounts = {name: Quantity.parse(have.get(name, 0)).value for name in ("pods", "cpu", "memory")}
    metadata = node["metadata"]
    return NodeRow(
        name=metadata["name"],
        provider=metadata.get("labels", {}).get(NODE_LABEL, ""),
        status=cells("nodes", dict(node), now)[1],
        pods=int(amounts["pods"]),
        cpu=float(amounts["cpu"]),
        memory=int(amounts["memory"]),
        created=parse(metadata["creationTimestamp"]),
    )


def pod_row(pod: Raw, now: datetime) -> PodRow:
    """The row of a Pod."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    _, ready, shown, restarts, *_ = cells("pods", dict(pod), now)
    created = parse(metadata["creationTimestamp"])
    return PodRow(
        namespace=metadata["namespace"],
        name=metadata["name"],
        node=spec.get("nodeName") or "",
        phase=status.get("phase") or "Pending",
        ready=ready,
        status=shown,
        restarts=int(restarts.partition(" ")[0]),
        start=_start(status, created),
        created=created,
        ours=str(spec.get("runtimeClassName") or "").startswith("wasmlet"),
    )


def _start(status: Raw, created: datetime) -> float | None:
    started = []
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        since = (state.get("running") or state.get("terminated") or {}).get("startedAt")
        if not since or container.get("restartCount"):
            return None
        started.append(parse(since))
    return max(0.0, (max(started) - created).total_seconds()) if started else None


class Rows:
    """Keeps the rows of one kind. A handler of `wasmlet.kube.reflector`.

    Args:
        row: makes one of an object.
        changed: called after each change.
    """

    def __init__(self, row: Callable[[Raw, datetime], Any], now: Callable[[], datetime], changed: Callable[[], None]):
        self._row = row
        self._now = now
        self._changed = changed
        self.rows: dict[str, Any] = {}
        """By UID."""
        self.known = False
        """There has been a list."""

    def synced(self, items: Sequence[dict[str, Any]]) -> None:
        now = self._now()
        self.rows = {item["metadata"]["uid"]: self._row(item, now) for item in items}
        self.known = True
        self._changed()

    def applied(self, item: dict[str, Any]) -> None:
        self.rows[item["metadata"]["uid"]] = self._row(item, self._now())
        self._changed()

    def deleted(self, item: dict[str, Any]) -> None:
        self.rows.pop(item["metadata"]["uid"], None)
        self._changed()


@attrs.frozen
class Snapshot:
    """What is shown: nodes by name, their pods, and those that wait for a node of ours."""

    nodes: Sequence[NodeRow]
    pods: Sequence[PodRow]

    @classmethod
    def of(cls, nodes: Sequence[NodeRow], pods: Sequence[PodRow]) -> Snapshot:
        names = {node.name for node in nodes}
        ours = [pod for pod in pods if pod.node in names or (pod.ours and not pod.node)]
        return cls(sorted(nodes, key=lambda node: node.name), ours)
