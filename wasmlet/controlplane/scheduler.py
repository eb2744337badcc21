"""The scheduler: binds pods to nodes, by those filters of the default scheduler that matter here.

Of the nodes that fit, it takes the one that uses the smallest share of its room for pods.

The filters are nodeSelector and required node affinity, taints and tolerations, unschedulable and NotReady nodes, the
requests for each resource that a node has, and host ports. A pod for which no node fits gets PodScheduled=False and an
Event. It is tried again when a node changes or a pod ends; nothing polls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from wasmlet.controlplane.controllers.lifecycle import NOT_READY
from wasmlet.controlplane.controllers.recorder import Recorder
from wasmlet.controlplane.objects.conditions import with_condition
from wasmlet.controlplane.objects.pod_operations import PodOperations
from wasmlet.controlplane.objects.pod_rules import TERMINAL
from wasmlet.controlplane.objects.registry import Registry
from wasmlet.controlplane.storage.kinds import Kind, core
from wasmlet.controlplane.storage.status import ApiError, Object
from wasmlet.controlplane.storage.store import Event, Record
from wasmlet.model.host_ports import CONFLICT, TakenPorts
from wasmlet.model.placement import ZERO, Amounts, add, amounts, demand, selects, tolerates

NAME = "default-scheduler"
_HARD = ("NoSchedule", "NoExecute")
BATCH = 50
"""How many pods are placed before others get their turn on the event loop."""


def _taints(node: Object) -> Iterable[Object]:
    """The taints of a node, and the one that `controllers.lifecycle` will give a node that is not Ready."""
    yield from (node.get("spec") or {}).get("taints") or ()
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((item.get("status") for item in conditions if item.get("type") == "Ready"), None)
    if ready != "True":
        yield {"key": NOT_READY, "effect": "NoSchedule"}


class _Room:
    """The resources and ports that the pods on each node have, kept up to date from the store's changes."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[str, Amounts]] = {}
        self.used: dict[str, Amounts] = {}
        self._ports: dict[str, TakenPorts] = {}

    def ports(self, node: str) -> TakenPorts:
        """The host ports of a node that its pods have."""
        return self._ports.setdefault(node, TakenPorts())

    def note(self, record: Record, gone: bool) -> None:
        uid = record.raw["metadata"]["uid"]
        finished = (record.raw.get("status") or {}).get("phase") in TERMINAL
        known = self._of.get(uid)
        if gone or finished or not record.node:
            if known is not None:
                del self._of[uid]
                self.ports(known[0]).free(uid)
                self._take(known[0], known[1])
        elif known is None:
            amounts = demand(record.raw["spec"])
            self._of[uid] = (record.node, amounts)
            self.ports(record.node).take(uid, record.raw["spec"])
            add(self.used.setdefault(record.node, {}), amounts)

    def _take(self, node: str, amounts: Amounts) -> None:
        add(self.used[node], {name: -amount for name, amount in amounts.items()})
        if not self.used[node].get("pods"):
            del self.used[node]


