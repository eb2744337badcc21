"""What a node counts of itself, for Prometheus: retries, latencies, queue lengths, pod phases.

Each node has a registry of its own, so that several in one process do not mix. The node's HTTPS API serves it under
`/metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)


class Metrics:
    """The figures of one node."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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

    def watch(self, unwritten: Callable[[], int], phases: Callable[[], dict[str, int]]) -> None:
        """Say where the figures come from that are looked up when somebody asks."""
        self._unwritten.set_function(unwritten)
        for phase in PHASES:
            self._pods.labels(phase).set_function(partial(_count, phases, phase))

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
        finally:
            self._call_seconds.labels(call).observe(perf_counter() - began)

    def running_after(self, seconds: float) -> None:
        """A pod got to Running that many seconds after it was heard of."""
        self._running_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


def _count(phases: Callable[[], dict[str, int]], phase: str) -> float:
    return phases().get(phase, 0)
