"""What a churn did, what was wrong, and what the node's process keeps of it."""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
from collections import deque
from pathlib import Path

import attrs

from wasmlet.node.pods.pod_task import PodTask

LOG_LINES = 400


@attrs.define
class Report:
    """What a churn did, and what was wrong."""

    seed: int
    wrong: list[str] = attrs.field(factory=list)
    counts: dict[str, int] = attrs.field(factory=dict)
    memory: list[tuple[float, float]] = attrs.field(factory=list)
    """Seconds since the start and resident MiB, from after the warm-up."""
    log: deque[str] = attrs.field(factory=lambda: deque(maxlen=LOG_LINES), repr=False)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    @property
    def growth(self) -> float:
        """By how many MiB memory has grown since the warm-up; medians, since a store being restored is there twice."""
        sizes = [size for _, size in self.memory]
        return statistics.median(sizes[-3:]) - statistics.median(sizes[:3])


def pod_tasks() -> list[PodTask]:
    """All that there are in this process."""
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, PodTask)]


def described(task: PodTask) -> str:
    """Which pod a task is for, and what it is at."""
    known = {name.lstrip("_"): value for name, value in vars(task).items() if isinstance(value, bool) and value}
    stack = [work.get_coro() for work in asyncio.all_tasks() if getattr(work.get_coro(), "cr_frame", None)]
    waits = [coro.cr_await for coro in stack if coro.cr_frame.f_locals.get("self") is task]
    return f"{task.key.name} ({task.key.uid}) is {vars(task)['_stage'].value} {' '.join(known)}, waits for {waits}"


def resident() -> float:
    """Resident memory of this process in MiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: the most there ever was, in bytes
    return pages * resource.getpagesize() / 2**20
