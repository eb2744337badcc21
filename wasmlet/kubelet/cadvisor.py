"""`/metrics/cadvisor`: the container metrics that dashboards and alerts read, made from the provider's Summary.

A Summary is what `/stats/summary` answers (`wasmlet.kubelet.stats`). Names and labels are cAdvisor's, as a kubelet
serves them: a series for each container, with its image, and one for the pod as a whole, without container and image.
Figures that a Summary lacks are left out, and so is what WebAssembly programs do not have, such as devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wasmlet.kubelet.pods import PodView
from wasmlet.kubelet.stats import text_of
from wasmlet.model.pod import Raw
from wasmlet.model.quantity import Quantity
from wasmlet.model.times import parse

_LABELS = ["container", "id", "image", "name", "namespace", "pod"]
_PERIOD = 100_000
"""Microseconds of `cpu.cfs_period_us`, in which a container's quota is counted."""

Known = Callable[[str, str, str], PodView | None]
"""Finds a pod by namespace, name and UID."""


class _Families:
    """The families, in the order in which they are shown."""

    def __init__(self) -> None:
        gauge, counter = self._gauge, self._counter
        self.cpu = counter("cpu_usage_seconds", "Cumulative cpu time consumed in seconds.", "cpu")
        self.working_set = gauge("memory_working_set_bytes", "Current working set in bytes.")
        self.rss = gauge("memory_rss", "Size of RSS in bytes.")
        self.usage = gauge("memory_usage_bytes", "Current memory usage in bytes, including all memory.")
        self.start = gauge("start_time_seconds", "Start time of the container since unix epoch in seconds.")
        self.last_seen = gauge("last_seen", "Last time a container was seen by the exporter.")
        self.memory_limit = gauge("spec_memory_limit_bytes", "Memory limit for the container, 0 for none.")
        self.cpu_quota = gauge("spec_cpu_quota", "CPU quota of the container in microseconds of a period.")
        self.cpu_period = gauge("spec_cpu_period", "CPU period of the container in microseconds.")
        self.disk = gauge("fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.")

    @staticmethod
    def _gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"container_{name}", text, labels=_LABELS)

    @staticmethod
    def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(f"container_{name}", text, labels=[*_LABELS, *labels])

    def all(self) -> Iterable[Metric]:
        return vars(self).values()


def cadvisor_metrics(summary: Raw | None, known: Known, machine: Raw) -> bytes:
    """The text of `/metrics/cadvisor`.

    Args:
        summary: the provider's Summary; None if it could not be had because of an error.
        known: finds a pod that the node has, for images, ids and limits.
        machine: the capacity of the node, resource name to quantity.
    """
    families, error = _Families(), summary is None
    if summary is not None:
        try:
            for pod in summary.get("pods") or ():
                _pod(families, pod, known)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            error = True  # not a Summary: what was read before that is still true
    whole: list[Metric] = [
        GaugeMetricFamily(
            "container_scrape_error",
            "1 if there was an error while getting container metrics, 0 otherwise",
            value=float(error),
        )
    ]
    for name, resource, text in (
        ("machine_cpu_cores", "cpu", "Number of logical CPU cores."),
        ("machine_memory_bytes", "memory", "Amount of memory installed on the machine."),
    ):
        if resource in machine:
            whole.append(GaugeMetricFamily(name, text, value=float(Quantity.parse(machine[resource]).value)))
    return text_of([*families.all(), *whole])


def _pod(families: _Families, stats: Raw, known: Known) -> None:
    reference = stats["podRef"]
    name, namespace, uid = str(reference["name"]), str(reference["namespace"]), str(reference.get("uid") or "")
    view = known(namespace, name, uid)
    group = f"/kubepods/pod{uid}"
    for container in stats.get("containers") or ():
        called = str(container["name"])
        status = view.status.container(called) if view is not None and view.status is not None else None
        spec = view.pod.container(called) if view is not None else None
        image = (status.image if status is not None else "") or (spec.image if spec is not None else "")
        instance = (status.container_id if status is not None else "").rpartition("://")[2] or called
        labels = [called, f"{group}/{instance}", image, instance, namespace, name]
        _figures(families, labels, container)
        if spec is not None:
            _limits(families, labels, spec.resources.get("limits") or {})
    _figures(families, ["", group, "", "", namespace, name], stats)


def _figures(families: _Families, labels: list[str], stats: Raw) -> None:
    cpu, memory = stats.get("cpu") or {}, stats.get("memory") or {}
    if (used := cpu.get("usageCoreNanoSeconds")) is not None:
        families.cpu.add_metric([*labels, "total"], float(used) * 1e-9, timestamp=_at(cpu))
    for family, key in (
        (families.working_set, "workingSetBytes"),
        (families.rss, "rssBytes"),
        (families.usage, "usageBytes"),
    ):
        if memory.get(key) is not None:
            family.add_metric(labels, float(memory[key]), timestamp=_at(memory))
    if (disk := (stats.get("rootfs") or {}).get("usedBytes")) is not None:
        families.disk.add_metric(labels, float(disk))
    if started := stats.get("startTime"):
        families.start.add_metric(labels, parse(started).timestamp())
    if (seen := _at(cpu) or _at(memory)) is not None:
        families.last_seen.add_metric(labels, seen)


def _limits(families: _Families, labels: list[str], limits: Raw) -> None:
    memory = Quantity.parse(limits["memory"]).units() if "memory" in limits else 0
    families.memory_limit.add_metric(labels, float(memory))
    families.cpu_period.add_metric(labels, _PERIOD)
    if "cpu" in limits:
        cores = float(Quantity.parse(limits["cpu"]).value)
        families.cpu_quota.add_metric(labels, round(cores * _PERIOD))


def _at(stats: Any) -> float | None:
    """When it was measured."""
    return parse(stats["time"]).timestamp() if stats.get("time") else None
