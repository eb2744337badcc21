"""Reads a kubelet's answer at `/metrics/resource`, and works out the use between two of these answers."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from prometheus_client.parser import text_string_to_metric_families

Who = tuple[str, str, str]
"""Namespace, pod and container; three empty texts are the node itself."""
NODE: Who = ("", "", "")
_CPU = {"node_cpu_usage_seconds_total", "container_cpu_usage_seconds_total"}
_MEMORY = {"node_memory_working_set_bytes", "container_memory_working_set_bytes"}
_START = "container_start_time_seconds"


@attrs.frozen
class Sample:
    """What one part of a node (the node itself or a container) has used so far.

    Attributes:
        cpu: core-seconds since it started.
        at: when they were counted, in seconds since 1970.
        memory: the working set in bytes.
        start: when it started, in seconds since 1970; 0 where that is not known.
    """

    cpu: float
    at: float
    memory: int
    start: float = 0.0


@attrs.frozen
class Use:
    """What one part of a node uses: cores over a window of seconds that ends at `at`, and bytes at that time."""

    cores: float
    memory: int
    at: float
    window: float


Samples = Mapping[Who, Sample]


def read(text: str, now: float) -> Samples:
    """The samples in an answer; `now` is their time where it says none.

    Raises:
        ValueError: it is not in Prometheus' text format.
    """
    cpu: dict[Who, tuple[float, float]] = {}
    memory: dict[Who, int] = {}
    start: dict[Who, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            who = (labels.get("namespace", ""), labels.get("pod", ""), labels.get("container", ""))
            if sample.name in _CPU:
                cpu[who] = (sample.value, float(sample.timestamp) if sample.timestamp is not None else now)
            elif sample.name in _MEMORY:
                memory[who] = int(sample.value)
            elif sample.name == _START:
                start[who] = sample.value
    return {
        who: Sample(value, at, memory[who], start.get(who, 0.0)) for who, (value, at) in cpu.items() if who in memory
    }


def use(before: Sample | None, after: Sample) -> Use | None:
    """The use between two samples, or since a start that came later; None where it cannot be known."""
    if before is not None and before.start == after.start and before.at < after.at and before.cpu <= after.cpu:
        window, cpu = after.at - before.at, after.cpu - before.cpu
    elif after.start and after.start < after.at and (before is None or before.start != after.start):
        window, cpu = after.at - after.start, after.cpu
    else:
        return None
    return Use(cpu / window, after.memory, after.at, window)
