"""What a node counts of itself, for Prometheus: retries, latencies, queue lengths, pod phases.

Each node has a registry of its own, so that several in one process do not mix. The node's HTTPS API serves it under
`/metrics`. What a kubelet counts too has its names beside ours, for the boards and alerts that people have; what there
is none of here (PLEG, a manager of control groups) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

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
        self._start_seconds = Histogram(
            "kubelet_pod_start_duration_seconds",
            "From hearing of a pod to its phase Running in the API.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._operations = Counter(
            "kubelet_runtime_operations", "Calls to the provider.", ["operation_type"], registry=self.registry
        )
        self._operation_errors = Counter(
            "kubelet_runtime_operations_errors",
            "Calls to the provider that failed.",
            ["operation_type"],
            registry=self.registry,
        )
        self._operation_seconds = Histogram(
            "kubelet_runtime_operations_duration_seconds",
            "Time of a call to the provider.",
            ["operation_type"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def watch(
        self,
        unwritten: Callable[[], int],
        phases: Callable[[], dict[str, int]],
        containers: Callable[[], dict[str, int]],
    ) -> None:
        """Say where the figures come from that are looked up when somebody asks.

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
        self._operations.labels(call).inc()
        try:
            yield
        except Exception:
            self._operation_errors.labels(call).inc()
            raise
        finally:
            seconds = perf_counter() - began
            self._call_seconds.labels(call).observe(seconds)
            self._operation_seconds.labels(call).observe(seconds)

    def running_after(self, seconds: float) -> None:
        """A pod got to Running that many seconds after it was heard of."""
        self._running_seconds.observe(seconds)
        self._start_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


def _count(counted: Numbers, what: str) -> float:
    return counted().get(what, 0)
