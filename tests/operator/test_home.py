"""An operator whose namespace is not that of a pool's nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.operator.forged import lone, registers, runs
from tests.operator.harness import NODES, Fleet, Raw
from tests.operator.test_operator import said
from wasmlet.controlplane.faults import Fail
from wasmlet.kube import Client, load_identity
from wasmlet.operator.home import BINDINGS, claim, home_of
from wasmlet.operator.pool import LABEL, POOLS, Pool
from wasmlet.testing import ControlPlane


@asynccontextmanager
async def pool_of(namespace: str, directory: Path, kubectl: Path, *, there: bool = True) -> AsyncIterator[Fleet]:
    """A pool that is to have no nodes, and has one with the rights of that namespace."""
    async with ControlPlane() as plane, Client(await load_identity(plane.kubeconfig)) as admin:
        fleet = Fleet(plane, admin, directory, kubectl, "default")
        await fleet.define()
        if there:
            await admin.create("/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
        await fleet.pool(replicas=0)
        name = "wasmlet-pool-edge"
        await admin.create(
            BINDINGS,
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name, "labels": {LABEL: "edge"}},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            },
        )
        metadata = {"name": "edge-0", "labels": {LABEL: "edge"}}
        await admin.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        try:
            yield fleet
        finally:
            await fleet.end()


@pytest.mark.timeout(120)
async def test_the_nodes_of_another_namespace_are_left_alone(tmp_path: Path, kubectl: Path) -> None:
    async with pool_of("elsewhere", tmp_path, kubectl) as fleet:
        assert await home_of(fleet.admin, "edge", "default") == "elsewhere"
        await fleet.operator()
        events = "/api/v1/events"
        told = await fleet.until(events, lambda found: any(e["reason"] == "OtherNamespace" for e in found.values()))
        assert "in namespace elsewhere, and this operator is for default" in next(iter(told.values()))["message"]
        await fleet.remove()
        code, text = await said(f"--kubeconfig={fleet.plane.kubeconfig}", "--namespace=default", "--cleanup")
        assert code == 1, text
        assert "pool edge has its nodes in namespace elsewhere" in text
        assert "Traceback" not in text
        assert await fleet.names(NODES) == ["edge-0"]


@pytest.mark.timeout(120)
async def test_of_two_operators_one_is_the_first(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        raw = Pool.of(await fleet.pool(replicas=1))
        given = await asyncio.gather(*(claim(fleet.admin, raw, name) for name in ("default", "kube-system")))
        assert given[0] == given[1] == await home_of(fleet.admin, "edge", "default")
        assert given[0] in ("default", "kube-system")


@pytest.mark.timeout(120)
async def test_the_nodes_of_its_own_namespace_are_not(tmp_path: Path, kubectl: Path) -> None:
    async with pool_of("default", tmp_path, kubectl) as fleet:
        await fleet.operator()
        async with asyncio.timeout(60):
            await fleet.until(NODES, lambda found: "edge-0" not in found)


@pytest.mark.timeout(120)
async def test_the_nodes_of_a_namespace_that_is_gone_are_taken_over(tmp_path: Path, kubectl: Path) -> None:
    async with pool_of("elsewhere", tmp_path, kubectl, there=False) as fleet:
        await fleet.operator()
        await fleet.until(NODES, lambda found: "edge-0" not in found, seconds=60)


@pytest.mark.timeout(120)
async def test_a_right_that_is_missing_is_said(tmp_path: Path, kubectl: Path) -> None:
    """Also where it is not about an object of the pool, but about its Nodes."""
    async with lone(tmp_path, kubectl) as fleet:
        with fleet.plane.faults.add(Fail(403), path=f"{NODES}/edge-0", verb="patch"):
            await fleet.pool(replicas=1, template={"metadata": {"labels": {"zone": "a"}}})
            await fleet.operator()
            await runs(fleet, "edge-0")
            await registers(fleet, "edge-0")
            await fleet.until(POOLS, lambda found: "Refused" in str(found["edge"].get("status")), seconds=60)


@pytest.mark.timeout(120)
async def test_a_right_that_is_missing_at_the_end_is_said(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await fleet.pool(replicas=0)
        await fleet.until(POOLS, lambda found: "Ready" in str(found["edge"].get("status")), seconds=60)
        path = "/api/v1/namespaces/default-keys/secrets"
        with fleet.plane.faults.add(Fail(403, message="cannot list secrets"), path=path, verb="list"):
            await fleet.remove()
            await fleet.until(POOLS, lambda found: "cannot list secrets" in str(found["edge"]["status"]), seconds=60)
        await fleet.until(POOLS, lambda found: "edge" not in found, seconds=60)


@pytest.mark.timeout(120)
async def test_what_the_api_server_refuses_is_said(tmp_path: Path, kubectl: Path) -> None:
    async with pool_of("default", tmp_path, kubectl) as fleet:
        await fleet.change(nodePod={"resources": {"limits": {"memory": "no quantity"}}})
        await fleet.operator()

        def refused(found: Mapping[str, Raw]) -> bool:
            return "Refused" in str(found["edge"].get("status"))

        await fleet.until(POOLS, refused, seconds=60)
