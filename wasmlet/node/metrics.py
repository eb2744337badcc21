"""What a node counts of itself, for Prometheus: retries, latencies, queue lengths, pod phases.

Each node has a registry of its own, so that several in one process do not mix. The node's HTTPS API serves it under
`/metrics`. Metrics that a kubelet has, too, are also there under the kubelet's names, for existing dashboards and
alerts. A kubelet's metrics about things that do not exist here (PLEG, the manager of control groups) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import perf_counter

import attrs
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # each is a series more, that nobody reads

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
STATES = ("created", "running", "exited")
"""Of containers, in the kubelet's words."""
_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)

Numbers = Callable[[], dict[str, int]]


class Metrics:
    """What one node counts; `wasmlet.node.figures` adds to its registry what is looked up at each scrape."""

    def __init__(self, node_name: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._make_own()
        self._make_kubelets(node_name)

    def _make_own(self) -> None:
        self.retries = Counter(
            "wasmlet_pod_retries", "Steps of pods that failed and are tried again.", registry=self.registry
        )
        self.status_retries = Counter(
            "wasmlet_status_write_retries", "Status writes that failed and are tried again.", registry=self.registry
        )
        self._status_seconds = Histogram(
            "wasmlet_status_write_seconds",
            "Time of a write of a pod's status to the API server.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._call_seconds = Histogram(
            "wasmlet_provider_call_seconds",
            "Time of a call to the provider.",
            ["call"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._running_seconds = Histogram(
            "wasmlet_pod_running_seconds",
            "From hearing of a pod to its phase Running in the API.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._unwritten = Gauge(
            "wasmlet_unwritten_statuses", "Pods whose status the API does not have yet.", registry=self.registry
        )
        self._pods = Gauge("wasmlet_pods", "Pods of this node by phase.", ["phase"], registry=self.registry)

    def _make_kubelets(self, node_name: str) -> None:
        """Those that a kubelet has, by its names."""
        Gauge("kubelet_node_name", "The node's name; the value is 1.", ["node"], registry=self.registry).labels(
            node_name
        ).set(1)
        self._running_pods = Gauge("kubelet_running_pods", "Number of pods that run.", registry=self.registry)
        self._containers = Gauge(
            "kubelet_running_containers", "Number of containers by state.", ["container_state"], registry=self.registry
        )
        self._operation_errors = Counter(
            "kubelet_runtime_operations_errors",
            "Calls to the provider that failed.",
            ["operation_type"],
            registry=self.registry,
        )
        for renamed in (
            _Renamed(
                self._running_seconds,
                "kubelet_pod_start_duration_seconds",
                "From hearing of a pod to its phase Running in the API.",
            ),
            _Renamed(
                self._call_seconds, "kubelet_runtime_operations_duration_seconds", "Time of a call to the provider."
            ),
            _Counted(self._call_seconds, "kubelet_runtime_operations", "Calls to the provider."),
        ):
            self.registry.register(renamed)

    def watch(
        self,
        unwritten: Callable[[], int],
        phases: Callable[[], dict[str, int]],
        containers: Callable[[], dict[str, int]],
    ) -> None:
        """Set the functions that give the figures which are looked up at each scrape.

        Args:
            containers: how many there are in each of `STATES`.
        """
        self._unwritten.set_function(unwritten)
        self._running_pods.set_function(partial(_count, phases, "Running"))
        for phase in PHASES:
            self._pods.labels(phase).set_function(partial(_count, phases, phase))
        for state in STATES:
            self._containers.labels(state).set_function(partial(_count, containers, state))

    @contextmanager
    def status_write(self) -> Iterator[None]:
        """Times one write."""
        began = perf_counter()
        try:
            yield
        finally:
            self._status_seconds.observe(perf_counter() - began)

    @contextmanager
    def provider_call(self, call: str) -> Iterator[None]:
        """Times one call to the provider, as `create_pod`."""
        began = perf_counter()
        try:
            yield
        except Exception:
            self._operation_errors.labels(call).inc()
            raise
        finally:
            self._call_seconds.labels(call).observe(perf_counter() - began)

    def running_after(self, seconds: float) -> None:
        """A pod got to Running that many seconds after it was heard of."""
        self._running_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


def _count(counted: Numbers, what: str) -> float:
    return counted().get(what, 0)


_KUBELETS = {"call": "operation_type"}
"""Labels of ours, and what a kubelet calls them."""


@attrs.frozen
class _Renamed(Collector):
    """A histogram under the name that a kubelet has for it, made when somebody asks."""

    _source: Histogram
    _name: str
    _help: str

    def collect(self) -> Iterator[Metric]:
        for metric in self._source.collect():
            renamed = Metric(self._name, self._help, metric.type)
            for sample in metric.samples:
                name = self._name + sample.name.removeprefix(metric.name)
                renamed.add_sample(name, _kubelets(sample.labels), sample.value)
            yield renamed


@attrs.frozen
class _Counted(Collector):
    """How often a histogram has been observed, as the counter that a kubelet has for it."""

    _source: Histogram
    _name: str
    _help: str

    def collect(self) -> Iterator[Metric]:
        for metric in self._source.collect():
            counted = CounterMetricFamily(self._name, self._help)
            for sample in metric.samples:
                if sample.name == f"{metric.name}_count":
                    counted.add_sample(f"{self._name}_total", _kubelets(sample.labels), sample.value)
            yield counted


def _kubelets(labels: Mapping[str, str]) -> dict[str, str]:
    return {_KUBELETS.get(key, key): value for key, value in labels.items()}
