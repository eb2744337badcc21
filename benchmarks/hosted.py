"""A host and the agents that have joined it, which run nothing: what each agent costs the host while nothing happens.

The API server is an embedded one in a process of its own; the host has its administrator's credentials.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path
from typing import Any

import attrs
from wasmlet_remote.host.manifests import token

from benchmarks.api import Api, opened
from benchmarks.burst import Figures
from benchmarks.processes import BenchmarkFailed, started
from benchmarks.report import Progress
from wasmlet.kube import load_identity, paths

AGENTS = 50
NAMESPACE = "wasmlet"
READY_SECONDS = 180.0
LOOK_SECONDS = 0.2


@attrs.frozen
class Size:
    """How many agents join, and for how many seconds nothing happens."""

    agents: int
    hold: float


async def hosted(directory: Path, size: Size, progress: Progress) -> Figures:
    """Figures of the host: MiB with and without agents, CPU while nothing happens, seconds until all are Ready."""
    async with (
        started("plane", str(directory / "plane"), "host") as plane,
        opened(await load_identity(Path(plane.said["kubeconfig"]))) as api,
    ):
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        state = directory / "host"
        credentials = (plane.said["kubeconfig"], plane.said["client_ca_file"], str(state))
        async with started("host", *credentials, NAMESPACE) as host:
            empty = host.rss()
            with progress.step(f"{size.agents} agents join"):
                began = time.monotonic()
                text = await _token(api, size.agents)
                arguments = (host.said["url"], text, str(directory / "agents"), str(size.agents))
                async with started("joined", *arguments):
                    await _all_ready(api, size.agents)
                    ready = time.monotonic() - began
                    full, cpu, rested = host.rss(), host.cpu(), time.monotonic()
                    await asyncio.sleep(size.hold)
                    used = 100 * (host.cpu() - cpu) / max(time.monotonic() - rested, 1e-9)
        return {
            "agents": size.agents,
            "all_ready": ready,
            "rss_mib_empty": empty,
            "rss_mib": full,
            "rss_mib_per_agent": (full - empty) / size.agents,
            "idle_cpu_percent": used,
        }


async def _token(api: Api, uses: int) -> str:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    manifest, text = token(NAMESPACE, names="*", uses=uses, expires=until)
    await api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", manifest)
    return text


async def _all_ready(api: Api, agents: int) -> None:
    """Wait for so many nodes that are Ready; looked at now and then, which costs the host nothing.

    Raises:
        BenchmarkFailed: they are not within `READY_SECONDS`.
    """
    count = 0
    try:
        async with asyncio.timeout(READY_SECONDS):
            while count < agents:
                await asyncio.sleep(LOOK_SECONDS)
                count = sum(map(_ready, (await api.call("GET", paths.NODES))["items"]))
    except TimeoutError:
        raise BenchmarkFailed(
            f"expected {agents} nodes that are Ready within {READY_SECONDS:g} s, found {count}"
        ) from None


def _ready(node: Any) -> bool:
    conditions = node["status"].get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def columns(found: Figures) -> dict[str, dict[str, float]]:
    """The figures for a table."""
    return {
        "RSS without agents, MiB": {"host": found["rss_mib_empty"]},
        "RSS, MiB": {"host": found["rss_mib"]},
        "RSS, MiB an agent": {"host": found["rss_mib_per_agent"]},
        "idle, % of a core": {"host": found["idle_cpu_percent"]},
        "until all are Ready, s": {"host": found["all_ready"]},
    }
