"""What the controller manager does about nodes: it notices silent ones, taints them, and says so in their pods.

A node shows that it lives when it writes its Ready condition or renews its lease. After a silence longer than the grace
period, the conditions that a kubelet owns become Unknown. Taints follow the conditions: `not-ready` or `unreachable`,
each with NoSchedule and NoExecute, and those of pressure and of a cordon with NoSchedule. The Ready condition of the
node's pods becomes False. What a node writes when it is back removes all of this, except for its pods' conditions,
which the node itself has to write. `eviction` acts on NoExecute taints.

The rules are those of kubernetes/pkg/controller/nodelifecycle, without zones: taints come at once, however many nodes
are silent. So a test can do with one node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import attrs

from wasmlet.clock import Clock
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.controllers.timers import Timers
from wasmlet.controlplane.objects.conditions import with_condition
from wasmlet.controlplane.objects.registry import Registry
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Record
from wasmlet.model.times import parse

GRACE_SECONDS = 50.0
"""`--node-monitor-grace-period` of the controller manager since Kubernetes 1.32."""
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
_OWNED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_TAINTS = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_MANAGED = {
    *((key, "NoSchedule") for key in (*_TAINTS.values(), _UNSCHEDULABLE)),
    (NOT_READY, "NoExecute"),
    (UNREACHABLE, "NoExecute"),
}


def conditions(node: Object) -> list[Object]:
    """The conditions of a node."""
    return list((node.get("status") or {}).get("conditions") or ())


def condition(node: Object, kind: str) -> Object | None:
    """A node's condition of that type."""
    return next((item for item in conditions(node) if item.get("type") == kind), None)


def _wanted(node: Object) -> list[tuple[str, str]]:
    """Key and effect of each taint that a node's conditions and its cordon call for."""
    out = []
    for item in conditions(node):
        key = _TAINTS.get((str(item.get("type")), str(item.get("status"))))
        if key is not None:
            out.append((key, "NoSchedule"))
            if key in (NOT_READY, UNREACHABLE):
                out.append((key, "NoExecute"))
    if (node.get("spec") or {}).get("unschedulable"):
        out.append((_UNSCHEDULABLE, "NoSchedule"))
    return out


@attrs.define
class _Health:
    """What was last heard of a node."""

    ready: Object | None
    renewed: str = ""


class NodeLifecycle:
    """Watches nodes. `run` does so; it follows the store from its construction.

    Args:
        grace: for how many seconds a node may be silent.
    """

    def __init__(self, registry: Registry, clock: Clock, grace: float = GRACE_SECONDS) -> None:
        self._registry = registry
        self._store = registry.store
        self._grace = grace
        self._events = Recorder(registry, "node-controller")
        self._silent: Timers[str] = Timers(clock)
        self._health: dict[str, _Health] = {}
        self._changed: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == "nodes":
            if event.change == "DELETED":
                self._health.pop(record.name, None)
                self._silent.cancel(record.name)
                return
            ready = condition(record.raw, "Ready")
            health = self._health.get(record.name)
            if health is None or health.ready != ready:
                self._hear(record.name, ready)
            self._changed[record.name] = None
            self._wake.set()
        elif kind.key == "leases" and record.namespace == "kube-node-lease" and event.change != "DELETED":
            health = self._health.get(record.name)
            renewed = str((record.raw.get("spec") or {}).get("renewTime") or "")
            if health is not None and renewed and (not health.renewed or parse(renewed) > parse(health.renewed)):
                health.renewed = renewed
                self._silent.set(record.name, self._grace)

    def _hear(self, name: str, ready: Object | None) -> None:
        known = self._health.get(name)
        self._health[name] = _Health(ready, known.renewed if known else "")
        self._silent.set(name, self._grace)

    async def run(self) -> None:
        """Follow nodes until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._watch_for_silence())

    async def _follow(self) -> None:
        """Set the taints of each node that changed, by its conditions."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._changed:
                name = next(iter(self._changed))
                del self._changed[name]
                self._settle(name)
                await asyncio.sleep(0)

    async def _watch_for_silence(self) -> None:
        while True:
            name = await self._silent.next()
            node = self._store["nodes"].get("", name)
            if node is not None:
                self._give_up(node)
            await asyncio.sleep(0)

    # -- a node that changed

    def _settle(self, name: str) -> None:
        """Taint a node as its conditions say; where it is not Ready, its pods are not either."""
        node = self._store["nodes"].get("", name)
        if node is None:
            return
        spec = node.raw.get("spec") or {}
        have = spec.get("taints") or []
        wanted = _wanted(node.raw)
        kept = [taint for taint in have if not _managed(taint) or _identity(taint) in wanted]
        there = {_identity(taint) for taint in kept}
        now = self._registry.now()
        added = [
            {"key": key, "effect": effect, "timeAdded": now} for key, effect in wanted if (key, effect) not in there
        ]
        if added or len(kept) != len(have):
            new_spec: dict[str, Any] = {**spec, "taints": [*kept, *added]}
            if not new_spec["taints"]:
                del new_spec["taints"]
            node = self._store.write(core("nodes"), {**node.raw, "spec": new_spec})
            if _cleared(added) and not _cleared(have):
                self._not_ready(node)

    def _not_ready(self, node: Record) -> None:
        """Write that a node and its pods are not ready."""
        self._events.tell(node, "Normal", "NodeNotReady", f"Node {node.name} status is now: NodeNotReady")
        for pod in self._store["pods"].on_node(node.name):
            status = pod.raw.get("status") or {}
            ready = next((item for item in status.get("conditions") or () if item.get("type") == "Ready"), None)
            if ready is None or ready.get("status") == "False":
                continue
            told = {**ready, "status": "False", "lastTransitionTime": self._registry.now()}
            new = {**status, "conditions": with_condition(status["conditions"], told)}
            marked = self._store.write(core("pods"), {**pod.raw, "status": new})
            self._events.tell(marked, "Warning", "NodeNotReady", "Node is not ready")

    # -- a node that fell silent

    def _give_up(self, node: Record) -> None:
        """Set the conditions that were not renewed within the grace period to Unknown."""
        status = node.raw.get("status") or {}
        now = self._registry.now()
        items = conditions(node.raw)
        for kind in _OWNED:
            known = next((item for item in items if item.get("type") == kind), None)
            if known is not None and known.get("status") == "Unknown":
                continue
            reason, message = "NodeStatusUnknown", "The node has stopped to report its status."
            if known is None:
                reason, message = "NodeStatusNeverUpdated", "The node has never reported this."
            heard = (known or {}).get("lastHeartbeatTime") or node.raw["metadata"]["creationTimestamp"]
            items = with_condition(
                items,
                {
                    "type": kind,
                    "status": "Unknown",
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": heard,
                    "lastTransitionTime": now,
                },
            )
        if items == conditions(node.raw):
            return
        new = {**node.raw, "status": {**status, "conditions": items}}
        # Noted here, so that this controller's own write does not count as a sign of life of the node.
        self._health[node.name].ready = condition(new, "Ready")
        self._store.write(core("nodes"), new)


def _identity(taint: Object) -> tuple[str, str]:
    return str(taint.get("key")), str(taint.get("effect"))


def _managed(taint: Object) -> bool:
    return _identity(taint) in _MANAGED


def _cleared(taints: Iterable[Object]) -> bool:
    """Whether one of the taints is `not-ready` or `unreachable` with NoExecute."""
    return any(_identity(taint) in ((NOT_READY, "NoExecute"), (UNREACHABLE, "NoExecute")) for taint in taints)
