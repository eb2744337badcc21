"""The CPU and memory that the reference provider reports, made up or set by a test, as `/stats/summary` has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs

from wasmlet.model.pod import PodKey, Raw
from wasmlet.model.status import PodStatus, Running
from wasmlet.model.times import rfc3339

SHARE = 0.01
"""The share of a core that a container uses, unless a test sets its usage."""


@attrs.frozen
class Usage:
    """What one container has used.

    Attributes:
        cpu_seconds: of processor time since its start; None means a hundredth of its age.
        memory_bytes: its working set.
    """

    cpu_seconds: float | None = None
    memory_bytes: int = 4 * 2**20


def summary(pods: Iterable[tuple[PodKey, PodStatus]], usage: Mapping[tuple[str, str], Usage], now: datetime) -> Raw:
    """A Summary (`stats/v1alpha1`) of the containers that run.

    Args:
        usage: by the pod's UID and the container's name.
    """
    items, total_cpu, total_memory, begun = [], 0.0, 0, now
    for key, status in pods:
        containers, pod_cpu, pod_memory = [], 0.0, 0
        for container in status.containers:
            if not isinstance(container.state, Running):
                continue
            started = container.state.started_at
            used = usage.get((key.uid, container.name), Usage())
            cpu = (now - started).total_seconds() * SHARE if used.cpu_seconds is None else used.cpu_seconds
            containers.append({"name": container.name} | _figures(cpu, used.memory_bytes, started, now))
            pod_cpu, pod_memory = pod_cpu + cpu, pod_memory + used.memory_bytes
        if containers:
            begin = status.start_time or now
            reference = {"name": key.name, "namespace": key.namespace, "uid": key.uid}
            items.append({"podRef": reference, "containers": containers} | _figures(pod_cpu, pod_memory, begin, now))
            total_cpu, total_memory, begun = total_cpu + pod_cpu, total_memory + pod_memory, min(begun, begin)
    return {"node": _figures(total_cpu, total_memory, begun, now), "pods": items}


def _figures(cpu_seconds: float, memory_bytes: int, started: datetime, now: datetime) -> dict[str, Any]:
    age = max((now - started).total_seconds(), 1e-3)
    time = rfc3339(now)
    return {
        "startTime": rfc3339(started),
        "cpu": {
            "time": time,
            "usageNanoCores": int(cpu_seconds / age * 1e9),
            "usageCoreNanoSeconds": int(cpu_seconds * 1e9),
        },
        "memory": {"time": time, "workingSetBytes": memory_bytes, "usageBytes": memory_bytes, "rssBytes": memory_bytes},
    }
