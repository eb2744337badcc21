"""Pools while something breaks, on a cluster: see `tests/operator/test_pools.py` for how to have a real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from tests.conftest import CompileGuest
from tests.guests import build
from tests.operator.harness import NODES, POOLS, Fleet, Raw, healthy, outage
from tests.operator.test_operator import said
from wasmlet.operator.pool import LABEL
from wasmlet.operator.seen import DRAINING

STEP_SECONDS = 60
"""How long an operator has for a step before it is killed all the same."""
MOST_KILLS = 60
pytestmark = [pytest.mark.needs_root("the pods of nodes are put into namespaces"), pytest.mark.timeout(1200)]


@pytest.fixture
def guest(compile_guest: CompileGuest) -> str:
    """An image that sleeps, with arguments."""
    return f"file://{build('driver', compile_guest)}"


@asynccontextmanager
async def least(fleet: Fleet, app: str, count: int) -> AsyncIterator[list[int]]:
    """While open, how many pods of a Deployment are healthy after each change, from when there are so many."""
    counted: list[int] = []
    begun = asyncio.Event()

    async def follow() -> None:
        async with aclosing(fleet.versions(fleet.pods, labelSelector=f"app={app}")) as versions:
            async for found in versions:
                counted.append(sum(map(healthy, found.values())))
                begun.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        await begun.wait()
        assert counted[0] == count
        yield counted
        task.cancel()


async def test_a_change_under_a_budget(fleet: Fleet, guest: str) -> None:
    """60 pods on three nodes, of which at least 54 have to run while every node is made anew."""
    await fleet.operator()
    await fleet.pool(replicas=3)
    await fleet.ready(3)
    before = {name: pod["metadata"]["uid"] for name, pod in (await fleet.until(fleet.pods, len)).items()}
    await fleet.deployment("web", 60, guest)
    await fleet.budget("web", minAvailable=54)
    async with least(fleet, "web", 60) as counted:
        await fleet.change(capacity={"pods": 200})
        await fleet.until(
            fleet.pods,
            lambda found: all(
                name in found and found[name]["metadata"]["uid"] != uid
                for name, uid in before.items()
                if name.startswith("edge-")
            ),
            seconds=900,
        )
        await fleet.ready(3)
        await fleet.available("web", 60)
    assert min(counted) >= 54
    nodes = (await fleet.admin.get(NODES, labelSelector=LABEL))["items"]
    assert [node["status"]["allocatable"]["pods"] for node in nodes] == ["200"] * 3
    assert not [node for node in nodes if node["spec"].get("unschedulable")]


class Watched:
    """What there is of a pool, and an event for each change of it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: dict[str, dict[str, object]] = {}
        self._changed = asyncio.Event()

    async def follow(self, what: str, path: str, selector: str) -> None:
        """Follow one kind of objects until cancelled."""
        async with aclosing(self._fleet.versions(path, labelSelector=selector)) as versions:
            async for found in versions:
                seen: dict[str, object] = {name: _seen(one) for name, one in found.items()}
                if self._known.get(what) != seen:
                    self._known[what] = seen
                    self._changed.set()

    async def change(self, seconds: float) -> None:
        """Return at the next change of anything, or when the time is over."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def of(self, what: str) -> dict[str, object]:
        """Those of one kind, by name; a name of which nobody has heard yet stands for all."""
        return self._known.get(what, {"?": None})


def _seen(raw: Raw) -> object:
    metadata = raw["metadata"]
    draining = DRAINING in (metadata.get("annotations") or {})
    return (raw["spec"].get("replicas"), draining, "deletionTimestamp" in metadata)


@asynccontextmanager
async def watched(fleet: Fleet) -> AsyncIterator[Watched]:
    """All of a pool's objects, and what runs on its nodes, while the context is open."""
    found = Watched(fleet)
    sets = f"/apis/apps/v1/namespaces/{fleet.namespace}/statefulsets"
    kinds = (
        ("nodes", NODES, LABEL),
        ("sets", sets, LABEL),
        ("pods of nodes", fleet.pods, LABEL),
        ("guests", fleet.pods, "app"),
        ("pools", POOLS, ""),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(found.follow(*kind)) for kind in kinds]
        yield found
        for task in tasks:
            task.cancel()


async def killed_at_each_step(fleet: Fleet, done: Callable[[Watched], bool]) -> int:
    """Start the operator and kill it at the next change of anything, again and again until it is done.

    Returns:
        How often it was killed.
    """
    kills = 0
    async with watched(fleet) as pool:
        while not done(pool):
            operator = await fleet.operator()
            await pool.change(STEP_SECONDS)
            await operator.kill()
            kills += 1
            assert kills < MOST_KILLS, {what: pool.of(what) for what in ("nodes", "sets", "guests", "pools")}
    return kills


async def test_an_operator_that_is_killed_at_each_step(fleet: Fleet, guest: str) -> None:
    operator = await fleet.operator()
    await fleet.pool(replicas=2)
    await fleet.ready(2)
    await fleet.deployment("web", 4, guest)
    await operator.kill()
    await fleet.change(replicas=1)
    assert await killed_at_each_step(fleet, lambda pool: list(pool.of("nodes")) == ["edge-0"]) >= 3
    await fleet.available("web", 4)
    await fleet.remove()
    assert await killed_at_each_step(fleet, lambda pool: not pool.of("pools")) >= 3
    await fleet.gone()


OUTAGE_SECONDS = 30.0


async def test_two_operators_and_an_api_server_that_is_away_in_the_middle(fleet: Fleet, guest: str) -> None:
    operators = [await fleet.operator(), await fleet.operator()]
    await fleet.pool(replicas=2, disruption={"drainTimeout": "1h"})
    await fleet.ready(2)
    await fleet.deployment("web", 4, guest)
    await fleet.budget("web", minAvailable=3)
    before = (await fleet.admin.get(fleet.pods, labelSelector="app=web"))["items"]
    staying = {pod["metadata"]["uid"] for pod in before if pod["spec"]["nodeName"] == "edge-0"}
    await fleet.change(replicas=1)
    async with outage(fleet):
        await asyncio.sleep(OUTAGE_SECONDS)
    await fleet.ready(1)
    await fleet.available("web", 4)
    after = (await fleet.admin.get(fleet.pods, labelSelector="app=web"))["items"]
    kept = {pod["metadata"]["uid"]: pod for pod in after if pod["metadata"]["uid"] in staying}
    assert kept.keys() == staying
    assert not [pod for pod in kept.values() if pod["status"]["containerStatuses"][0]["restartCount"]]
    await fleet.change(disruption={"drainTimeout": "1s"})  # the budget would hold the last node
    await fleet.remove()
    await fleet.gone()
    for one in operators:
        assert one.process.returncode is None
        assert "Traceback" not in one.log.read_text(), one.log.read_text()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside an operator"])
async def test_cleanup_empties_the_nodes_and_leaves_nothing(fleet: Fleet, guest: str, beside: bool) -> None:
    operator = await fleet.operator()
    await fleet.pool(replicas=2)
    await fleet.ready(2)
    await fleet.deployment("web", 2, guest)
    if not beside:
        await operator.kill()
    code, text = await said(f"--kubeconfig={fleet.plane.kubeconfig}", f"--namespace={fleet.namespace}", "--cleanup")
    assert code == 0, text
    assert "Traceback" not in text, text
    await fleet.gone()
    evicted = (await fleet.admin.get(fleet.pods, labelSelector="app=web"))["items"]
    assert not [pod for pod in evicted if pod["spec"].get("nodeName")]  # they left, and wait for another node
