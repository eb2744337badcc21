"""Nodes that fall silent, their taints, and what becomes of their pods: as in a cluster, in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.controlplane.client import MERGE, PODS, STRATEGIC, Api, node, open_api, pod
from wasmlet.controlplane.controllers.eviction import patience
from wasmlet.controlplane.http.discovery import VERSION
from wasmlet.model.times import rfc3339, rfc3339_micro
from wasmlet.node.description import KUBELET_VERSION
from wasmlet.testing import ControlPlane, FakeClock

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


class CountingClock(FakeClock):
    """Counts how often somebody went to sleep."""

    sleeps = 0

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        await super().sleep(seconds)


class Cluster:
    """A control plane with one node n1, whose heart a test beats."""

    def __init__(self, api: Api, clock: CountingClock) -> None:
        self.api, self.clock = api, clock

    async def beat(self, **ready: Any) -> None:
        """Write the node's Ready condition."""
        now = rfc3339(self.clock.now())
        told = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, **ready}
        await self.api.ok("PATCH", f"{NODES}/n1/status", {"status": {"conditions": [told]}}, media=STRATEGIC)

    async def renew(self) -> None:
        """Renew the node's lease."""
        spec = {"spec": {"holderIdentity": "n1", "renewTime": rfc3339_micro(self.clock.now())}}
        await self.api.ok("PATCH", f"{LEASES}/n1", spec, media=MERGE)

    async def run(self, name: str, **spec: Any) -> None:
        """A pod that runs on the node and is ready."""
        await self.api.ok("POST", PODS, pod(name, nodeName="n1", **spec))
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await self.api.ok("PATCH", f"{PODS}/{name}/status", {"status": ready}, media=STRATEGIC)

    async def until(self, path: str, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The object once that holds."""
        async with self.api.watch(path, fieldSelector=f"metadata.name={name}") as lines:
            while not holds(found := (await lines.next())["object"]):
                pass
        return found

    async def events(self, reason: str) -> list[str]:
        items = (await self.api.ok("GET", "/api/v1/events"))["items"]
        return [item["involvedObject"]["name"] for item in items if item["reason"] == reason]


def ready(obj: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in obj["status"]["conditions"] if item["type"] == "Ready")
    return found


def taints(obj: dict[str, Any]) -> set[tuple[str, str]]:
    return {(item["key"], item["effect"]) for item in obj["spec"].get("taints", ())}


def both(key: str) -> set[tuple[str, str]]:
    return {(key, "NoSchedule"), (key, "NoExecute")}


@asynccontextmanager
async def cluster(**settings: Any) -> AsyncIterator[Cluster]:
    clock = CountingClock()
    async with (
        asyncio.timeout(60),
        ControlPlane(clock=clock, **settings) as plane,
        open_api(plane, plane.kubeconfig) as api,
    ):
        await api.ok("POST", NODES, node("n1", taints=[{"key": "own", "effect": "NoSchedule"}]))
        spec = {"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": rfc3339_micro(clock.now())}
        await api.ok("POST", LEASES, {"metadata": {"name": "n1"}, "spec": spec})
        yield Cluster(api, clock)


@pytest.mark.parametrize("grace", [50.0, 8.0])
async def test_a_silent_node_is_unknown_and_its_pods_go_when_their_patience_ends(grace: float) -> None:
    async with cluster(**({} if grace == 50 else {"node_monitor_grace": grace})) as n1:
        await n1.run("usual")
        await n1.run("hasty", tolerations=[{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20}])
        await n1.run("stays", tolerations=[{"operator": "Exists"}])
        for _ in range(10):  # a lease alone is a sign of life
            n1.clock.advance(grace - 1)
            await n1.renew()
        assert ready(await n1.api.ok("GET", f"{NODES}/n1"))["status"] == "True"
        n1.clock.advance(grace + 0.1)
        found = await n1.until(NODES, "n1", lambda obj: taints(obj) >= both(UNREACHABLE))
        assert ready(found)["reason"] == "NodeStatusUnknown"
        assert {item["type"] for item in found["status"]["conditions"] if item["status"] == "Unknown"} == {
            "Ready", "MemoryPressure", "DiskPressure", "PIDPressure",
        }  # fmt: skip
        assert taints(found) == both(UNREACHABLE) | {("own", "NoSchedule")}
        for name in ("usual", "hasty", "stays"):
            await n1.until(PODS, name, lambda obj: ready(obj)["status"] == "False")
        assert sorted(await n1.events("NodeNotReady")) == ["hasty", "n1", "stays", "usual"]
        # Pods go one by one.
        n1.clock.advance(19)
        assert "deletionTimestamp" not in (await n1.api.ok("GET", f"{PODS}/hasty"))["metadata"]
        n1.clock.advance(1)
        gone = await n1.until(PODS, "hasty", lambda obj: "deletionTimestamp" in obj["metadata"])
        (told,) = (item for item in gone["status"]["conditions"] if item["type"] == "DisruptionTarget")
        assert (told["status"], told["reason"]) == ("True", "DeletionByTaintManager")
        assert "deletionTimestamp" not in (await n1.api.ok("GET", f"{PODS}/usual"))["metadata"]
        n1.clock.advance(280)
        await n1.until(PODS, "usual", lambda obj: "deletionTimestamp" in obj["metadata"])
        assert sorted(await n1.events("TaintManagerEviction")) == ["hasty", "usual"]
        n1.clock.advance(100_000)
        assert "deletionTimestamp" not in (await n1.api.ok("GET", f"{PODS}/stays"))["metadata"]


async def test_a_node_that_is_back_has_no_taints_and_keeps_its_pods() -> None:
    async with cluster() as n1:
        await n1.run("usual")
        n1.clock.advance(51)
        await n1.until(NODES, "n1", lambda obj: taints(obj) >= both(UNREACHABLE))
        n1.clock.advance(299)
        await n1.beat(status="False", reason="KubeletNotReady")
        await n1.until(NODES, "n1", lambda obj: taints(obj) == both(NOT_READY) | {("own", "NoSchedule")})
        await n1.beat()
        await n1.until(NODES, "n1", lambda obj: taints(obj) == {("own", "NoSchedule")})
        async with n1.api.watch("/api/v1/events", fieldSelector="reason=TaintManagerEviction") as lines:
            assert "Cancelling" in (await lines.next())["object"]["message"]
        for _ in range(20):
            n1.clock.advance(49)
            await n1.beat()
        found = await n1.api.ok("GET", f"{PODS}/usual")
        assert "deletionTimestamp" not in found["metadata"]
        assert await n1.events("NodeNotReady") == ["n1", "usual"]


async def test_pods_that_come_to_a_tainted_node_or_lose_their_toleration() -> None:
    async with cluster() as n1:
        mine = {"key": "example.com/x", "effect": "NoExecute"}
        await n1.api.ok("PATCH", f"{NODES}/n1", {"spec": {"taints": [mine]}}, media=MERGE)
        await n1.run("tolerant", tolerations=[{"key": "example.com/x", "operator": "Exists"}])
        await n1.api.ok("POST", PODS, pod("other", nodeName="n1"))
        await n1.until(PODS, "other", lambda obj: "deletionTimestamp" in obj["metadata"])
        assert "deletionTimestamp" not in (await n1.api.ok("GET", f"{PODS}/tolerant"))["metadata"]
        # One that the node deletes meanwhile is of no more concern; another of its name begins anew.
        passing = [{**mine, "operator": "Exists", "tolerationSeconds": 100}]
        await n1.run("again", tolerations=passing)
        n1.clock.advance(60)
        await n1.renew()
        await n1.api.ok("DELETE", f"{PODS}/again", {"gracePeriodSeconds": 0})
        await n1.run("again", tolerations=passing)
        n1.clock.advance(60)
        await n1.renew()
        assert "deletionTimestamp" not in (await n1.api.ok("GET", f"{PODS}/again"))["metadata"]
        n1.clock.advance(40)
        await n1.until(PODS, "again", lambda obj: "deletionTimestamp" in obj["metadata"])


async def test_taints_follow_pressure_and_cordons() -> None:
    async with cluster() as n1:
        pressure = {"status": {"conditions": [{"type": "MemoryPressure", "status": "True"}]}}
        await n1.api.ok("PATCH", f"{NODES}/n1/status", pressure, media=STRATEGIC)
        key = ("node.kubernetes.io/memory-pressure", "NoSchedule")
        await n1.until(NODES, "n1", lambda obj: taints(obj) == {key, ("own", "NoSchedule")})
        await n1.api.ok("PATCH", f"{NODES}/n1", {"spec": {"unschedulable": True}}, media=MERGE)
        await n1.until(NODES, "n1", lambda obj: ("node.kubernetes.io/unschedulable", "NoSchedule") in taints(obj))
        pressure["status"]["conditions"][0]["status"] = "False"
        await n1.api.ok("PATCH", f"{NODES}/n1/status", pressure, media=STRATEGIC)
        await n1.api.ok("PATCH", f"{NODES}/n1", {"spec": {"unschedulable": None}}, media=MERGE)
        await n1.until(NODES, "n1", lambda obj: taints(obj) == {("own", "NoSchedule")})


async def test_an_hour_of_heartbeats_costs_next_to_nothing() -> None:
    async with cluster() as n1:
        before = await n1.api.ok("GET", NODES)
        slept = n1.clock.sleeps
        for _ in range(360):
            n1.clock.advance(10)
            await n1.renew()
        after = await n1.api.ok("GET", NODES)
        writes = int(after["metadata"]["resourceVersion"]) - int(before["metadata"]["resourceVersion"])
        assert writes == 360  # the leases themselves
        assert n1.clock.sleeps - slept <= 3600 / 50 + 2


async def test_nobody_looks_after_nodes_where_nobody_shall() -> None:
    async with cluster(node_monitor_grace=None) as n1:
        await n1.run("usual")
        n1.clock.advance(100_000)
        await n1.renew()
        assert ready(await n1.api.ok("GET", f"{NODES}/n1"))["status"] == "True"
        assert n1.clock.sleeps == 0


async def test_a_pod_that_fits_nowhere_says_so_at_once() -> None:
    async with cluster() as n1:
        n1.clock.advance(51)
        await n1.until(NODES, "n1", lambda obj: taints(obj) >= both(UNREACHABLE))
        await n1.api.ok("POST", PODS, pod("p", tolerations=[{"key": "own", "operator": "Exists"}]))
        found = await n1.until(PODS, "p", lambda obj: bool(obj["status"].get("conditions")))
        (told,) = (item for item in found["status"]["conditions"] if item["type"] == "PodScheduled")
        assert (told["status"], told["reason"]) == ("False", "Unschedulable")
        assert UNREACHABLE in told["message"]
        await n1.beat()
        await n1.until(PODS, "p", lambda obj: obj["spec"].get("nodeName") == "n1")


@pytest.mark.parametrize(
    ("tolerations", "seconds"),
    [
        ([], 0.0),
        ([{"key": "a", "operator": "Exists"}], 0.0),
        ([{"operator": "Exists"}], None),
        ([{"operator": "Exists", "tolerationSeconds": 30}], 30.0),
        ([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists", "tolerationSeconds": 7}], 7.0),
        ([{"operator": "Exists", "tolerationSeconds": -1}], 0.0),
    ],
)
def test_patience(tolerations: list[dict[str, Any]], seconds: float | None) -> None:
    assert patience(tolerations, [{"key": k, "effect": "NoExecute"} for k in "ab"]) == seconds


def test_the_control_plane_is_not_older_than_its_nodes() -> None:
    def numbers(version: str) -> list[int]:
        return [int(part) for part in version.removeprefix("v").split(".")]

    assert numbers(VERSION)[:2] >= numbers(KUBELET_VERSION)[:2]
