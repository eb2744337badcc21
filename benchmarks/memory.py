"""Where a node's memory goes: imports, the start, and what a thousand pods add and leave behind.

It is the resident memory (RSS) of a node's process that runs no guests itself, after each step. RSS also counts pages
that the system would take back if it were short of memory.
"""

from __future__ import annotations

import asyncio

from benchmarks.burst import Load, burst
from benchmarks.cluster import Cluster
from benchmarks.report import Progress

SETTLE_SECONDS = 1.0
BURSTS = 2
"""The second burst shows how much of the memory that the first one left is used again."""


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
            again = " again" if number > 1 else ""
            found[f"{load.pods} pods Running{again}"] = figures["rss_mib"]
            found[f"all of them gone{again}"] = node.rss()
            progress.line(f"burst {number}: {figures['rss_mib']:.1f} MiB with all Running, {node.rss():.1f} after")
    per = (found[f"{load.pods} pods Running"] - found["started, no pods"]) * 1000 / load.pods
    return found | {"that is, per 1000 pods": per}
