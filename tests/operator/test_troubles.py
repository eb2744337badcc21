"""Pools with which something is wrong: what runs does not end for that, and nodes are not left half emptied."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from tests.operator.forged import guest, lone, registers, runs
from tests.operator.harness import NODES, Fleet, Raw
from wasmlet.kube import errors
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.operator.pool import LABEL, POOLS
from wasmlet.operator.seen import DRAINING

pytestmark = pytest.mark.timeout(180)
SECONDS = 6.0
MOST_CHANGES = 12
"""How many there may be in that time: fewer on a slow machine, and ten a second where nobody waits."""


async def test_a_pod_does_not_end_while_its_node_is_not_seen_and_has_pods(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await fleet.pool()
        await runs(fleet, "edge-0", ready=False)
        await registers(fleet, "edge-0", labels={})
        await guest(fleet, "edge-0")
        await fleet.change(replicas=0)
        await fleet.until(POOLS, lambda found: "LabelMissing" in str(found["edge"].get("status")), seconds=60)
        assert "deletionTimestamp" not in (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]
        assert "labeled" in await fleet.run("label", "node", "edge-0", f"{LABEL}=edge")

        def draining(found: Mapping[str, Raw]) -> bool:
            return DRAINING in (found["edge-0"]["metadata"].get("annotations") or {})

        await fleet.until(NODES, draining, seconds=60)
        await fleet.until(fleet.pods, lambda found: "deletionTimestamp" in found["guest"]["metadata"], seconds=60)
        assert "deletionTimestamp" not in (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]


async def test_a_node_is_released_also_where_the_pool_cannot_be_as_it_says(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await fleet.pool()
        await fleet.until(fleet.pods, lambda found: "edge-0" in found)
        await fleet.change(config={"no-such-option": "1"})
        await fleet.until(POOLS, lambda found: "InvalidConfig" in str(found["edge"].get("status")), seconds=60)
        await runs(fleet, "edge-0")
        await registers(fleet, "edge-0", cordoned=True, annotations={DRAINING: "2026-01-01T00:00:00Z"})
        await fleet.until(NODES, lambda found: not found["edge-0"]["spec"].get("unschedulable"), seconds=60)
        assert DRAINING not in ((await fleet.admin.get(f"{NODES}/edge-0"))["metadata"].get("annotations") or {})


async def test_two_operators_do_not_correct_each_other_for_ever(tmp_path: Path, kubectl: Path) -> None:
    """Each hears of other pods what holds them, and would say so."""
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await fleet.operator()
        await fleet.pool(disruption={"drainTimeout": "1h"})
        await runs(fleet, "edge-0")
        await registers(fleet, "edge-0")
        for app in ("a", "b", "c"):
            await guest(fleet, "edge-0", app, app=app)
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            await fleet.admin.patch(f"{fleet.pods}/{app}/status", {"status": ready})
            await fleet.budget(app, minAvailable=1)
        await fleet.change(replicas=0)
        await fleet.until(POOLS, lambda found: "Held" in str(found["edge"].get("status")), seconds=60)
        changes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS), aclosing(fleet.versions(POOLS)) as versions:
                async for _ in versions:
                    changes += 1
        assert changes <= MOST_CHANGES
        assert "deletionTimestamp" not in (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]


@pytest.mark.parametrize("what", ["labels", "annotations"])
@pytest.mark.parametrize("key", ["wasmlet.dev/draining", "handler.wasmlet.dev/wasmlet"])
async def test_a_template_has_nothing_that_is_the_operators_own(
    what: str, key: str, tmp_path: Path, kubectl: Path
) -> None:
    """The operator would take back what it has itself written, and write it again."""
    async with lone(tmp_path, kubectl) as fleet:
        with pytest.raises(errors.Invalid, match=f"{what} of wasmlet.dev are the node's and the operator's own"):
            await fleet.pool(template={"metadata": {what: {key: "x"}}})
        await fleet.pool(template={"metadata": {what: {"notwasmlet.dev/draining": "x"}}})


async def test_agents_have_names_that_nodes_can_have(tmp_path: Path, kubectl: Path) -> None:
    """The name is the value of a label of the Node."""
    async with lone(tmp_path, kubectl) as fleet:
        for name in ("a" * 64, "a..b", "a.-b"):
            with pytest.raises(errors.Invalid, match=r"spec\.remote\.agents\[0\]\.name"):
                await fleet.pool(provider="remote", remote={"agents": [{"name": name}], "tlsSecret": "tls"})
        await fleet.pool(provider="remote", remote={"agents": [{"name": "a" * 58 + ".b-1"}], "tlsSecret": "tls"})


@asynccontextmanager
async def relabelled(fleet: Fleet, node: str, key: str, value: str) -> AsyncIterator[list[str]]:
    """While open, somebody always writes that label of a Node; what it was each time before."""
    found: list[str] = []

    async def insist() -> None:
        async with aclosing(fleet.versions(NODES)) as versions:
            async for nodes in versions:
                before = (nodes[node]["metadata"].get("labels") or {}).get(key)
                if before not in (None, value):
                    found.append(before)
                    body = {"metadata": {"labels": {key: value}}}
                    await fleet.admin.patch(f"{NODES}/{node}", body, MERGE_PATCH)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(insist())
        yield found
        task.cancel()


async def test_who_always_writes_the_same_of_a_node_is_answered_now_and_then(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await fleet.pool(template={"metadata": {"labels": {"zone": "north"}}})
        await runs(fleet, "edge-0")
        async with relabelled(fleet, "edge-0", "zone", "south") as found:
            await registers(fleet, "edge-0")
            await fleet.until(NODES, lambda _: found, seconds=60)
            await asyncio.sleep(SECONDS)
            assert len(found) <= 2
        await fleet.change(template={"metadata": {"labels": {"zone": "west"}}})  # is told at once

        def zone(nodes: Mapping[str, Raw]) -> str:
            return str(nodes["edge-0"]["metadata"]["labels"].get("zone"))

        await fleet.until(NODES, lambda nodes: zone(nodes) == "west", seconds=60)
        await fleet.admin.patch(f"{NODES}/edge-0", {"metadata": {"labels": {"zone": "east"}}}, MERGE_PATCH)
        await fleet.until(NODES, lambda nodes: zone(nodes) == "west", seconds=60)


async def test_a_name_that_was_free_once_is_looked_at_again(tmp_path: Path, kubectl: Path) -> None:
    """Else the pool would get the right to act as a Node that somebody else has made meanwhile."""
    async with lone(tmp_path, kubectl) as fleet:
        operator = await fleet.operator()
        await fleet.pool(replicas=2, disruption={"drainTimeout": "0s"})
        await fleet.until(fleet.pods, lambda found: {"edge-0", "edge-1"} <= found.keys(), seconds=60)
        await fleet.change(replicas=1)
        sets = f"/apis/apps/v1/namespaces/{fleet.namespace}/statefulsets"
        await fleet.until(sets, lambda found: [one["spec"]["replicas"] for one in found.values()] == [1], seconds=60)
        await operator.kill()  # before it can see that the pod is gone
        await fleet.until(fleet.pods, lambda found: "edge-1" not in found, seconds=60)
        await registers(fleet, "edge-1", labels={"a": "machine"})
        await fleet.change(replicas=2)
        await fleet.operator()
        await fleet.until(POOLS, lambda found: "NameTaken" in str(found["edge"].get("status")), seconds=60)
        role = await fleet.admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/wasmlet-pool-edge")
        assert "system:node:edge-0" in str(role)
        assert "system:node:edge-1" not in str(role)


async def test_a_pool_that_is_deleted_while_a_node_is_emptied_is_no_warning(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        operator = await fleet.operator()
        await fleet.pool(replicas=1)
        await runs(fleet, "edge-0")
        await registers(fleet, "edge-0")
        await guest(fleet, "edge-0")
        await fleet.change(replicas=0)
        await fleet.until(fleet.pods, lambda found: "deletionTimestamp" in found["guest"]["metadata"], seconds=60)
        await fleet.remove()
        await fleet.admin.delete(f"{fleet.pods}/guest", {"gracePeriodSeconds": 0})
        await fleet.until(POOLS, lambda found: "edge" not in found, seconds=60)
        assert not [line for line in operator.said() if line["level"] != "info"]
