"""Pools on a cluster: what `kubectl` asks for is made, kept, emptied and removed, whatever happens to the operator.

    pytest tests/operator --kubeconfig admin.kubeconfig --node-credentials ./node-kubeconfig --client-ca-file ca.crt

runs these on a real cluster made for tests, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import CompileGuest
from tests.guests import build
from tests.operator.harness import NODES, POOLS, Fleet, Raw, condition
from wasmlet.operator.seen import DRAINING

pytestmark = [pytest.mark.needs_root("the pods of nodes are put into namespaces"), pytest.mark.timeout(600)]

COUNTER = Path(__file__).parents[2] / "examples" / "wascc" / "counter.wasm"


@pytest.fixture
def guest(compile_guest: CompileGuest) -> str:
    """An image that sleeps, with arguments."""
    return f"file://{build('driver', compile_guest)}"


def draining(found: Mapping[str, Raw]) -> list[str]:
    """The nodes that are being emptied."""
    return [name for name, node in found.items() if DRAINING in (node["metadata"].get("annotations") or {})]


async def test_a_pool_grows_shrinks_and_goes(fleet: Fleet) -> None:
    await fleet.operator()
    await fleet.pool(replicas=0)
    await fleet.ready(0)
    assert "scaled" in await fleet.run("scale", "wnp", "edge", "--replicas=3")
    await fleet.ready(3)
    assert await fleet.names(NODES) == ["edge-0", "edge-1", "edge-2"]
    await fleet.run("scale", "wnp", "edge", "--replicas=1")
    await fleet.ready(1)
    assert await fleet.names(NODES) == ["edge-0"]
    await fleet.remove()
    await fleet.gone()


async def test_a_pool_that_says_nothing_is_one_node_and_says_what_it_does(fleet: Fleet) -> None:
    await fleet.operator()
    await fleet.pool()
    await fleet.ready(1)
    assert (await fleet.admin.get(f"{POOLS}/edge"))["spec"]["replicas"] == 1
    said = await fleet.run("describe", "wnp", "edge")
    assert "1 of 1 nodes ready" in said
    shown = await fleet.run("get", "wnp")
    assert shown.split()[:5] == ["NAME", "PROVIDER", "DESIRED", "READY", "PODS"]
    assert shown.splitlines()[1].split()[:5] == ["edge", "wasmtime", "1", "1", "250"]


async def test_a_pool_of_actors(fleet: Fleet) -> None:
    await fleet.operator()
    await fleet.pool(provider="wascc")
    await fleet.ready(1)
    await fleet.deployment("counter", 2, f"file://{COUNTER}", args=(), handler="wasmlet-wascc")
    for pod in (await fleet.admin.get(fleet.pods, labelSelector="app=counter"))["items"]:
        assert pod["spec"]["nodeName"] == "edge-0"
    await fleet.remove()
    await fleet.gone()


async def test_pods_leave_a_node_before_it_goes(fleet: Fleet, guest: str) -> None:
    await fleet.operator()
    await fleet.pool(replicas=2)
    await fleet.ready(2)
    await fleet.deployment("web", 6, guest)
    await fleet.change(replicas=1)
    await fleet.ready(1)
    await fleet.available("web", 6)
    pods = (await fleet.admin.get(fleet.pods, labelSelector="app=web"))["items"]
    assert {pod["spec"]["nodeName"] for pod in pods if "deletionTimestamp" not in pod["metadata"]} == {"edge-0"}
    said = await fleet.run("describe", "wnp", "edge")
    assert "gone: edge-1" in said


async def test_a_budget_holds_a_node_until_its_time_is_over(fleet: Fleet, guest: str) -> None:
    await fleet.operator()
    await fleet.pool(replicas=1, disruption={"drainTimeout": "1h"})
    await fleet.ready(1)
    await fleet.deployment("web", 2, guest)
    await fleet.budget("web", minAvailable=2)
    await fleet.change(replicas=0)

    def held(found: Mapping[str, Raw]) -> bool:
        conditions = (found["edge"].get("status") or {}).get("conditions") or ()
        return any(one["reason"] == "Held" and "disruption budget" in one["message"] for one in conditions)

    await fleet.until(POOLS, held)
    assert await fleet.ready_pods("web") == 2
    await fleet.change(disruption={"drainTimeout": "1s"})
    await fleet.ready(0)
    assert await fleet.names(NODES) == []
    assert "DrainTimedOut" in await fleet.run("describe", "wnp", "edge")


async def test_a_node_that_is_wanted_again_takes_pods_again(fleet: Fleet, guest: str) -> None:
    await fleet.operator()
    await fleet.pool(replicas=1)
    await fleet.ready(1)
    await fleet.deployment("web", 1, guest)
    await fleet.budget("web", minAvailable=1)
    await fleet.change(replicas=0)
    await fleet.until(NODES, draining)
    await fleet.change(replicas=1)
    found = await fleet.until(NODES, lambda found: not draining(found))
    assert "unschedulable" not in found["edge-0"]["spec"]
    assert await fleet.ready_pods("web") == 1


async def test_a_node_that_somebody_else_has_cordoned_stays_so(fleet: Fleet, guest: str) -> None:
    await fleet.operator()
    await fleet.pool(replicas=1)
    await fleet.ready(1)
    await fleet.deployment("web", 1, guest)
    await fleet.budget("web", minAvailable=1)
    assert "cordoned" in await fleet.run("cordon", "edge-0")
    await fleet.change(replicas=0)
    await fleet.until(NODES, draining)
    await fleet.change(replicas=1)
    found = await fleet.until(NODES, lambda found: not draining(found))
    assert found["edge-0"]["spec"]["unschedulable"] is True


async def test_a_change_of_the_template_makes_no_node_anew(fleet: Fleet) -> None:
    await fleet.operator()
    taint = {"key": "example.com/only", "effect": "NoSchedule"}
    await fleet.pool(template={"metadata": {"labels": {"zone": "a"}}, "taints": [taint]})
    await fleet.ready(1)
    found = await fleet.until(NODES, lambda found: found["edge-0"]["metadata"]["labels"].get("zone") == "a")
    keys = {one["key"] for one in found["edge-0"]["spec"]["taints"]}
    assert keys == {"wasmlet.dev/provider", "example.com/only"}
    pod = (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]["uid"]
    await fleet.change(template={"metadata": {"labels": {"zone": None, "site": "b"}}, "taints": None})
    found = await fleet.until(NODES, lambda found: found["edge-0"]["metadata"]["labels"].get("site") == "b")
    assert "zone" not in found["edge-0"]["metadata"]["labels"]
    assert {one["key"] for one in found["edge-0"]["spec"]["taints"]} == {"wasmlet.dev/provider"}
    assert (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]["uid"] == pod


async def test_what_a_pool_cannot_be_is_said(fleet: Fleet) -> None:
    await fleet.operator()
    await fleet.pool(config={"no-such-option": "1"})

    def degraded(found: Mapping[str, Raw]) -> bool:
        return condition(found["edge"].get("status") or {}, "Degraded") == "True"

    await fleet.until(POOLS, degraded)
    assert "a node has no option 'no-such-option'" in await fleet.run("describe", "wnp", "edge")
    await fleet.change(config={"no-such-option": None})
    await fleet.ready(1)


async def test_the_node_of_another_machine_is_not_taken(fleet: Fleet) -> None:
    await fleet.operator()
    machine = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-0"}}
    await fleet.admin.create(NODES, machine)
    try:
        await fleet.pool()
        await fleet.until(POOLS, lambda found: condition(found["edge"].get("status") or {}, "Degraded") == "True")
        assert "there is a Node edge-0 that is not of this pool" in await fleet.run("describe", "wnp", "edge")
        # The binding says whose pool it is. Nothing else is made.
        assert await fleet.left() == ["clusterrolebindings/wasmlet-pool-edge", "pools/edge"]
        await fleet.remove()
        await fleet.gone()
    finally:
        await fleet.admin.delete(f"{NODES}/edge-0")


async def test_what_somebody_changes_is_put_right(fleet: Fleet) -> None:
    await fleet.operator()
    await fleet.pool(replicas=0)
    await fleet.ready(0)
    services = f"/api/v1/namespaces/{fleet.namespace}/services"
    before = (await fleet.admin.get(f"{services}/edge"))["metadata"]["uid"]
    await fleet.admin.delete(f"{services}/edge")
    await fleet.until(services, lambda found: "edge" in found and found["edge"]["metadata"]["uid"] != before)
