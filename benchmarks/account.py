"""What one pod costs, from its creation to its end: CPU, thread switches and page faults by process, system calls.

A node runs bursts of sleeping pods. What its processes have used is read from /proc before a burst, when all pods run,
and when all are gone; the differences are divided by the number of pods. The first burst warms up and is not counted.
System calls are counted by strace in a burst of their own, since strace makes everything slow; without strace there is
no such table.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs

from benchmarks.burst import Figures, Load, burst
from benchmarks.cluster import Cluster
from benchmarks.guest import workers
from benchmarks.processes import BenchmarkFailed, Process
from benchmarks.report import Progress

PHASES = ("to Running", "to gone")
TRACED_PODS = 100
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


async def account(cluster: Cluster, load: Load, provider: str, progress: Progress) -> dict[str, Table]:
    """By phase, what a pod took: `{"to Running": {"node": {"CPU, ms": 1.3, ...}, ...}, ...}`, and system calls.

    Raises:
        BenchmarkFailed: a pod did not run.
    """
    state = cluster.directory / "state"
    async with cluster.running_node(provider, load.pods) as node:
        with progress.step("warming up"):
            await burst(cluster, load, progress, node)
        found: dict[str, Table] = {}
        marks = [_snapshot(node, state)]

        async def mark(_: str) -> Figures:
            marks.append(_snapshot(node, state))
            return {}

        with progress.step("counting"):
            await burst(cluster, load, progress, node, mark)
        marks.append(_snapshot(node, state))
        for phase, before, after in zip(PHASES, marks, marks[1:], strict=False):
            found[phase] = _between(before, after, load.pods)
        calls = await _traced(cluster, attrs.evolve(load, pods=min(load.pods, TRACED_PODS)), node, state, progress)
        return found | ({"system calls, to Running and gone": calls} if calls else {})


async def _traced(cluster: Cluster, load: Load, node: Process, state: Path, progress: Progress) -> Table:
    """System calls of a pod, by name and process; {} without strace."""
    strace = shutil.which("strace")
    if strace is None:
        progress.line("system calls are left out: there is no strace")
        return {}
    table: Table = {}
    async with AsyncExitStack() as stack:
        outputs = {}
        for pid, used in _snapshot(node, state).items():
            outputs[pid] = used.role, cluster.directory / f"calls-{pid}"
            await stack.enter_async_context(_counting(strace, pid, outputs[pid][1]))
        with progress.step("system calls"):
            await burst(cluster, load, progress, node)
    for role, path in outputs.values():
        for name, count in _calls(path).items():
            row = table.setdefault(name, {})
            row[role] = row.get(role, 0.0) + count / load.pods
    ranked = sorted(table.items(), key=lambda item: -sum(item[1].values()))
    roles = sorted({role for _, row in ranked for role in row})
    whole = {role: sum(row.get(role, 0.0) for _, row in ranked) for role in roles}
    return {"all": whole} | dict(ranked[:MOST_CALLS])


@asynccontextmanager
async def _counting(strace: str, pid: int, output: Path) -> AsyncIterator[None]:
    """Count the system calls of a process and of those that it starts, while the context is open."""
    command = (strace, "--follow-forks", "--summary-only", "--output", str(output), "--attach", str(pid))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    line = await process.stderr.readline()  # it says so when it is attached
    if b"attached" not in line:
        raise BenchmarkFailed(f"strace could not follow process {pid}: {line.decode().strip()}")
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


def _calls(path: Path) -> dict[str, int]:
    """Calls by name, of what strace wrote."""
    found = {}
    for line in path.read_text().splitlines()[2:]:
        words = line.split()
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            found[words[-1]] = int(words[3])
    return found
