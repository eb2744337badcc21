"""How often a node asks its agent: not at all while nothing happens, and about once a second while it is away."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from tests.node.cluster import Cluster, running
from tests.node.trouble import FastClock
from tests.remote.agents import PATIENCE
from tests.remote.beside import Beside
from wasmlet import PodEvent, PodKey, ProbeCount


async def test_an_idle_node_asks_nothing(cluster: Cluster, beside: Beside) -> None:
    """For five minutes of the node's clock, with pods that run."""
    clock = FastClock(speed=100)
    async with beside.node(cluster, clock):
        for name in ("a", "b", "c"):
            await cluster.create(name)
            await cluster.until(running, name)
        await beside.there.until(lambda: True)
        before = len(beside.proxy.requests)
        await clock.sleep(300)
        assert beside.proxy.requests[before:] == []
        assert [seen.path for seen in beside.proxy.requests].count("/v1/changes") == 1


async def test_a_node_whose_agent_is_away_tries_about_once_a_second(cluster: Cluster, beside: Beside) -> None:
    """With pods to create and to end, for a minute of the node's clock."""
    clock = FastClock(speed=20)
    async with beside.node(cluster, clock):
        await cluster.create("ends")
        await cluster.until(running, "ends")
        beside.proxy.trap("drop", times=None)
        beside.proxy.cut()
        await cluster.delete("ends", gracePeriodSeconds=0)
        for number in range(20):
            await cluster.create(f"p{number}")
        before = len(beside.proxy.requests)
        began = clock.monotonic()
        await clock.sleep(60)
        minutes = (clock.monotonic() - began) / 60
        tried = beside.proxy.requests[before:]
        assert 1 <= len(tried) <= 120 * minutes
        assert {seen.path for seen in tried} == {"/v1/changes"}
        beside.proxy.clear()
        for number in range(20):
            await cluster.until(running, f"p{number}")


async def test_a_stream_that_always_breaks_is_opened_about_once_a_second(cluster: Cluster, beside: Beside) -> None:
    """Also while other requests succeed."""
    clock = FastClock(speed=20)
    async with beside.node(cluster, clock):
        trap = beside.proxy.trap("truncate", "GET", "/v1/changes", times=None, size=360)
        beside.proxy.cut()
        await trap.sprung()
        began, before = clock.monotonic(), trap.hits
        await clock.sleep(60)
        assert trap.hits - before <= 120 * (clock.monotonic() - began) / 60
        beside.proxy.clear()
        await asyncio.wait_for(_made(cluster), PATIENCE)


async def _made(cluster: Cluster) -> None:
    await cluster.create("after")
    await cluster.until(running, "after")


async def test_an_agent_whose_pods_always_change_says_how_their_probes_do(tmp_path: Path, beside: Beside) -> None:
    """What it counts comes with its beats, and these number no change that was not told."""
    key, counted = PodKey("default", "p", "p"), ProbeCount(PodKey("default", "p", "p"), "c", "Readiness", "failed")

    async def change() -> None:
        while True:
            beside.agent.changes.event(PodEvent(key, "Unhealthy", "again"))
            await asyncio.sleep(0.2)

    beside.there.probe_counts = lambda: {counted: 3}  # type: ignore[method-assign]
    async with beside.started(tmp_path) as provider, asyncio.timeout(PATIENCE):
        changing = asyncio.create_task(change())
        try:
            async with aclosing(provider.changes()) as told:
                async for _ in told:
                    if provider.probe_counts():
                        break
            assert provider.probe_counts() == {counted: 3}
        finally:
            changing.cancel()
