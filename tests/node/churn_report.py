"""What a churn did, what was wrong, and what the node's process keeps of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import structlog

from wasmlet.node import assembly
from wasmlet.node.pods.pod_task import PodTask
from wasmlet.node.services import NodeServices

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


@asynccontextmanager
async def quiet(report: Report, call_seconds: float) -> AsyncIterator[None]:
    """The last lines of the log go to the report alone; calls of the provider take so many seconds at most."""
    before = structlog.get_config()

    def keep(logger: Any, level: str, event: dict[str, Any]) -> Any:
        event.pop("exc_info", None)
        report.log.append(f"{time.monotonic():.3f} {level} {event.pop('event')} {event}")
        raise structlog.DropEvent

    structlog.configure(processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    normal = assembly.NodeServices
    assembly.NodeServices = partial(NodeServices, call_seconds=call_seconds)  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        assembly.NodeServices = normal  # type: ignore[misc]
        structlog.configure(**before)
