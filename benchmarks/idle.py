"""One process and the many that it keeps, while nothing happens: what it takes, and what each of them adds.

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
"""What has just been done is over by then."""


@attrs.frozen
class Size:
    """How many there are, and for how many seconds nothing happens."""

    count: int
    hold: float


@asynccontextmanager
async def plane(directory: Path, name: str) -> AsyncIterator[tuple[Mapping[str, Any], Api]]:
    """An API server with the namespace; what it says of itself, and its administrator's requests."""
    async with (
        started("plane", str(directory / "plane"), name) as process,
        opened(await load_identity(Path(process.said["kubeconfig"]))) as api,
    ):
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        yield process.said, api


async def reached(count: int, look: Callable[[], Awaitable[int]], what: str) -> None:
    """Wait until there are so many; looked at now and then, which costs the process nothing.

    Args:
        what: they are, for the error.

    Raises:
        BenchmarkFailed: there are not within `PATIENCE_SECONDS`.
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
    """The figures of a process that has `size.count` to keep, all of which are there.

    Args:
        empty: its memory before they were, MiB.
        reached_after: seconds until they were.
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
        who: keeps them.
        each: one of them, as "an agent".
    """
    return {
        "RSS without, MiB": {who: found["rss_mib_empty"]},
        "RSS, MiB": {who: found["rss_mib"]},
        f"RSS, MiB {each}": {who: found["rss_mib_each"]},
        "idle, % of a core": {who: found["idle_cpu_percent"]},
        "until all are there, s": {who: found["all_there"]},
    }
