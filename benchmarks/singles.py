"""One pod after the other, from its creation to its removal, phase by phase: time, CPU, and what is done in each.

The node marks the phases itself (`phases`); it is asked for nothing while they last. The time and the CPU of a phase
are medians, since a node also does what belongs to no pod (its lease, its status). What is counted is divided by the
number of pods. System calls are counted on another set of pods, under strace, which makes everything slow.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import attrs

from benchmarks import phases
from benchmarks.burst import Load, Seen, cause, have_class, watched
from benchmarks.cluster import Cluster
from benchmarks.phases import Mark, Marks
from benchmarks.processes import BenchmarkFailed
from benchmarks.report import Found, Progress
from benchmarks.strace import Call
from wasmlet.model.times import parse
from wasmlet.runtime.logs.files import of_pod

PAUSE_SECONDS = 0.1
"""Before a pod is deleted, and after it is gone: then the node has sent the pod's events."""
FIRST_BYTE_SECONDS = 10.0
LOOK_SECONDS = 0.002

FIRST_BYTE = "first byte"
ASLEEP, AFTER, ALL = "asleep", "after", "all"
PHASES = {
    "watch to create": (phases.SEEN, phases.CREATE),
    "volumes": (phases.CREATE, phases.IMAGE),
    "compile cache": (phases.IMAGE, phases.START),
    "start": (phases.START, phases.STARTED),
    "running status": (phases.STARTED, phases.RUNNING),
    ASLEEP: (phases.RUNNING, phases.DELETING),
    "end": (phases.DELETING, phases.ENDED),
    "removal": (phases.ENDED, phases.GONE),
    AFTER: (phases.GONE, phases.SEEN),
}
"""Each phase with its borders; the last one ends when the next pod comes."""
WAITS = frozenset({ASLEEP, AFTER})
"""The phases that last as long as the benchmark pauses."""
COLUMNS = (*tuple(PHASES)[:4], FIRST_BYTE, *tuple(PHASES)[4:], ALL)
Spans = Mapping[str, Sequence[tuple[Mark, Mark]]]
"""By phase, its beginning and its end with each pod."""


@attrs.frozen
class Run:
    """Some pods that ran one after the other.

    Attributes:
        pods: the marks of each.
        first_bytes: seconds from the request to the shim to the first line in the log, of each.
    """

    pods: Sequence[Marks]
    first_bytes: Sequence[float]


async def singles(cluster: Cluster, load: Load, marks: Path, count: int, progress: Progress) -> Run:
    """Run `count` pods one after the other, on a node that was started with the same `marks`.

    Raises:
        BenchmarkFailed: a pod did not run.
    """
    if load.handler:
        await have_class(cluster.api, load.handler)
    before = len(phases.read(marks))
    written: list[float] = []
    try:
        async with (
            cluster.namespace(f"bench-{os.getpid()}-{time.monotonic_ns() % 10**9}") as pods,
            asyncio.TaskGroup() as group,
            progress.counting("pods", count, lambda: len(written)),
        ):
            for number in range(count):
                written.append(await _single(cluster, load, group, pods, f"p-{number:05}"))
    except BaseExceptionGroup as error:
        raise cause(error) from None
    found = phases.read(marks)[before:]
    if len(found) != count or any(marks.keys() != set(phases.BORDERS) for marks in found):
        lacking = sorted({border for marks in found for border in set(phases.BORDERS) - marks.keys()})
        raise BenchmarkFailed(f"expected the phases of {count} pods, found those of {len(found)}, without {lacking}")
    return Run(found, [at - marks[phases.START].at for at, marks in zip(written, found, strict=True)])


async def _single(cluster: Cluster, load: Load, group: asyncio.TaskGroup, pods: str, name: str) -> float:
    """Run one pod. Returns when it wrote the first line of its log, in seconds since 1970."""
    seen = Seen(1)
    async with watched(cluster.api, group, pods, seen, None):
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": load.spec(cluster.node)}
        uid = (await cluster.api.call("POST", pods, body))["metadata"]["uid"]
        await seen.until_running()
        log = cluster.directory / "state" / "runtime" / f"{of_pod(uid)}c.0.log"
        first = await _first_line(log)
        await asyncio.sleep(PAUSE_SECONDS)
        await cluster.api.call("DELETE", f"{pods}/{name}")
        await seen.until_gone()
    await asyncio.sleep(PAUSE_SECONDS)
    return first


async def _first_line(log: Path) -> float:
    """The time in the first line of a log, once there is one."""
    until = time.monotonic() + FIRST_BYTE_SECONDS
    while time.monotonic() < until:
        if text := await asyncio.to_thread(_text, log):
            return parse(text.partition(" ")[0]).timestamp()
        await asyncio.sleep(LOOK_SECONDS)
    raise BenchmarkFailed(f"expected a line in {log} within {FIRST_BYTE_SECONDS:g} s, found none")


def _text(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def table(run: Run) -> Found:
    """Time, CPU, and what is counted in the node's process, by phase; of time, `ALL` leaves out the pauses."""
    spans = _spans(run.pods)
    took = {name: _median([b.at - a.at for a, b in pairs]) for name, pairs in spans.items()}
    took[ALL] = sum(value for name, value in took.items() if name not in WAITS)
    took[FIRST_BYTE] = _median(run.first_bytes)
    node = {name: _median([b.node - a.node for a, b in pairs]) for name, pairs in spans.items()}
    shim = {name: _median([b.shim - a.shim for a, b in pairs]) for name, pairs in spans.items()}
    found: Found = {"time, p50, ms": _ordered(took), "CPU of the node, p50, ms": _summed(node)}
    found["CPU of the shim, p50, ms"] = _summed(shim)
    counted: Found = defaultdict(dict)
    for name, pairs in spans.items():
        counts = Counter[str]()
        for begin, end in pairs:
            counts.update(end.counts)
            counts.subtract(begin.counts)
        for what, count in counts.items():
            if count:
                counted[what][name] = count / len(pairs)
    return found | {what: _summed(counted[what]) for what in sorted(counted)}


def calls(run: Run, made: Iterable[Call]) -> Found:
    """System calls by process, and what they make and remove, by phase."""
    spans = _spans(run.pods)
    borders = sorted((begin.at, name) for name, pairs in spans.items() for begin, _ in pairs)
    last = max(end.at for pairs in spans.values() for _, end in pairs)
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for call in made:
        place = bisect_right(borders, call.at, key=lambda border: border[0])
        if not place or call.at > last:
            continue
        name = borders[place - 1][1]
        counted[f"system calls: {call.role}"][name] += 1
        if call.effect:
            counted[call.effect][name] += 1
    return {
        what: _summed({name: count / len(spans[name]) for name, count in counted[what].items()})
        for what in sorted(counted)
    }


def _spans(pods: Sequence[Marks]) -> Spans:
    spans = {
        name: [(marks[begin], marks[end]) for marks in pods] for name, (begin, end) in PHASES.items() if name != AFTER
    }
    return spans | {AFTER: [(one[phases.GONE], following[phases.SEEN]) for one, following in pairwise(pods)]}


def _median(seconds: Sequence[float]) -> float:
    """In milliseconds."""
    return 1000 * statistics.median(seconds)


def _summed(row: Mapping[str, float]) -> dict[str, float]:
    return _ordered({**row, ALL: sum(row.values())})


def _ordered(row: Mapping[str, float]) -> dict[str, float]:
    return {name: row[name] for name in COLUMNS if name in row}
