"""A node whose pods run behind an agent, compared with a node that runs them itself.

Node and agent speak TLS on loopback, with certificates on both sides, as in real use. `creates` measures one pod at a
time, without a node loop; `bursts` uses whole nodes, by turns: once with pods that are only simulated, so that the ways
to them are compared and nothing else, and once with an engine, as users have it; `_idle` measures node and agent when
nothing happens.
"""

from __future__ import annotations

import asyncio
import datetime
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from wasmlet_agent.keys import make_keys
from wasmlet_remote import Config, RemoteProvider

import wasmlet
from benchmarks.burst import Figures, Load, burst, quantile
from benchmarks.cluster import open_cluster
from benchmarks.processes import Process, started
from benchmarks.report import Progress
from wasmlet.testing import ReferenceProvider

LOCAL, REMOTE = "local", "remote"
MOST = 200
"""Pods in a burst."""
_NODE = "bench-remote"


@asynccontextmanager
async def running_agent(
    directory: Path, provider: str = ReferenceProvider.name
) -> AsyncIterator[tuple[Process, dict[str, Path | str]]]:
    """An agent in a process of its own, and the settings for the provider that uses it."""
    keys = directory / "keys"
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    await asyncio.to_thread(make_keys, keys, ["127.0.0.1"], until)
    async with started("agent", provider, str(directory / "agent"), str(keys)) as agent:
        yield (
            agent,
            {
                "endpoint": str(agent.said["url"]),
                "tls_ca_file": keys / "ca.crt",
                "tls_cert_file": keys / "client.crt",
                "tls_key_file": keys / "client.key",
            },
        )


async def creates(directory: Path, settings: Mapping[str, Any], starts: int) -> dict[str, Figures]:
    """Milliseconds until `create_pod` returns, one pod at a time, both providers by turns."""
    providers: dict[str, wasmlet.Provider] = {
        LOCAL: ReferenceProvider(),
        REMOTE: RemoteProvider(Config(**settings)),
    }
    times: dict[str, list[float]] = {who: [] for who in providers}
    try:
        for provider in providers.values():
            await provider.start(wasmlet.NodeContext(_NODE, "127.0.0.1", 10 * starts, directory))
        for number in range(starts):
            for who, provider in providers.items():
                pod = _pod(number)
                began = time.monotonic()
                await provider.create_pod(pod, wasmlet.Inputs())
                times[who].append(1000 * (time.monotonic() - began))
                await provider.delete_pod(pod.key, 0)
    finally:
        for provider in providers.values():
            await provider.stop()
    return {
        who: {"p50": quantile(sorted(found), 0.5), "p99": quantile(sorted(found), 0.99)} for who, found in times.items()
    }


@attrs.frozen
class Size:
    """How much is measured: rounds of a burst, pods that start one at a time, and seconds of idling."""

    rounds: int
    starts: int
    hold: float


@attrs.frozen
class Compared:
    """The rounds of bursts, and what node and agent cost when nothing happens after them."""

    rounds: list[dict[str, Figures]]
    idle: dict[str, Figures]


async def remote(
    directory: Path, load: Load, size: Size, progress: Progress, engine: tuple[str, str] | None
) -> dict[str, Any]:
    """Measure everything. Returns the figures by who has them, and the rounds of the bursts.

    Args:
        engine: a provider and the image of its pods; None leaves them out.
    """
    (alone := directory / "alone").mkdir()
    async with running_agent(alone) as (_, settings):
        with progress.step(f"{size.starts} pods, one at a time"):
            one = await creates(directory, settings, size.starts)
    (whole := directory / "whole").mkdir()
    simulated = await bursts(whole, ReferenceProvider.name, load, size, progress)
    found: dict[str, Any] = {
        "one_at_a_time": one,
        "added_p50_ms": one[REMOTE]["p50"] - one[LOCAL]["p50"],
        "rounds": simulated.rounds,
        "idle": simulated.idle,
    }
    if engine is not None:
        (real := directory / "real").mkdir()
        provider, image = engine
        found["engine_rounds"] = (await bursts(real, provider, attrs.evolve(load, image=image), size, progress)).rounds
    return found


async def bursts(directory: Path, provider: str, load: Load, size: Size, progress: Progress) -> Compared:
    """Bursts of a node that runs the provider itself, and of one with an agent that does, by turns."""
    async with (
        open_cluster(None) as here,
        open_cluster(None) as there,
        running_agent(directory, provider) as (agent, settings),
        here.running_node(provider, load.pods) as local_node,
        there.running_node(REMOTE, load.pods, *(f"{name}={value}" for name, value in settings.items())) as remote_node,
    ):
        both = {LOCAL: (here, local_node), REMOTE: (there, remote_node)}
        rounds: list[dict[str, Figures]] = []
        for number in range(size.rounds):
            found: dict[str, Figures] = {}
            for who in (LOCAL, REMOTE) if number % 2 == 0 else (REMOTE, LOCAL):
                with progress.step(f"{provider}, round {number + 1} of {size.rounds}, {who}"):
                    cluster, node = both[who]
                    before = agent.cpu()
                    found[who] = await burst(cluster, load, progress, node)
                    if who == REMOTE:
                        found[who]["cpu_ms_per_pod_agent"] = 1000 * (agent.cpu() - before) / load.pods
                    progress.result(found[who])
            rounds.append({"node": found[REMOTE], "floor": found[LOCAL]})
        resting = await _idle({"node, local": local_node, "node, remote": remote_node, "agent": agent}, size.hold)
    return Compared(rounds, resting)


async def _idle(processes: Mapping[str, Process], seconds: float) -> dict[str, Figures]:
    """What each costs while nothing happens."""
    before = {who: process.cpu() for who, process in processes.items()}
    began = time.monotonic()
    await asyncio.sleep(seconds)
    passed = max(time.monotonic() - began, 1e-9)
    return {
        who: {"idle_cpu_percent": 100 * (process.cpu() - before[who]) / passed, "rss_mib": process.rss()}
        for who, process in processes.items()
    }


def columns(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The compared figures, for a table: each figure, by who has it."""
    one, idle = found["one_at_a_time"], found["idle"]
    table: dict[str, dict[str, float]] = {
        f"create_pod, one at a time, {key}, ms": {who: one[who][key] for who in (LOCAL, REMOTE)}
        for key in ("p50", "p99")
    }
    for name, key in (("idle, % of a core", "idle_cpu_percent"), ("RSS, MiB", "rss_mib")):
        table[name] = {
            LOCAL: idle["node, local"][key],
            REMOTE: idle["node, remote"][key],
            "agent": idle["agent"][key],
        }
    agents = [figures["node"]["cpu_ms_per_pod_agent"] for figures in found["rounds"]]
    table["CPU to gone, ms a pod"] = {"agent": statistics.median(agents)}
    return table


def _pod(number: int) -> wasmlet.Pod:
    """A pod whose object is about as large as usual ones are."""
    name = f"bench-{number}-{time.monotonic_ns()}"
    environment = [{"name": f"VARIABLE_{n}", "value": "x" * 40} for n in range(50)]
    metadata = {"namespace": "default", "name": name, "uid": name}
    return wasmlet.Pod({"metadata": metadata, "spec": {"containers": [{"name": "c", "env": environment}]}})
