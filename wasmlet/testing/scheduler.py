"""Puts pods on nodes: the filters of the default scheduler that a node of ours can meet, and the emptiest node wins.

Honoured are nodeSelector and required node affinity, taints and tolerations, unschedulable, NotReady and silent nodes,
and the requests for every resource that a node allots. A pod that fits nowhere gets PodScheduled=False and an event,
and is tried again when a node, a pod or a class changes: nothing polls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from wasmlet.model.event_names import EventNames
from wasmlet.model.placement import ZERO, Amounts, add, amounts, demand, selects, tolerates
from wasmlet.model.times import parse
from wasmlet.testing.kinds import Kind, core
from wasmlet.testing.podops import PodOperations, with_condition
from wasmlet.testing.podrules import TERMINAL
from wasmlet.testing.registry import Call, Registry
from wasmlet.testing.status import ApiError, Object
from wasmlet.testing.store import Event, Record

NAME = "default-scheduler"
_HARD = ("NoSchedule", "NoExecute")
BATCH = 50
"""How many pods are placed before others get their turn on the event loop."""
SILENT = timedelta(seconds=40)
"""A node whose lease is older than this has gone (`--node-monitor-grace-period` of the controller manager)."""


def _renewed(lease: Object) -> datetime | None:
    text = (lease.get("spec") or {}).get("renewTime")
    return parse(text) if text else None


def _taints(node: Object, silent: bool) -> Iterable[Object]:
    """The taints of a node, and those that a cluster's node controller would set."""
    if silent:
        yield {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
    yield from (node.get("spec") or {}).get("taints") or ()
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((item.get("status") for item in conditions if item.get("type") == "Ready"), None)
    if ready != "True":
        yield {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


class _Room:
    """What the pods on each node ask for, kept up to date from changes."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[str, Amounts]] = {}
        self.used: dict[str, Amounts] = {}

    def note(self, record: Record, gone: bool) -> None:
        uid = record.raw["metadata"]["uid"]
        finished = (record.raw.get("status") or {}).get("phase") in TERMINAL
        known = self._of.get(uid)
        if gone or finished or not record.node:
            if known is not None:
                del self._of[uid]
                self._take(known[0], known[1])
        elif known is None:
            amounts = demand(record.raw["spec"])
            self._of[uid] = (record.node, amounts)
            add(self.used.setdefault(record.node, {}), amounts)

    def _take(self, node: str, amounts: Amounts) -> None:
        add(self.used[node], {name: -amount for name, amount in amounts.items()})
        if not self.used[node].get("pods"):
            del self.used[node]


class Scheduler:
    """Run it with `run`; it listens to the store from the start."""

    def __init__(self, registry: Registry, operations: PodOperations) -> None:
        self._registry = registry
        self._store = registry.store
        self._operations = operations
        self._names = EventNames()
        self._room = _Room()
        self._queue: dict[tuple[str, str], None] = {}
        self._stuck: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        record = event.record
        if kind.plural == "pods":
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
        elif kind.plural == "nodes":
            self._retry()
        elif kind.plural == "leases" and event.old is not None and self._stuck:
            before, after = _renewed(event.old.raw), _renewed(record.raw)
            if before is not None and after is not None and after - before > SILENT:
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
            return  # somebody else bound or deleted it
        where = f"{record.namespace}/{record.name}"
        self._event(record, "Normal", "Scheduled", "Binding", f"Successfully assigned {where} to {best[1]}")

    def _reasons(self, spec: Object, wanted: Amounts, node: Object) -> list[str]:
        """Why a pod cannot go to a node; empty if it can."""
        if (node.get("spec") or {}).get("unschedulable"):
            taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
            if not any(tolerates(item, taint) for item in spec.get("tolerations") or ()):
                return ["node(s) were unschedulable"]
        for taint in _taints(node, self._silent(node["metadata"]["name"])):
            if taint.get("effect") in _HARD and not any(
                tolerates(item, taint) for item in spec.get("tolerations") or ()
            ):
                return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value', '')}}}"]
        if not selects(spec, node):
            return ["node(s) didn't match Pod's node affinity/selector"]
        room = amounts((node.get("status") or {}).get("allocatable"))
        used = self._room.used.get(node["metadata"]["name"], {})
        return [
            "Too many pods" if name == "pods" else f"Insufficient {name}"
            for name, amount in sorted(wanted.items())
            if amount > 0 and used.get(name, ZERO) + amount > room.get(name, ZERO)
        ]

    def _silent(self, node: str) -> bool:
        """Whether a node that had a lease no longer renews it."""
        lease = self._store["leases"].get("kube-node-lease", node)
        renewed = _renewed(lease.raw) if lease is not None else None
        return renewed is not None and self._registry.clock.now() - renewed > SILENT

    def _report(self, record: Record, reason: str, message: str, event: bool) -> None:
        """Say in the pod's status, and in an event, why it has no node yet; nothing if that was said already."""
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
            self._event(record, "Warning", "FailedScheduling", "Scheduling", message)

    def _event(self, record: Record, kind: str, reason: str, action: str, message: str) -> None:
        now = self._registry.clock.now()
        meta = record.raw["metadata"]
        body = {
            "metadata": {"name": self._names.next(record.name, now)},
            "involvedObject": {
                "kind": "Pod",
                "apiVersion": "v1",
                "namespace": record.namespace,
                "name": record.name,
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "action": action,
            "message": message,
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "firstTimestamp": None,
            "lastTimestamp": None,
            "source": {},
            "reportingComponent": NAME,
            "reportingInstance": f"{NAME}-wasmlet",
        }
        try:
            self._registry.create(Call(core("events"), record.namespace), body)
        except ApiError:
            return  # the namespace is on its way out: nobody is left to read it
