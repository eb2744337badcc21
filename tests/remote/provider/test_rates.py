"""How often a node asks its agent: not at all while nothing happens, and about once a second while it is away."""

from __future__ import annotations

import asyncio

from tests.node.cluster import Cluster, running
from tests.node.trouble import FastClock
from tests.remote.agents import PATIENCE
from tests.remote.beside import Beside


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
