"""What the node owns of its Node is put right, whoever writes over it and in whatever order; the rest is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import attrs
import orjson
import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, condition
from tests.node.trouble import KUBELET, fast_node
from wasmlet.controlplane.faults import Delay, Drop, Fail, Proceed, Rule
from wasmlet.kube.client import MERGE_PATCH, STRATEGIC_PATCH
from wasmlet.node import registration
from wasmlet.provider import NodeImage
from wasmlet.testing import FakeClock
from wasmlet.testing.reference import ReferenceProvider

PATH = f"/api/v1/nodes/{NODE}"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"
UNKNOWN = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "it stopped posting"}
"""What the node lifecycle controller writes."""


@pytest.fixture
def reported_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put right is not so because it is reported anyway."""
    monkeypatch.setattr(registration, "REPORT_SECONDS", 1e6)


class Rich(ReferenceProvider):
    """Has something to say in every field."""

    gone = False

    async def node_status(self) -> wasmlet.NodeStatus:
        extra = {} if self.gone else {"example.com/lamp": "2"}
        conditions = () if self.gone else (wasmlet.Condition("Lamps", "True", "Lit", "all of them"),)
        return wasmlet.NodeStatus(
            capacity={"cpu": "2000m", "memory": "1024Ki"} | extra,
            images=(NodeImage(("example.com/a:1",), 17),),
            runtime_handlers=("wasmlet",),
            conditions=conditions,
        )


async def versions(cluster: Cluster) -> AsyncGenerator[Any, None]:
    """The Node now, and after each change."""
    params = {"watch": "1", "fieldSelector": f"metadata.name={NODE}"}
    async with cluster.admin.stream("/api/v1/nodes", params) as lines:
        async for line in lines:
            yield orjson.loads(line)["object"]


def owned(node: Any) -> Any:
    """The status without times."""
    conditions = [
        {k: v for k, v in c.items() if not k.startswith("last")} for c in node["status"].get("conditions", ())
    ]
    return node["status"] | {"conditions": sorted(conditions, key=lambda c: str(c["type"]))}


async def until(cluster: Cluster, wanted: Any) -> Any:
    """The Node as soon as its status is as wanted."""
    last = None
    try:
        async with asyncio.timeout(60), aclosing(versions(cluster)) as nodes:
            async for node in nodes:
                last = node
                if wanted(node):
                    return node
    except TimeoutError:
        pass
    raise AssertionError(f"the Node was not put right: {last and last['status']}")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (STRATEGIC_PATCH, {"conditions": [UNKNOWN]}),
        (STRATEGIC_PATCH, {"conditions": [{"type": "DiskPressure", "status": "Unknown"}]}),
        (STRATEGIC_PATCH, {"conditions": [{"type": "Ready", "message": "another"}]}),
        (STRATEGIC_PATCH, {"conditions": [{"type": "MemoryPressure", "$patch": "delete"}]}),
        (MERGE_PATCH, {"conditions": [UNKNOWN]}),
        (MERGE_PATCH, {"conditions": None}),
        (MERGE_PATCH, {"capacity": {"cpu": "9"}}),
        (MERGE_PATCH, {"allocatable": {"example.com/lamp": None}}),
        (MERGE_PATCH, {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}),
        (STRATEGIC_PATCH, {"addresses": [{"type": "ExternalIP", "address": "192.0.2.1"}]}),
        (MERGE_PATCH, {"nodeInfo": {"kubeletVersion": "v1.2.3"}}),
        (MERGE_PATCH, {"images": None}),
        (MERGE_PATCH, {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}),
        (MERGE_PATCH, {"declaredFeatures": None}),
        (MERGE_PATCH, {"runtimeHandlers": [{"name": "other"}]}),
    ],
    ids=lambda value: orjson.dumps(value).decode() if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("reported_seldom")
async def test_what_somebody_else_wrote_over_is_put_right(cluster: Cluster, kind: str, status: Any) -> None:
    async with fast_node(cluster, Rich()):
        before = await cluster.admin.get(PATH)
        over = await cluster.admin.patch(f"{PATH}/status", {"status": status}, kind)
        assert owned(over) != owned(before)
        after = await until(cluster, lambda node: owned(node) == owned(before))
    if "Unknown" in str(status) and "Ready" in str(status):
        assert condition(after, "Ready")["lastTransitionTime"] >= condition(before, "Ready")["lastTransitionTime"]


async def test_what_is_others_stays_and_costs_no_writes(cluster: Cluster) -> None:
    others = {
        "capacity": {"example.com/dongle": "4"},
        "conditions": [{"type": "KernelDeadlock", "status": "False", "reason": "KernelHasNoDeadlock"}],
        "volumesAttached": [{"name": "disk", "devicePath": "/dev/x"}],
    }
    faults = cluster.plane.faults
    async with fast_node(cluster, Rich()):
        await cluster.admin.patch(f"{PATH}/status", {"status": others})
        with faults.add(Delay(0), verb="patch", path=f"{PATH}/status", user=KUBELET) as writes:
            async with asyncio.timeout(30):
                with faults.add(Delay(0), path=LEASE, user=KUBELET) as renewals:
                    await renewals.until(6)
            assert writes.met == 0
        node = await cluster.admin.get(PATH)
    assert node["status"]["capacity"]["example.com/dongle"] == "4"
    assert condition(node, "KernelDeadlock")["reason"] == "KernelHasNoDeadlock"
    assert node["status"]["volumesAttached"] == others["volumesAttached"]


