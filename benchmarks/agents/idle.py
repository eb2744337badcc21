"""A process that keeps many things (pools, agents) while nothing happens: its memory and CPU, and the cost of each.

The API server is an embedded one in a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks.api import Api, opened
from benchmarks.burst import Figures
from benchmarks.processes import BenchmarkFailed, Process, started
from wasmlet.kube import load_identity

NAMESPACE = "wasmlet"
PATIENCE_SECONDS = 180.0
LOOK_SECONDS = 0.2
REST_SECONDS = 3.0
"""The pause before measuring, after which the work that was just started is done."""


@attrs.frozen
class Size:
    """How many things the process keeps, and for how many seconds nothing happens."""

    count: int
    hold: float


@asynccontextmanager
async def plane(directory: Path, name: str) -> AsyncIterator[tuple[Mapping[str, Any], Api]]:
    """An embedded API server with `NAMESPACE`: what its process reported, and an administrator's client."""
    async with (
        started("plane", str(directory / "plane"), name) as process,
        opened(await load_identity(Path(process.said["kubeconfig"]))) as api,
    ):
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        yield process.said, api


async def reached(count: int, look: Callable[[], Awaitable[int]], what: str) -> None:
    """Wait until `look` finds `count`; it asks the API server only, so the measured process is not disturbed.

    Args:
        what: what is counted, for the error message.

    Raises:
        BenchmarkFailed: it did not find as many within `PATIENCE_SECONDS`.
    """
    found = -1
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while found < count:
                await asyncio.sleep(LOOK_SECONDS)
                found = await look()
    except TimeoutError:
        raise BenchmarkFailed(f"expected {count} {what} within {PATIENCE_SECONDS:g} s, found {found}") from None


async def resting(process: Process, size: Size, empty: float, reached_after: float) -> Figures:
    """The figures of a process that keeps `size.count` things, all of which exist now.

    Args:
        empty: its memory before they existed, in MiB.
        reached_after: seconds until all existed.
    """
    await asyncio.sleep(REST_SECONDS)
    full, cpu, rested = process.rss(), process.cpu(), time.monotonic()
    await asyncio.sleep(size.hold)
    used = 100 * (process.cpu() - cpu) / max(time.monotonic() - rested, 1e-9)
    return {
        "count": size.count,
        "all_there": reached_after,
        "rss_mib_empty": empty,
        "rss_mib": full,
        "rss_mib_each": (full - empty) / size.count,
        "idle_cpu_percent": used,
    }


def columns(found: Figures, who: str, each: str) -> dict[str, dict[str, float]]:
    """The figures for a table.

    Args:
        who: the name of the process that keeps them.
        each: the words for one of them, such as "an agent".
    """
    return {
        "RSS without, MiB": {who: found["rss_mib_empty"]},
        "RSS, MiB": {who: found["rss_mib"]},
        f"RSS, MiB {each}": {who: found["rss_mib_each"]},
        "idle, % of a core": {who: found["idle_cpu_percent"]},
        "until all are there, s": {who: found["all_there"]},
    }
