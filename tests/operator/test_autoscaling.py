"""A pool that scales itself, on a cluster: up for pods that find no node, and down when its last node is empty."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tests.conftest import CompileGuest
from tests.guests import build
from tests.operator.harness import NODES, POOLS, Fleet
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.testing import ControlPlane

pytestmark = [pytest.mark.needs_root("the pods of nodes are put into namespaces"), pytest.mark.timeout(600)]


async def wanted(fleet: Fleet, sizes: list[int]) -> None:
    """Note each size that the pool is to have, until cancelled."""
    async with aclosing(fleet.versions(POOLS)) as versions:
        async for found in versions:
            size = found["edge"]["spec"].get("replicas") if "edge" in found else None
            if size is not None and size != (sizes or [None])[-1]:
                sizes.append(size)


async def test_a_pool_follows_its_pods(fleet: Fleet, compile_guest: CompileGuest) -> None:
    await fleet.operator()
    rules = {"min": 1, "max": 4, "pendingSeconds": 3, "emptySeconds": 3}
    await fleet.pool(autoscaling=rules, capacity={"pods": 2})
    sizes: list[int] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(wanted(fleet, sizes))
        await fleet.ready(1)
        await fleet.deployment("web", 3, f"file://{build('driver', compile_guest)}")
        await fleet.ready(2)
        where = {
            pod["spec"]["nodeName"] for pod in (await fleet.admin.get(fleet.pods, labelSelector="app=web"))["items"]
        }
        assert where == {"edge-0", "edge-1"}
        if isinstance(fleet.plane, ControlPlane):  # another cluster may have no Metrics API
            assert "web" in await fleet.run("top", "pods", "-n", fleet.namespace, "-l", "app=web")
        path = f"/apis/apps/v1/namespaces/{fleet.namespace}/deployments/web"
        await fleet.admin.patch(path, {"spec": {"replicas": 0}}, MERGE_PATCH)
        await fleet.until(NODES, lambda found: "edge-1" not in found)
        await fleet.ready(1)
        task.cancel()
    assert sizes == [1, 2, 1]  # never one more than there are pods for