@pytest.mark.usefixtures("reported_seldom")
async def test_what_the_provider_says_no_more_is_taken_away(cluster: Cluster) -> None:
    provider = Rich()
    async with fast_node(cluster, provider):
        node = await cluster.admin.get(PATH)
        assert node["status"]["capacity"]["example.com/lamp"] == "2"
        provider.gone = True
        node = await until(cluster, lambda node: condition(node, "Lamps") is None)
    assert "example.com/lamp" not in node["status"]["capacity"] | node["status"]["allocatable"]


async def test_somebody_who_always_writes_the_same_is_not_answered_each_time(cluster: Cluster) -> None:
    faults = cluster.plane.faults

    async def contradict() -> None:
        async with aclosing(versions(cluster)) as nodes:
            async for node in nodes:
                if condition(node, "Ready")["status"] == "True":
                    await cluster.admin.patch(f"{PATH}/status", {"status": {"conditions": [UNKNOWN]}})

    async with fast_node(cluster, Rich()), asyncio.timeout(30):
        contradicting = asyncio.create_task(contradict())
        try:
            with (
                faults.add(Delay(0), path=LEASE, user=KUBELET) as renewals,
                faults.add(Delay(0), verb="patch", path=f"{PATH}/status", user=KUBELET) as writes,
            ):
                await renewals.until(6)
            assert 3 <= writes.met <= 16
        finally:
            contradicting.cancel()


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
@pytest.mark.usefixtures("reported_seldom")
async def test_the_node_is_reported_with_the_first_renewal_after_an_outage(cluster: Cluster, silent: bool) -> None:
    """The node lifecycle controller has written meanwhile, and the node's watch has not told of it yet."""
    faults = cluster.plane.faults
    async with fast_node(cluster, Rich()) as node:
        before = condition(await cluster.admin.get(PATH), "Ready")
        rule = faults.add(Delay() if silent else Drop(), user=KUBELET)
        faults.disconnect()
        watches = faults.add(Drop(), verb="watch", user=KUBELET)  # comes back last
        await rule.until(25)
        written = {**UNKNOWN, "lastTransitionTime": "2040-01-01T00:00:00Z"}
        await cluster.admin.patch(f"{PATH}/status", {"status": {"conditions": [written]}})
        with (
            faults.add(Delay(0), path=LEASE, user=KUBELET) as renewals,
            faults.add(Delay(0), verb="patch", path=f"{PATH}/status", user=KUBELET) as reports,
        ):
            rule.remove()
            await reports.until()
            # One that failed when the rule went, the one that did not, and one more while the report was on its way;
            # of a silent outage, all the tries that were under way at once.
            assert renewals.met <= (rule.met if silent else 3)
            found = await until(cluster, lambda node: condition(node, "Ready")["status"] == "True")
        watches.remove()
        assert condition(found, "Ready")["reason"] == before["reason"]
        # Not what the watch said last, which the controller had written over.
        assert condition(found, "Ready")["lastTransitionTime"] > before["lastTransitionTime"]
        assert node.config.node_name == NODE


@pytest.mark.usefixtures("reported_seldom")
async def test_a_node_that_was_deleted_during_an_outage_is_made_again_at_once(cluster: Cluster) -> None:
    faults = cluster.plane.faults
    async with fast_node(cluster, Rich()):
        before = await cluster.admin.get(PATH)
        with faults.add(Drop(), user=KUBELET) as rule:
            faults.disconnect()
            await rule.until(5)
            await cluster.admin.delete(PATH)
        found = await until(cluster, lambda node: (condition(node, "Ready") or {}).get("status") == "True")
    assert found["metadata"]["uid"] != before["metadata"]["uid"]


async def test_what_an_idle_node_asks_in_an_hour(cluster: Cluster) -> None:
    clock, faults = FakeClock(), cluster.plane.faults
    async with asyncio.timeout(60), wasmlet.Node(Rich(), cluster.config(), clock=clock):
        with (
            faults.add(Delay(0), user=KUBELET) as requests,
            faults.add(Delay(0), verb="patch", path=LEASE, user=KUBELET) as renewals,
            faults.add(Delay(0), verb="patch", path=f"{PATH}/status", user=KUBELET) as reports,
        ):
            while renewals.met < 360:
                await clock.next_sleep(9, 10)  # the lease and the look at the Node
                clock.advance(10)
                await renewals.until(renewals.met + 1)
            assert 10 <= reports.met <= 13
            assert requests.met <= renewals.met + reports.met + 5


@attrs.define
class Asked:
    """Lets requests go on, and says which there were."""

    methods: list[str] = attrs.field(factory=list)

    async def apply(self, rule: Rule, request: Any, proceed: Proceed) -> Any:
        self.methods.append(request.method)
        return await proceed()


async def test_a_first_start_asks_for_the_lease_once_and_makes_it(cluster: Cluster) -> None:
    with cluster.plane.faults.add(asked := Asked(), path=f"{LEASE.rpartition('/')[0]}*", user=KUBELET):
        async with cluster.node(ReferenceProvider()):
            assert asked.methods == ["GET", "POST"]


async def test_a_lease_that_is_made_meanwhile_is_taken(cluster: Cluster) -> None:
    """It is not there when it is asked for, and is there when it is to be made."""
    with cluster.plane.faults.add(Fail(404), path=LEASE, verb="get", user=KUBELET):
        async with cluster.node(ReferenceProvider()):
            first = await cluster.admin.get(LEASE)
        async with cluster.node(ReferenceProvider()):
            second = await cluster.admin.get(LEASE)
    assert second["spec"]["renewTime"] > first["spec"]["renewTime"]