class Scheduler:
    """Places pods. `run` does so; it follows the store from its construction."""

    def __init__(self, registry: Registry, operations: PodOperations) -> None:
        self._registry = registry
        self._store = registry.store
        self._operations = operations
        self._events = Recorder(registry, NAME)
        self._room = _Room()
        self._queue: dict[tuple[str, str], None] = {}
        self._stuck: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.key == "pods":
            self._room.note(record, event.change == "DELETED")
            if event.change == "DELETED" or record.node:
                self._queue.pop(record.key, None)
                self._stuck.pop(record.key, None)
                finished = (record.raw.get("status") or {}).get("phase") in TERMINAL
                if event.change == "DELETED" or finished:
                    self._retry()
            elif event.change == "ADDED" or self._spec_changed(event):
                self._queue[record.key] = None
                self._wake.set()
        elif kind.key == "nodes":
            self._retry()

    @staticmethod
    def _spec_changed(event: Event) -> bool:
        return event.old is not None and event.old.raw["spec"] != event.record.raw["spec"]

    def _retry(self) -> None:
        if self._stuck:
            self._queue |= self._stuck
            self._stuck.clear()
            self._wake.set()

    async def run(self) -> None:
        """Place pods until cancelled."""
        done = 0
        while True:
            while self._queue:
                key = next(iter(self._queue))
                del self._queue[key]
                record = self._store["pods"].get(*key)
                if record is not None and not record.node:
                    self._place(record)
                done += 1
                if done % BATCH == 0:
                    await asyncio.sleep(0)
            self._wake.clear()
            await self._wake.wait()

    def _place(self, record: Record) -> None:
        spec = record.raw["spec"]
        if spec.get("schedulerName") != NAME or "deletionTimestamp" in record.raw["metadata"]:
            return
        if spec.get("schedulingGates"):
            self._report(record, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates", False)
            return
        wanted = demand(spec)
        why: Counter[str] = Counter()
        best: tuple[Decimal, str] | None = None
        nodes = sorted(self._store["nodes"], key=lambda node: node.name)
        for node in nodes:
            reasons = self._reasons(spec, wanted, node.raw)
            if reasons:
                why.update(reasons)
                continue
            room = amounts((node.raw.get("status") or {}).get("allocatable"))
            used = self._room.used.get(node.name, {}).get("pods", ZERO)
            score = used / (room.get("pods") or Decimal(110))
            if best is None or score < best[0]:
                best = (score, node.name)
        if best is None:
            if nodes:
                listed = ", ".join(f"{count} {reason}" for reason, count in sorted(why.items()))
                message = f"0/{len(nodes)} nodes are available: {listed}."
            else:
                message = "no nodes available to schedule pods"
            self._stuck[record.key] = None
            self._report(record, "Unschedulable", message, True)
            return
        try:
            self._operations.bind(record, best[1])
        except ApiError:
            return  # it was bound or deleted meanwhile
        where = f"{record.namespace}/{record.name}"
        self._events.tell(record, "Normal", "Scheduled", f"Successfully assigned {where} to {best[1]}", "Binding")

    def _reasons(self, spec: Object, wanted: Amounts, node: Object) -> list[str]:
        """Why a pod cannot go to a node; empty if it can."""
        if (node.get("spec") or {}).get("unschedulable"):
            taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
            if not any(tolerates(item, taint) for item in spec.get("tolerations") or ()):
                return ["node(s) were unschedulable"]
        for taint in _taints(node):
            if taint.get("effect") in _HARD and not any(
                tolerates(item, taint) for item in spec.get("tolerations") or ()
            ):
                return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value', '')}}}"]
        if not selects(spec, node):
            return ["node(s) didn't match Pod's node affinity/selector"]
        if self._room.ports(node["metadata"]["name"]).conflict(spec):
            return [CONFLICT]
        room = amounts((node.get("status") or {}).get("allocatable"))
        used = self._room.used.get(node["metadata"]["name"], {})
        return [
            "Too many pods" if name == "pods" else f"Insufficient {name}"
            for name, amount in sorted(wanted.items())
            if amount > 0 and used.get(name, ZERO) + amount > room.get(name, ZERO)
        ]

    def _report(self, record: Record, reason: str, message: str, event: bool) -> None:
        """Write to the pod's status, and to an Event, why it has no node yet, unless that is written already."""
        status = dict(record.raw.get("status") or {})
        old: dict[str, Any] = next(
            (item for item in status.get("conditions") or () if item.get("type") == "PodScheduled"), {}
        )
        if (old.get("reason"), old.get("message")) == (reason, message):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": self._registry.now(),
            "observedGeneration": record.raw["metadata"].get("generation", 1),
        }
        status["conditions"] = with_condition(status.get("conditions"), condition)
        self._store.write(core("pods"), {**record.raw, "status": status})
        if event:
            self._events.tell(record, "Warning", "FailedScheduling", message, "Scheduling")
