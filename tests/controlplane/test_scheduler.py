"""Pods find nodes: what the scheduler honours, what it says where it cannot, and what wakes it up."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.controlplane.client import MERGE, PODS, STRATEGIC, Api, node, pod
from wasmlet.model.placement import demand, tolerates

NODES = "/api/v1/nodes"


async def until(api: Api, name: str, **wanted: Any) -> dict[str, Any]:
    """The pod once it has a node or PodScheduled=False with a reason."""
    async with api.watch(PODS, fieldSelector=f"metadata.name={name}") as lines:
        while True:
            found: dict[str, Any] = (await lines.next())["object"]
            conditions = found["status"].get("conditions", [])
            scheduled: dict[str, Any] = next((item for item in conditions if item["type"] == "PodScheduled"), {})
            if all(scheduled.get(key) == value for key, value in wanted.items()) and scheduled:
                return found


async def place(api: Api, name: str, **spec: Any) -> str:
    """The node that a pod is given."""
    await api.ok("POST", PODS, pod(name, **spec))
    return str((await until(api, name, status="True"))["spec"]["nodeName"])


async def why_not(api: Api, name: str, **spec: Any) -> str:
    """What keeps a pod from being placed."""
    await api.ok("POST", PODS, pod(name, **spec))
    found = await until(api, name, status="False")
    assert "nodeName" not in found["spec"]
    condition = next(item for item in found["status"]["conditions"] if item["type"] == "PodScheduled")
    assert condition["reason"] == "Unschedulable"
    return str(condition["message"])


def requests(**amounts: str) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "img:1", "resources": {"requests": amounts}}]}


async def test_a_pod_goes_to_a_node_that_is_ready(api: Api) -> None:
    assert await why_not(api, "p") == "no nodes available to schedule pods"
    await api.ok("POST", NODES, node("n1", ready=False))
    assert "node.kubernetes.io/not-ready" in await why_not(api, "q")
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    await api.ok("PATCH", f"{NODES}/n1/status", ready, media=STRATEGIC)
    for name in ("p", "q"):
        assert (await until(api, name, status="True"))["spec"]["nodeName"] == "n1"
    async with api.watch("/api/v1/events", fieldSelector="involvedObject.name=p,reason=Scheduled") as lines:
        event = (await lines.next())["object"]
    assert event["message"] == "Successfully assigned default/p to n1"
    assert event["reportingComponent"] == "default-scheduler"


async def test_selectors_and_affinity(api: Api) -> None:
    for name, zone in (("n1", "a"), ("n2", "b")):
        made = node(name)
        made["metadata"]["labels"]["zone"] = zone
        await api.ok("POST", NODES, made)
    assert await place(api, "p1", nodeSelector={"zone": "b"}) == "n2"
    assert "1 node(s)" not in await why_not(api, "p2", nodeSelector={"zone": "c"})
    expression = {"key": "zone", "operator": "NotIn", "values": ["b"]}

    def affinity(**term: Any) -> dict[str, Any]:
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}

    assert await place(api, "p3", affinity=affinity(matchExpressions=[expression])) == "n1"
    field = {"key": "metadata.name", "operator": "In", "values": ["n2"]}
    assert await place(api, "p4", affinity=affinity(matchFields=[field])) == "n2"
    await api.ok("PATCH", f"{NODES}/n1", {"metadata": {"labels": {"zone": "c"}}}, media=MERGE)
    assert (await until(api, "p2", status="True"))["spec"]["nodeName"] == "n1"


async def test_taints_and_cordons(api: Api) -> None:
    await api.ok("POST", NODES, node("n1", taints=[{"key": "wasm", "value": "x", "effect": "NoSchedule"}]))
    message = await why_not(api, "p1")
    assert message == "0/1 nodes are available: 1 node(s) had untolerated taint {wasm: x}."
    toleration = {"key": "wasm", "operator": "Exists", "effect": "NoSchedule"}
    assert await place(api, "p2", tolerations=[toleration]) == "n1"
    await api.ok("PATCH", f"{NODES}/n1", {"spec": {"unschedulable": True}}, media=MERGE)
    assert "1 node(s) were unschedulable" in await why_not(api, "p3", tolerations=[toleration])
    await api.ok("PATCH", f"{NODES}/n1", {"spec": {"unschedulable": None, "taints": None}}, media=MERGE)
    for name in ("p1", "p3"):
        await until(api, name, status="True")


async def test_resources_are_counted_exactly(api: Api) -> None:
    await api.ok("POST", NODES, node("n1", cpu="1", memory="1Gi", pods="3"))
    for at in range(2):
        assert await place(api, f"p{at}", **requests(cpu="500m", memory="100Mi")) == "n1"
    assert await why_not(api, "more", **requests(cpu="1m")) == "0/1 nodes are available: 1 Insufficient cpu."
    assert await place(api, "none") == "n1"
    assert "Too many pods" in await why_not(api, "last")
    done = {"status": {"phase": "Succeeded"}}
    await api.ok("PATCH", f"{PODS}/p0/status", done, media=STRATEGIC)
    assert (await until(api, "more", status="True"))["spec"]["nodeName"] == "n1"
    await api.ok("DELETE", f"{PODS}/none", {"gracePeriodSeconds": 0})
    assert (await until(api, "last", status="True"))["spec"]["nodeName"] == "n1"


async def test_ports_of_a_node(api: Api) -> None:
    await api.ok("POST", NODES, node("n1"))

    def on_port(number: int, **more: Any) -> dict[str, Any]:
        return {"containers": [{"name": "c", "image": "img:1", "ports": [{"containerPort": number, **more}]}]}

    assert await place(api, "p1", **on_port(80, hostPort=8080)) == "n1"
    message = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    assert await why_not(api, "p2", **on_port(81, hostPort=8080)) == message
    assert await why_not(api, "p3", hostNetwork=True, **on_port(8080)) == message
    assert await place(api, "p4", **on_port(8080)) == "n1"
    await api.ok("DELETE", f"{PODS}/p1", {"gracePeriodSeconds": 0})
    assert (await until(api, "p2", status="True"))["spec"]["nodeName"] == "n1"
    assert (await api.ok("GET", f"{PODS}/p3"))["spec"]["containers"][0]["ports"][0]["hostPort"] == 8080


async def test_the_emptier_node_is_taken(api: Api) -> None:
    await api.ok("POST", NODES, node("n1"))
    await api.ok("POST", NODES, node("n2"))
    placed = [await place(api, f"p{at}") for at in range(4)]
    assert sorted(placed) == ["n1", "n1", "n2", "n2"]


async def test_gated_pods_wait(api: Api) -> None:
    await api.ok("POST", NODES, node("n1"))
    await api.ok("POST", PODS, pod("p", schedulingGates=[{"name": "example.com/go"}]))
    assert await until(api, "p", status="False", reason="SchedulingGated")
    await api.ok("PATCH", f"{PODS}/p", {"spec": {"schedulingGates": None}}, media=MERGE)
    assert (await until(api, "p", status="True"))["spec"]["nodeName"] == "n1"


@pytest.mark.parametrize(
    ("toleration", "covers"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "value": "b"}, True),
        ({"key": "a", "value": "b", "effect": "NoSchedule"}, True),
        ({"key": "a", "value": "c"}, False),
        ({"key": "a", "value": "b", "effect": "NoExecute"}, False),
        ({"key": "b", "operator": "Exists"}, False),
        ({"key": "a"}, False),
    ],
)
def test_tolerations(toleration: dict[str, Any], covers: bool) -> None:
    assert tolerates(toleration, {"key": "a", "value": "b", "effect": "NoSchedule"}) is covers


millis = st.integers(0, 10_000)


@given(main=st.lists(millis, min_size=1), first=st.lists(st.tuples(millis, st.booleans())), overhead=millis)
def test_what_a_pod_asks_for(main: list[int], first: list[tuple[int, bool]], overhead: int) -> None:
    def container(amount: int, sidecar: bool = False) -> dict[str, Any]:
        out: dict[str, Any] = {"resources": {"requests": {"cpu": f"{amount}m"}}}
        return {**out, "restartPolicy": "Always"} if sidecar else out

    spec = {
        "containers": [container(amount) for amount in main],
        "initContainers": [container(amount, sidecar) for amount, sidecar in first],
        "overhead": {"cpu": f"{overhead}m"},
    }
    peaks, running = [0], 0
    for amount, sidecar in first:
        running += amount if sidecar else 0
        peaks.append(running if sidecar else running + amount)
    expected = max(sum(main) + running, *peaks) + overhead
    assert demand(spec)["cpu"] == Decimal(expected) / 1000
    assert demand(spec)["pods"] == 1
