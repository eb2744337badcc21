"""An operator whose API server answers badly: it goes on by itself, and does not ask without a pause."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from tests.operator.forged import lone
from tests.operator.harness import Fleet, Operator, Raw
from tests.operator.pools import shared_of
from wasmlet.clock import Pacing, SystemClock
from wasmlet.controlplane.faults import Effect, End, ErrorEvent, Fail
from wasmlet.kube import Client, Identity, load_identity
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.kube.events import EventRecorder
from wasmlet.operator import handlers
from wasmlet.operator.fleet import Fleet as Objects
from wasmlet.operator.keeper import MOST_CONFLICTS, Keeper
from wasmlet.operator.pool import POOLS
from wasmlet.operator.shared import Wakes

pytestmark = pytest.mark.timeout(180)
SECONDS = 4.0
MOST = 20
"""How many requests there may be in that time: fewer on a slow machine, and hundreds without pauses."""


async def kept(fleet: Fleet, name: str) -> None:
    """See that the operator keeps pools: one that is made now gets a status."""
    await fleet.pool(name, replicas=0)
    await fleet.until(POOLS, lambda found: "Ready" in str(found[name].get("status")), seconds=60)


async def begun(fleet: Fleet) -> Operator:
    operator = await fleet.operator()
    await kept(fleet, "first")
    return operator


@pytest.mark.parametrize(
    ("effect", "verb"),
    [(Fail(401), "*"), (End(), "watch"), (ErrorEvent(500), "watch"), (ErrorEvent(410), "watch")],
    ids=["credentials are refused", "watches end", "errors in watches", "watches are too old"],
)
async def test_what_is_answered_badly_is_asked_again_after_a_pause(
    effect: Effect, verb: str, tmp_path: Path, kubectl: Path
) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        operator = await begun(fleet)
        with fleet.plane.faults.add(effect, path=POOLS, verb=verb) as rule:
            fleet.plane.faults.disconnect()
            await rule.until(1)
            before = rule.met
            await asyncio.sleep(SECONDS)
            assert rule.met - before <= MOST
        await kept(fleet, "second")
        assert operator.process.returncode is None
        assert await operator.stop() == 0
        assert "Traceback" not in operator.log.read_text(), operator.log.read_text()


@pytest.mark.parametrize(("verb", "path"), [("watch", POOLS), ("patch", f"{POOLS}/second")])
async def test_what_is_refused_for_ever_is_said_once(verb: str, path: str, tmp_path: Path, kubectl: Path) -> None:
    """As a right that the operator lacks, without which it follows no pools or does not keep those that end."""
    async with lone(tmp_path, kubectl) as fleet:
        operator = await begun(fleet)
        with fleet.plane.faults.add(Fail(403, message=f"cannot {verb} pools"), path=path, verb=verb) as rule:
            fleet.plane.faults.disconnect()
            await fleet.pool("second", replicas=0)
            await rule.until(3)
        await fleet.until(POOLS, lambda found: "Ready" in str(found["second"].get("status")), seconds=60)
        refused = [line for line in operator.said() if line.get("error") == f"cannot {verb} pools"]
        assert [line["level"] for line in refused] == ["warning"]


def test_what_kopf_leaves_behind_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """It asks what kinds there are by several tasks, and forgets the others where one fails; asyncio says so."""
    with structlog.testing.capture_logs() as lines, handlers._logged():
        for error in (aiohttp.ClientConnectionError("away"), RuntimeError("a mistake")):
            logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=error)
    assert [line["event"] for line in lines] == ["Task exception was never retrieved"] * 2
    assert ["exception" in line for line in lines] == [False, True]
    assert capfd.readouterr().err == ""


class Raced(Client):
    """A client before whose changes of a pool's `replicas` somebody else changes the pool.

    Args:
        change: what somebody else changes; a label where it is empty.
        times: before how many of them.
    """

    def __init__(self, identity: Identity, change: dict[str, Any], times: int = 1) -> None:
        super().__init__(identity)
        self._change = change
        self.times = times

    async def patch(self, path: str, body: Any, *more: Any) -> dict[str, Any]:
        if self.times and "replicas" in (body.get("spec") or {}):
            self.times -= 1
            await super().patch(path, self._change or {"metadata": {"labels": {"n": f"{self.times}"}}}, MERGE_PATCH)
        return await super().patch(path, body, *more)


@asynccontextmanager
async def keeping(client: Client, raw: Raw) -> AsyncIterator[None]:
    """Keep a pool with that client while the context is open."""
    clock, rng, wakes = SystemClock(), random.Random(0), Wakes()
    pacing = Pacing(clock, rng)
    found = Objects(client, "default", pacing, wakes.wake)
    shared = shared_of(client, "default", found, EventRecorder(client, "operator"), wakes, pacing)
    keeper = Keeper("edge", raw["metadata"]["uid"], shared, lambda: client.get(f"{POOLS}/edge"), removing=False)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(found.run()), group.create_task(keeper.run())]
        yield
        for task in tasks:
            task.cancel()


async def scaled(fleet: Fleet, replicas: int) -> None:
    """Return when the pool has a StatefulSet of that size."""
    sets = "/apis/apps/v1/namespaces/default/statefulsets"
    await fleet.until(sets, lambda made: "edge" in made and made["edge"]["spec"]["replicas"] == replicas, seconds=60)


async def test_the_default_does_not_overwrite_what_somebody_says_meanwhile(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        pool, identity = await fleet.pool(), await load_identity(fleet.plane.kubeconfig)
        async with Raced(identity, {"spec": {"replicas": 3}}) as client, keeping(client, pool):
            await scaled(fleet, 3)
        assert client.times == 0
        assert (await fleet.admin.get(f"{POOLS}/edge"))["spec"]["replicas"] == 3


@pytest.mark.parametrize(("times", "warnings"), [(MOST_CONFLICTS - 1, 0), (MOST_CONFLICTS, 1)])
async def test_conflicts_are_told_where_they_go_on(times: int, warnings: int, tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        pool, identity = await fleet.pool(), await load_identity(fleet.plane.kubeconfig)
        with structlog.testing.capture_logs() as lines:
            async with Raced(identity, {}, times) as client, keeping(client, pool):
                await scaled(fleet, 1)
        assert client.times == 0
        told = [line for line in lines if line["log_level"] == "warning"]
        assert len(told) == warnings, told
