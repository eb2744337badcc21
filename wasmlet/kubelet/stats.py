"""`/stats/summary` and `/metrics/resource`: what the provider measures, for autoscalers, `kubectl top` and dashboards.

The provider gives a Summary (`stats/v1alpha1`); the metrics are the kubelet's, made from it, with the time of each
measurement beside it, which metrics-server computes rates from. Figures that a Summary lacks are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wasmlet.model.pod import Raw
from wasmlet.model.times import parse
from wasmlet.provider import ProbeCount

SECONDS = 10.0
"""How long a provider may take to measure."""
_NANO = 1e-9
_POD = ["pod", "namespace"]
_CONTAINER = ["container", *_POD]


def completed(summary: Raw, node_name: str) -> Raw:
    """The Summary with the parts that the API's type always has."""
    return {
        **summary,
        "node": {"nodeName": node_name, **(summary.get("node") or {})},
        "pods": summary.get("pods") or [],
    }


def only_cpu_and_memory(summary: Raw) -> Raw:
    """What a kubelet answers to `?only_cpu_and_memory=true`."""

    def kept(item: Raw, *keys: str) -> Raw:
        return {key: item[key] for key in (*keys, "startTime", "cpu", "memory") if key in item}

    pods = [
        {**kept(pod, "podRef"), "containers": [kept(container, "name") for container in pod.get("containers") or ()]}
        for pod in summary["pods"]
    ]
    return {"node": kept(summary["node"], "nodeName"), "pods": pods}


@attrs.frozen
class _Families:
    """Metric families as a registry hands them to the text format."""

    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def text_of(families: Iterable[Metric]) -> bytes:
    """Prometheus' text format, version 0.0.4."""
    return generate_latest(_Families(families))


def resource_metrics(summary: Raw | None) -> bytes:
    """The text of `/metrics/resource`; `summary` is None if it could not be had because of an error."""
    families = _ResourceMetrics()
    error = summary is None
    if summary is not None:
        try:
            families.node(summary.get("node") or {})
            for pod in summary.get("pods") or ():
                families.pod(pod)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            error = True  # not a Summary: what was read before that is still true
    return text_of(families.all(error))


class _ResourceMetrics:
    def __init__(self) -> None:
        cpu, memory, swap = "cpu time consumed by the", "working set of the", "swap usage of the"
        self._node_cpu = CounterMetricFamily("node_cpu_usage_seconds", f"Cumulative {cpu} node in core-seconds")
        self._node_memory = GaugeMetricFamily("node_memory_working_set_bytes", f"Current {memory} node in bytes")
        self._node_swap = GaugeMetricFamily("node_swap_usage_bytes", f"Current {swap} node in bytes")
        self._pod_cpu = CounterMetricFamily(
            "pod_cpu_usage_seconds", f"Cumulative {cpu} pod in core-seconds", labels=_POD
        )
        self._pod_memory = GaugeMetricFamily(
            "pod_memory_working_set_bytes", f"Current {memory} pod in bytes", labels=_POD
        )
        self._pod_swap = GaugeMetricFamily("pod_swap_usage_bytes", f"Current {swap} pod in bytes", labels=_POD)
        self._cpu = CounterMetricFamily(
            "container_cpu_usage_seconds", f"Cumulative {cpu} container in core-seconds", labels=_CONTAINER
        )
        self._memory = GaugeMetricFamily(
            "container_memory_working_set_bytes", f"Current {memory} container in bytes", labels=_CONTAINER
        )
        self._swap = GaugeMetricFamily(
            "container_swap_usage_bytes", f"Current {swap} container in bytes", labels=_CONTAINER
        )
        self._start = GaugeMetricFamily(
            "container_start_time_seconds",
            "Start time of the container since unix epoch in seconds",
            labels=_CONTAINER,
        )

    def node(self, stats: Raw) -> None:
        _add(self._node_cpu, [], stats.get("cpu"), "usageCoreNanoSeconds", _NANO)
        _add(self._node_memory, [], stats.get("memory"), "workingSetBytes")
        _add(self._node_swap, [], stats.get("swap"), "swapUsageBytes")

    def pod(self, stats: Raw) -> None:
        labels = [str(stats["podRef"]["name"]), str(stats["podRef"]["namespace"])]
        for container in stats.get("containers") or ():
            names = [str(container["name"]), *labels]
            if started := container.get("startTime"):
                self._start.add_metric(names, parse(started).timestamp())
            _add(self._cpu, names, container.get("cpu"), "usageCoreNanoSeconds", _NANO)
            _add(self._memory, names, container.get("memory"), "workingSetBytes")
            _add(self._swap, names, container.get("swap"), "swapUsageBytes")
        _add(self._pod_cpu, labels, stats.get("cpu"), "usageCoreNanoSeconds", _NANO)
        _add(self._pod_memory, labels, stats.get("memory"), "workingSetBytes")
        _add(self._pod_swap, labels, stats.get("swap"), "swapUsageBytes")

    def all(self, error: bool) -> Iterator[Metric]:
        yield from (self._start, self._cpu, self._memory, self._swap, self._node_cpu, self._node_memory)
        yield from (self._node_swap, self._pod_cpu, self._pod_memory, self._pod_swap)
        help_text = "1 if there was an error while getting container metrics, 0 otherwise"
        for name in ("resource_scrape_error", "scrape_error"):
            yield GaugeMetricFamily(name, help_text, value=float(error))


def _add(
    family: CounterMetricFamily | GaugeMetricFamily, labels: list[str], stats: Any, key: str, factor: float = 1.0
) -> None:
    """A sample, where there is a figure for it, with the time at which it was measured."""
    if stats is None or stats.get(key) is None:
        return
    measured = parse(stats["time"]).timestamp() if stats.get("time") else None
    family.add_metric(labels, float(stats[key]) * factor, timestamp=measured)


def probe_metrics(counts: Mapping[ProbeCount, int]) -> bytes:
    """`/metrics/probes`: how often probes succeeded and failed."""
    total = CounterMetricFamily(
        "prober_probe",
        "Cumulative number of a liveness, readiness or startup probe for a container by result.",
        labels=["probe_type", "result", "container", "pod", "namespace", "pod_uid"],
    )
    for count, number in counts.items():
        pod = count.pod
        total.add_metric([count.kind, count.result, count.container, pod.name, pod.namespace, pod.uid], number)
    return text_of([total])
