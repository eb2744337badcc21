"""What one pod costs, from its creation to its end: CPU, thread switches and page faults by process, system calls.

A node runs bursts of sleeping pods. What its processes have used is read from /proc before a burst, when all pods run,
and when all are gone; the differences are divided by the number of pods. The first burst warms up and is not counted.
System calls are counted by strace in a burst of their own, since strace makes everything slow. Another node then runs
one pod after the other, to see what happens in which phase (`singles`). Without strace there are no system calls.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs

from benchmarks import singles, strace
from benchmarks.burst import Figures, Load, burst
from benchmarks.cluster import Cluster
from benchmarks.guest import workers
from benchmarks.processes import Process
from benchmarks.report import Progress

PHASES = ("to Running", "to gone")
TRACED_PODS, TRACED_STARTS = 100, 20
WARMING_STARTS = 3
MOST_CALLS = 24
"""How many system calls the table shows, the most frequent ones."""
NODE = "node"
TICKS = os.sysconf("SC_CLK_TCK")
"""The clock ticks in a second, in which /proc gives CPU times."""

Table = dict[str, dict[str, float]]
"""The figures of each row, by column."""


@attrs.frozen
class _Used:
    """What a process and its threads have used since its start, and its ended children for which it waited.

    Attributes:
        cpu: of itself, seconds.
        children: CPU of ended children, seconds, in steps of a hundredth.
        switches: voluntary and involuntary, of the threads that live.
    """

    role: str
    cpu: float
    children: float
    switches: int
    faults: int


def _read(pid: int, role: str) -> _Used | None:
    """What a process has used; None where it has ended."""
    with suppress(OSError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        switches = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                lines = (task / "status").read_text().splitlines()
                switches += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
        return _Used(
            role or Path(f"/proc/{pid}/comm").read_text().strip(),
            time.clock_gettime((~pid << 3) | 2),
            (int(fields[13]) + int(fields[14])) / TICKS,
            switches,
            int(fields[7]),
        )
    return None


def _snapshot(node: Process, state: Path) -> dict[int, _Used]:
    found = {pid: used for pid in workers(state) if (used := _read(pid, "")) is not None}
    own = _read(node.pid, NODE)
    return found if own is None else {node.pid: own, **found}


def _between(before: Mapping[int, _Used], after: Mapping[int, _Used], pods: int) -> Table:
    """By role, what a pod took between two snapshots.

    The CPU of a child that ended between the two counts for its parent, which waited for it. What the child had used
    before the first snapshot is subtracted.
    """
    cpu, switches, faults = defaultdict[str, float](float), Counter[str](), Counter[str]()
    nothing = _Used("", 0.0, 0.0, 0, 0)
    for pid, used in after.items():
        old = before.get(pid, nothing)
        cpu[used.role] += used.cpu - old.cpu
        if used.children > old.children:
            cpu[f"{used.role}'s ended children"] += used.children - old.children
        switches[used.role] += max(0, used.switches - old.switches)
        faults[used.role] += used.faults - old.faults
    gone = sum(old.cpu for pid, old in before.items() if pid not in after)
    parents = [name for name in cpu if name.endswith("'s ended children")]
    for name in parents[:1]:
        cpu[name] = max(0.0, cpu[name] - gone)
    table: Table = {}
    for name, seconds in sorted(cpu.items(), key=lambda item: -item[1]):
        table[name] = {
            "CPU, ms": 1000 * seconds / pods,
            "switches": switches[name] / pods,
            "page faults": faults[name] / pods,
        }
    total = sum(row["CPU, ms"] for row in table.values())
    return {
        **table,
        "all": {"CPU, ms": total, "switches": switches.total() / pods, "page faults": faults.total() / pods},
    }


async def account(cluster: Cluster, load: Load, starts: int, provider: str, progress: Progress) -> dict[str, Table]:
    """What a pod took, by title: `{"to Running": {"node": {"CPU, ms": 1.3, ...}, ...}, ...}`.

    Args:
        starts: how many pods are run one after the other.

    Raises:
        BenchmarkFailed: a pod did not run.
    """
    if not strace.available():
        progress.line("system calls are left out: there is no strace")
    return await _bursts(cluster, load, provider, progress) | await _phases(cluster, load, starts, provider, progress)


async def _bursts(cluster: Cluster, load: Load, provider: str, progress: Progress) -> dict[str, Table]:
    state = cluster.directory / "state"
    async with cluster.running_node(provider, load.pods) as node:
        with progress.step(f"{load.handler}, warming up"):
            await burst(cluster, load, progress, node)
        found: dict[str, Table] = {}
        marks = [_snapshot(node, state)]

        async def mark(_: str) -> Figures:
            marks.append(_snapshot(node, state))
            return {}

        with progress.step(f"{load.handler}, counting"):
            await burst(cluster, load, progress, node, mark)
        marks.append(_snapshot(node, state))
        for phase, before, after in zip(PHASES, marks, marks[1:], strict=False):
            found[f"{phase}, {load.pods} at once"] = _between(before, after, load.pods)
        if strace.available():
            some = attrs.evolve(load, pods=min(load.pods, TRACED_PODS))
            with progress.step(f"{load.handler}, system calls"):
                async with _traced(cluster, node) as made:
                    await burst(cluster, some, progress, node)
            found[f"system calls, {some.pods} at once"] = _by_name(made, some.pods)
        return found


async def _phases(cluster: Cluster, load: Load, starts: int, provider: str, progress: Progress) -> dict[str, Table]:
    marks = cluster.directory / f"phases-{load.handler}"
    async with cluster.running_node(provider, load.pods, phases=marks) as node:
        with progress.step(f"{load.handler}, one after the other"):
            await singles.singles(cluster, load, marks, WARMING_STARTS, progress)
            run = await singles.singles(cluster, load, marks, starts, progress)
        found = singles.table(run)
        if strace.available():
            some = min(starts, TRACED_STARTS)
            with progress.step(f"{load.handler}, one after the other, system calls"):
                async with _traced(cluster, node) as made:
                    run = await singles.singles(cluster, load, marks, some, progress)
            found |= singles.calls(run, made)
        return {f"by phase, {starts} one after the other": found}


@asynccontextmanager
async def _traced(cluster: Cluster, node: Process) -> AsyncIterator[list[strace.Call]]:
    """Have the system calls of the node's processes in the list when the context is over."""
    calls: list[strace.Call] = []
    roles = {pid: used.role for pid, used in _snapshot(node, cluster.directory / "state").items()}
    output = cluster.directory / "calls"
    async with strace.following(roles, output) as threads:
        yield calls
    calls += await asyncio.to_thread(strace.read, output, threads)


def _by_name(calls: Iterable[strace.Call], pods: int) -> Table:
    """System calls of a pod, by name and process, the most frequent ones."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for call in calls:
        found["all"][call.role] += 1
        found[call.name][call.role] += 1
    ranked = sorted(found.items(), key=lambda item: -item[1].total())
    roles = sorted(found["all"])
    return {name: {role: row[role] / pods for role in roles if role in row} for name, row in ranked[: 1 + MOST_CALLS]}
