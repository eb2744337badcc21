"""Where a node's memory goes: imports, the start, and what bursts of a thousand pods add and leave behind.

It is the resident memory (RSS) of a node's process, in which no guest runs, after each step. RSS also counts pages
that the system would take back if it were short of memory.
"""

from __future__ import annotations

import asyncio

from benchmarks.burst import Load, burst
from benchmarks.cluster import Cluster
from benchmarks.report import Progress

SETTLE_SECONDS = 1.0
BURSTS = 5
STEADY = 2
"""After so many bursts memory should be as it stays: what the first one has left is used again."""


async def memory(cluster: Cluster, load: Load, provider: str, progress: Progress) -> dict[str, float]:
    """MiB by step, in the order of the steps."""
    async with cluster.running_node(provider, load.pods) as node:
        found: dict[str, float] = {
            f"with {name}" if place else name: mib for place, (name, mib) in enumerate(node.said["imports"].items())
        }
        await asyncio.sleep(SETTLE_SECONDS)
        found["started, no pods"] = node.rss()
        for number in range(1, BURSTS + 1):
            with progress.step(f"memory, burst {number} of {BURSTS}"):
                figures = await burst(cluster, load, progress, node)
                await asyncio.sleep(SETTLE_SECONDS)
            found[_running(load, number)], found[_gone(number)] = figures["rss_mib"], node.rss()
            progress.line(f"burst {number}: {figures['rss_mib']:.1f} MiB with all Running, {node.rss():.1f} after")
    per = (found[_running(load, 1)] - found["started, no pods"]) * 1000 / load.pods
    growth = (found[_gone(BURSTS)] - found[_gone(STEADY)]) / (BURSTS - STEADY)
    return found | {"that is, per 1000 pods": per, f"growth a burst, after {STEADY} of them": growth}


def _running(load: Load, number: int) -> str:
    return f"{load.pods} pods Running, burst {number}"


def _gone(number: int) -> str:
    return f"all of them gone, burst {number}"
