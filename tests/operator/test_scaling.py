"""How many nodes a pool has that scales itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import attrs
import pytest

from tests.operator.pools import member, pool, seen
from wasmlet.kube import Client, load_identity
from wasmlet.model.times import rfc3339
from wasmlet.operator.pool import Pool
from wasmlet.operator.scaling import Scaler, Waiting, labels_of, selects
from wasmlet.testing import ControlPlane, FakeClock

WASM = {"handler.wasmlet.dev/wasmlet": "true"}


def scaling(replicas: int, **more: Any) -> Pool:
    return pool(replicas=replicas, autoscaling={"min": 1, "max": 3, "pendingSeconds": 30, "emptySeconds": 600, **more})


def unschedulable(clock: FakeClock, selector: dict[str, str], name: str = "p") -> dict[str, Any]:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "lastTransitionTime": rfc3339(clock.now()),
    }
    return {"metadata": {"uid": name}, "spec": {"nodeSelector": selector}, "status": {"conditions": [condition]}}


class Rig:
    def __init__(self, client: Client) -> None:
        self.clock = FakeClock()
        self.client = client
        self.waiting = Waiting()
        self.scaler = Scaler(client, self.waiting, self.clock)

    async def wish(self, found: Pool, nodes: int | None = None, since: datetime | None = None, **more: Any) -> int:
        count = found.replicas if nodes is None else nodes
        assert found.autoscaling is not None
        assert count is not None
        members = [member(n, **more) for n in range(count)]
        there = seen([attrs.evolve(m, node=m.node and attrs.evolve(m.node, since=since)) for m in members], count)
        return (await self.scaler.wish(found, found.autoscaling, there))[0]

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with (
        ControlPlane(node_monitor_grace=None, schedule=False) as plane,
        Client(await load_identity(plane.kubeconfig)) as client,
    ):
        yield Rig(client)


async def test_one_more_when_a_pod_has_waited_long_enough(rig: Rig) -> None:
    rig.waiting.applied(unschedulable(rig.clock, WASM))
    assert await rig.wish(scaling(1, min=0)) == 1
    rig.wait(31)
    assert await rig.wish(scaling(1, min=0)) == 2
    assert await rig.wish(scaling(3, min=0)) == 3  # as many as there may be
    rig.waiting.deleted(unschedulable(rig.clock, WASM))
    assert await rig.wish(scaling(1)) == 1


async def test_a_pod_of_which_nobody_says_since_when_has_waited_since_it_was_made(rig: Rig) -> None:
    given = unschedulable(rig.clock, WASM)
    del given["status"]["conditions"][0]["lastTransitionTime"]
    given["metadata"]["creationTimestamp"] = rfc3339(rig.clock.now())
    rig.waiting.applied(given)
    assert await rig.wish(scaling(1, min=0)) == 1
    rig.wait(31)
    assert await rig.wish(scaling(1, min=0)) == 2


async def test_none_more_while_the_last_one_is_still_starting(rig: Rig) -> None:
    rig.waiting.applied(unschedulable(rig.clock, WASM))
    rig.wait(31)
    assert await rig.wish(scaling(2), nodes=1) == 2
    assert await rig.wish(scaling(2), ready=False) == 2


async def test_none_more_while_pods_may_be_about_to_be_given_to_the_last_one(rig: Rig) -> None:
    """The scheduler tries a pod again some time after there is a new node, and says nothing new of it before."""
    rig.waiting.applied(unschedulable(rig.clock, WASM))
    rig.wait(31)
    ready = rig.clock.now()
    assert await rig.wish(scaling(2), since=ready) == 2
    rig.wait(31)
    assert await rig.wish(scaling(2), since=ready) == 3


async def test_pods_that_go_elsewhere_count_for_nothing(rig: Rig) -> None:
    rig.waiting.applied(unschedulable(rig.clock, {"kubernetes.io/os": "linux"}, "linux"))
    rig.waiting.applied(unschedulable(rig.clock, {}, "any"))
    rig.waiting.applied(unschedulable(rig.clock, {"handler.wasmlet.dev/other": "true"}, "other"))
    rig.waiting.applied({"metadata": {"uid": "new"}, "spec": {"nodeSelector": WASM}, "status": {}})
    rig.wait(31)
    assert await rig.wish(scaling(1), nodes=1) == 1


async def test_one_less_when_the_last_node_has_long_been_empty(rig: Rig) -> None:
    spec = {"nodeName": "edge-1", "containers": [{"name": "c", "image": "i"}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    await rig.client.create("/api/v1/namespaces/default/pods", body)
    rig.wait(601)
    assert await rig.wish(scaling(2)) == 2
    await rig.client.delete("/api/v1/namespaces/default/pods/p", {"gracePeriodSeconds": 0})
    assert await rig.wish(scaling(2)) == 2
    rig.wait(599)
    assert await rig.wish(scaling(2)) == 2
    rig.wait(2)
    assert await rig.wish(scaling(2)) == 1
    assert await rig.wish(scaling(1)) == 1  # as few as there may be


async def test_what_somebody_else_has_asked_for_is_kept_within_bounds(rig: Rig) -> None:
    assert await rig.wish(scaling(0)) == 1
    assert await rig.wish(scaling(9)) == 3


def test_labels_of_a_node_that_is_not_there_yet() -> None:
    labels = labels_of(pool(template={"metadata": {"labels": {"zone": "a"}}}), [])
    assert selects({"handler.wasmlet.dev/wasmlet-dense": "true", "zone": "a"}, labels)
    assert selects({"kubernetes.io/arch": "wasm"}, labels)
    assert not selects({"zone": "a"}, labels)  # nothing says that they are for wasmlet's nodes
    assert not selects({"handler.wasmlet.dev/wasmlet-wasmer": "true"}, labels)
