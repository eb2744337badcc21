"""The Metrics API, metrics.k8s.io: the CPU and memory that nodes and pods use, for `kubectl top` and autoscalers.

The figures come from the kubelets (`kubelets.usage`), in the form in which a cluster's metrics server gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from wasmlet.controlplane.http.paths import Target
from wasmlet.controlplane.kubelets.samples import NODE, Use, Who
from wasmlet.controlplane.kubelets.usage import Usage
from wasmlet.controlplane.objects.pod_rules import TERMINAL
from wasmlet.controlplane.objects.registry import rfc3339
from wasmlet.controlplane.storage import status
from wasmlet.controlplane.storage.kinds import METRICS, Kind, core
from wasmlet.controlplane.storage.selectors import Selector, selector
from wasmlet.controlplane.storage.status import Object
from wasmlet.controlplane.storage.store import Event, Record, Store


class MetricsApi:
    """Answers gets and lists of NodeMetrics and PodMetrics."""

    def __init__(self, store: Store, usage: Usage) -> None:
        self._store = store
        self._usage = usage
        store.listeners.append(self._on_change)

    def _on_change(self, kind: Kind, event: Event) -> None:
        if kind is core("nodes") and event.change == "DELETED":
            self._usage.forget(event.record.name)

    async def close(self) -> None:
        """Close the connections to kubelets."""
        await self._usage.close()

    @staticmethod
    def answers(kind: Kind) -> bool:
        """Whether this class answers for objects of a kind."""
        return kind.group == METRICS

    async def answer(self, target: Target, params: Mapping[str, str]) -> Object:
        """The body of the answer to a get or a list.

        Raises:
            ApiError: 400, a selector cannot be read; 404, there is no such node or pod, or nothing is known of it.
        """
        kind = target.kind
        fields = f"metadata.name={target.name}" if target.name else params.get("fieldSelector", "")
        chosen = selector(kind, target.namespace, params.get("labelSelector", ""), fields)
        items = await (self._of_nodes(chosen) if kind.plural == "nodes" else self._of_pods(chosen))
        for item in items:
            item |= {"kind": kind.kind, "apiVersion": kind.api_version}
        if target.name:
            if not items:
                raise status.not_found(kind, f"{target.namespace}/{target.name}" if kind.namespaced else target.name)
            return items[0]
        return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {}, "items": items}

    def _chosen(self, chosen: Selector, records: Iterable[Record]) -> list[Record]:
        within = (record for record in records if chosen.namespace in ("", record.namespace))
        return sorted((record for record in within if chosen.matches(record.raw)), key=lambda record: record.key)

    async def _of_nodes(self, chosen: Selector) -> list[Object]:
        nodes = self._chosen(chosen, self._store["nodes"])
        found = await self._usage.of(node.name for node in nodes)
        items = []
        for node in nodes:
            if (used := found.get(node.name, {}).get(NODE)) is not None:
                items.append({**_head(node, [used]), "usage": _amounts(used)})
        return items

    async def _of_pods(self, chosen: Selector) -> list[Object]:
        pods = [pod for pod in self._chosen(chosen, self._store["pods"]) if pod.node and not _ended(pod)]
        found = await self._usage.of(pod.node for pod in pods)
        items = []
        for pod in pods:
            used = _containers(pod, found.get(pod.node, {}))
            if used:
                containers = [{"name": name, "usage": _amounts(value)} for name, value in used.items()]
                items.append({**_head(pod, used.values()), "containers": containers})
        return items


def _ended(pod: Record) -> bool:
    return (pod.raw.get("status") or {}).get("phase") in TERMINAL


def _containers(pod: Record, found: Mapping[Who, Use]) -> dict[str, Use]:
    spec = pod.raw["spec"]
    names = [item["name"] for key in ("containers", "initContainers") for item in spec.get(key) or ()]
    used = {name: found.get((pod.namespace, pod.name, name)) for name in names}
    return {name: value for name, value in used.items() if value is not None}


def _head(record: Record, used: Iterable[Use]) -> Object:
    meta = record.raw["metadata"]
    first = min(used, key=lambda one: one.at)
    at = rfc3339(datetime.fromtimestamp(first.at, UTC))
    metadata = {key: meta[key] for key in ("name", "namespace", "labels") if key in meta}
    return {"metadata": {**metadata, "creationTimestamp": at}, "timestamp": at, "window": f"{first.window:.3f}s"}


def _amounts(used: Use) -> Object:
    return {"cpu": f"{round(used.cores * 1e9)}n", "memory": f"{used.memory // 1024}Ki"}
