"""A node with sleeping pods while nothing happens: the CPU and the memory of all its processes.

The node sends the events of a burst at 50 a second, so those of a thousand pods take a minute. Only when they are sent
does the pause begin in which nothing happens.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import attrs

from benchmarks.api import Api
from benchmarks.burst import Figures, Load, burst
from benchmarks.cluster import Cluster
from benchmarks.guest import group_memory, workers
from benchmarks.processes import BenchmarkFailed, Process
from benchmarks.report import Progress

LOOK_SECONDS = 1.0
QUIET_LOOKS = 5
"""After so many looks without a new event all are sent; a node that has events to send sends some in each second."""
PATIENCE_SECONDS = 600.0
NODE = "node"


@attrs.frozen
class _Rig:
    cluster: Cluster
    node: Process
    hold: float
    progress: Progress


async def asleep(
    cluster: Cluster, load: Load, provider: str, hold: float, progress: Progress
) -> dict[str, dict[str, float]]:
    """The figures of sleeping pods, by row and column: `{"all, % of a core": {"node": 0.1, ...}, ...}`.

    Args:
        hold: for how many seconds nothing happens.

    Raises:
        BenchmarkFailed: a pod did not run, or the node's events had no end.
    """
    found: dict[str, dict[str, float]] = {}
    state = cluster.directory / "state"
    async with cluster.running_node(provider, load.pods) as node:
        rig = _Rig(cluster, node, hold, progress)
        before = await asyncio.to_thread(group_memory, state)

        async def rest(namespace: str) -> Figures:
            found.update(await _rest(rig, namespace))
            after = await asyncio.to_thread(group_memory, state)
            if before is not None and after is not None:
                found["memory of its workers, with the kernel's, KiB a pod"] = {"all": (after - before) / load.pods}
            return {}

        with progress.step("asleep"):
            await burst(cluster, load, progress, node, rest)
    return found


async def _rest(rig: _Rig, namespace: str) -> dict[str, dict[str, float]]:
    waited, state = time.monotonic(), rig.cluster.directory / "state"
    await _events_sent(rig.cluster.api, f"{namespace}/events")
    waited = time.monotonic() - waited
    rig.progress.line(f"asleep: all events are sent after {waited:.0f} s; resting for {rig.hold:g} s")
    before, begin = await asyncio.to_thread(_cpu, rig.node, state), time.monotonic()
    await asyncio.sleep(rig.hold)
    passed, after = time.monotonic() - begin, await asyncio.to_thread(_cpu, rig.node, state)
    used = defaultdict[str, float](float)
    for pid, (role, seconds) in after.items():
        used[role] += 100 * (seconds - before.get(pid, (role, 0.0))[1]) / max(passed, 1e-9)
    return {
        "CPU, % of a core": {"all": sum(used.values()), **dict(sorted(used.items()))},
        "RSS, MiB": {NODE: rig.node.rss()},
        "until all events are sent, s": {NODE: waited},
    }


async def _events_sent(api: Api, events: str) -> None:
    """Wait until the namespace gets no new events."""
    count, quiet = -1, 0
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while quiet < QUIET_LOOKS:
                await asyncio.sleep(LOOK_SECONDS)
                answer = await api.call("GET", f"{events}?limit=1")
                now = len(answer["items"]) + answer["metadata"].get("remainingItemCount", 0)
                count, quiet = now, quiet + 1 if now == count else 0
    except TimeoutError:
        raise BenchmarkFailed(f"expected an end of the node's events within {PATIENCE_SECONDS:g} s") from None


def _cpu(node: Process, state: Path) -> Mapping[int, tuple[str, float]]:
    """The role of each process of the node, and the seconds of CPU that it has used."""
    found = {node.pid: (NODE, node.cpu())}
    for pid in workers(state):
        try:
            role = Path(f"/proc/{pid}/comm").read_text().strip()
            found[pid] = role, time.clock_gettime((~pid << 3) | 2)
        except OSError:
            continue  # it has just ended
    return found
