"""Nodes that are emptied, and what is remembered of them, with a Node that an API server has."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.operator.pools import pod, shared_of
from wasmlet.clock import Pacing
from wasmlet.kube import Client, errors, load_identity
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.operator.drain import LAST_GRACE, PAUSES, Drain
from wasmlet.operator.draining import CORDON_SECONDS, END_SECONDS, Drains
from wasmlet.operator.fleet import Fleet
from wasmlet.operator.pool import LABEL
from wasmlet.operator.seen import DRAINING, Member, NodeSeen, Seen
from wasmlet.operator.shared import Wakes
from wasmlet.testing import ControlPlane, FakeClock

NODE = "/api/v1/nodes/edge-0"


class Unheard(Client):
    """A client that does not hear the answers to its changes of Nodes while `deaf` says so."""

    deaf = False

    async def patch(self, path: str, *arguments: Any) -> dict[str, Any]:
        answer = await super().patch(path, *arguments)
        if self.deaf:
            raise errors.Unreachable("the connection is broken")
        return answer


class Rig:
    def __init__(self, client: Unheard, clock: FakeClock) -> None:
        rng, wakes = random.Random(0), Wakes()
        fleet = Fleet(client, "wasmlet", Pacing(clock, rng), wakes.wake)
        more: Any = None  # no events
        self.client = client
        self.clock = clock
        self.wake = wakes.of("edge")
        self.shared = shared_of(client, "wasmlet", fleet, more, wakes, Pacing(clock, rng))

    async def seen(self) -> Seen:
        """The one node, as the API server has it."""
        return Seen(None, [Member(0, "edge-0", pod(0), NodeSeen.of(await self.client.get(NODE)))])

    async def node(self) -> NodeSeen:
        found = (await self.seen()).members[0].node
        assert found is not None
        return found

    async def emptied(self, drains: Drains) -> None:
        """Empty the node, and return when that is done; it has no pods."""
        await drains.follow([await self.node()], await self.seen(), 3600)
        while not drains.emptied(await self.seen(), 3600):
            self.wake.clear()
            if not drains.emptied(await self.seen(), 3600):
                await self.wake.wait()


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Rig, Callable[[], Drains]]]:
    async with (
        ControlPlane(node_monitor_grace=None, schedule=False) as plane,
        Unheard(await load_identity(plane.kubeconfig), throttled_tries=0) as client,
    ):
        metadata = {"name": "edge-0", "labels": {LABEL: "edge"}}
        await client.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        rig = Rig(client, FakeClock())
        yield rig, lambda: Drains(rig.shared, "edge", lambda *_, **__: None)


@pytest.mark.parametrize("by", ["an answer that is lost", "another operator"])
async def test_that_a_node_was_empty_once_says_nothing_the_next_time(by: str) -> None:
    async with asyncio.timeout(30), opened() as (rig, drains_of), drains_of() as drains:
        await rig.emptied(drains)
        if by == "another operator":
            async with drains_of() as other:
                await other.release(await rig.node())
        else:
            rig.client.deaf = True
            with pytest.raises(errors.Unreachable):
                await drains.release(await rig.node())
            rig.client.deaf = False
        assert (await rig.node()).draining is None
        await drains.follow([await rig.node()], await rig.seen(), 3600)
        rig.clock.advance(CORDON_SECONDS)
        await drains.follow([await rig.node()], await rig.seen(), 3600)
        assert (await rig.node()).draining is not None
        assert drains.emptied(await rig.seen(), 3600) == set()


async def test_a_node_that_could_not_be_cordoned_is_cordoned_the_next_time() -> None:
    async with asyncio.timeout(30), opened() as (rig, drains_of), drains_of() as drains:
        before = await rig.seen()
        rig.client.deaf = True
        with pytest.raises(errors.Unreachable):
            await drains.follow([await rig.node()], before, 3600)
        rig.client.deaf = False
        await rig.client.patch(NODE, {"metadata": {"annotations": {DRAINING: None}}, "spec": {"unschedulable": None}})
        await drains.follow([await rig.node()], await rig.seen(), 3600)
        assert (await rig.node()).cordoned


async def test_a_node_that_somebody_else_takes_back_is_cordoned_again_in_seconds() -> None:
    async with asyncio.timeout(30), opened() as (rig, drains_of), drains_of() as drains:
        await rig.emptied(drains)
        await rig.client.patch(NODE, {"spec": {"unschedulable": None}})
        again = await drains.follow([await rig.node()], await rig.seen(), 3600)
        assert again is not None
        assert again <= CORDON_SECONDS
        rig.clock.advance(again)
        await drains.follow([await rig.node()], await rig.seen(), 3600)
        assert (await rig.node()).cordoned


async def test_a_node_that_takes_pods_after_it_was_empty_is_not_empty() -> None:
    async with asyncio.timeout(30), opened() as (rig, drains_of), drains_of() as drains:
        await rig.emptied(drains)
        spec = {"nodeName": "edge-0", "containers": [{"name": "c", "image": "i"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        path = "/api/v1/namespaces/default/pods"
        await rig.client.create(path, body)
        while drains.emptied(await rig.seen(), 3600):
            rig.wake.clear()
            if drains.emptied(await rig.seen(), 3600):
                await rig.wake.wait()
        while "deletionTimestamp" not in (await rig.client.get(f"{path}/p"))["metadata"]:  # noqa: ASYNC110 - looked at
            await asyncio.sleep(0.05)
        assert drains.emptied(await rig.seen(), 3600) == set()
        await rig.client.delete(f"{path}/p", {"gracePeriodSeconds": 0})
        await rig.emptied(drains)


async def test_pods_that_may_not_leave_an_agent_are_deleted_when_the_time_is_over() -> None:
    """They would outlive the Node, and run twice: here, and where the cluster makes them again."""
    async with asyncio.timeout(60), opened() as (rig, drains_of), drains_of() as drains:
        pods = "/api/v1/namespaces/default/pods"
        for name, grace in (("patient", 3600), ("brief", 5)):
            spec = {"nodeName": "edge-0", "terminationGracePeriodSeconds": grace}
            spec["containers"] = [{"name": "c", "image": "i"}]
            metadata = {"name": name, "labels": {"app": "web"}}
            await rig.client.create(pods, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            await rig.client.patch(f"{pods}/{name}/status", {"status": status})
        budget = {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 2}
        body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": budget}
        budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
        await rig.client.create(budgets, body)
        while not ((await rig.client.get(f"{budgets}/web")).get("status") or {}).get("expectedPods"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

        async def of_agent() -> Seen:
            return Seen(None, [Member(0, "edge-0", None, await rig.node(), remote=True)])

        async def look(*, until: Callable[[], Awaitable[bool]]) -> None:
            while not await until():
                rig.wake.clear()
                await drains.follow([await rig.node()], await of_agent(), 600)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await rig.wake.wait()

        async def held() -> bool:
            return any(one.held for one in drains.progress())

        async def graces() -> list[int | None]:
            items = (await rig.client.get(pods))["items"]
            return [one["metadata"].get("deletionGracePeriodSeconds") for one in items]

        async def deleted() -> bool:
            return None not in await graces()

        async def empty() -> bool:
            return bool(drains.emptied(await of_agent(), 600))

        await look(until=held)
        rig.clock.advance(601)
        assert drains.emptied(await of_agent(), 600) == set()
        await look(until=deleted)
        assert await graces() == [5, LAST_GRACE]
        assert drains.emptied(await of_agent(), 600) == set()
        for name in ("patient", "brief"):
            await rig.client.delete(f"{pods}/{name}", {"gracePeriodSeconds": 0})
        await look(until=empty)


async def test_an_agent_that_ends_nothing_goes_all_the_same() -> None:
    async with asyncio.timeout(30), opened() as (rig, drains_of), drains_of() as drains:
        spec = {"nodeName": "edge-0", "containers": [{"name": "c", "image": "i"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        await rig.client.create("/api/v1/namespaces/default/pods", body)
        await drains.follow([await rig.node()], await rig.seen(), 600)
        node = await rig.node()
        agent = Seen(None, [Member(0, "edge-0", None, node, remote=True)])
        rig.clock.advance(600 + END_SECONDS - 2)
        assert drains.emptied(agent, 600) == set()
        rig.clock.advance(3)
        assert drains.emptied(agent, 600) == {node.uid}


@pytest.mark.parametrize(("remote", "then"), [(False, "it ends"), (True, "its pods are deleted")])
async def test_what_follows_a_timeout_is_said(remote: bool, then: str) -> None:
    told: list[str] = []
    async with (
        asyncio.timeout(30),
        opened() as (rig, _),
        Drains(rig.shared, "edge", lambda reason, message, **_: told.append(message)) as drains,
    ):
        await rig.client.patch(NODE, {"metadata": {"annotations": {DRAINING: "2020-01-01T00:00:00Z"}}})
        drains.emptied(Seen(None, [Member(0, "edge-0", None, await rig.node(), remote=remote)]), 0)
    assert told == [f"node edge-0 is not empty after 0 s: {then}"]


async def test_a_time_that_never_ends_is_no_error() -> None:
    async with asyncio.timeout(30), opened() as (rig, drains_of), drains_of() as drains:
        await rig.client.patch(NODE, {"metadata": {"annotations": {DRAINING: "9999-12-31T23:59:59Z"}}})
        assert drains.emptied(await rig.seen(), 1e9) == set()
        again = await drains.follow([await rig.node()], await rig.seen(), 1e9)
        assert again is not None
        assert again >= 1e9


async def test_nodes_that_are_emptied_together_are_one_event() -> None:
    """An API server keeps each event for an hour, and a recorder drops those of an object that has had too many."""
    async with asyncio.timeout(30), opened() as (rig, _):
        names = [f"edge-{number}" for number in range(5)]
        for name in names[1:]:
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {LABEL: "edge"}}}
            await rig.client.create("/api/v1/nodes", body)
        nodes = [NodeSeen.of(await rig.client.get(f"/api/v1/nodes/{name}")) for name in names]
        found = Seen(None, [Member(at, node.name, pod(at), node) for at, node in enumerate(nodes)])
        told: list[str] = []
        async with Drains(rig.shared, "edge", lambda reason, message, **_: told.append(message)) as drains:
            await drains.follow(nodes, found, 3600)
        (message,) = told
        assert message.startswith("edge-0, edge-1, edge-2, and 2 more: ")


class Refusing(Unheard):
    """A client whose evictions and deletes of pods are all refused; it counts them."""

    asked = 0

    async def create(self, path: str, *arguments: Any) -> dict[str, Any]:
        if path.endswith("/eviction"):
            self.asked += 1
            raise errors.TooManyRequests(429, "TooManyRequests", "a budget")
        return await super().create(path, *arguments)

    async def delete(self, path: str, *arguments: Any) -> dict[str, Any]:
        self.asked += 1
        raise errors.Forbidden(403, "Forbidden", "an old role")


class Following(Drain):
    """A drain that says which pods have changed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.changes: asyncio.Queue[str] = asyncio.Queue()

    def applied(self, item: dict[str, Any]) -> None:
        super().applied(item)
        self.changes.put_nowait(item["metadata"]["name"])


@pytest.mark.parametrize("insists", [False, True])
async def test_pods_that_change_are_not_asked_more_often(insists: bool) -> None:
    """Each change of a pod on the node wakes the drain."""
    clock, told = FakeClock(), asyncio.Event()
    async with (
        asyncio.timeout(60),
        ControlPlane(node_monitor_grace=None, schedule=False) as plane,
        Refusing(await load_identity(plane.kubeconfig), throttled_tries=0) as client,
    ):
        drain = Following(client, "edge-0", clock, random.Random(0), told.set)
        if insists:
            drain.insist()
        pods = "/api/v1/namespaces/default/pods"
        for name in ("a", "b"):
            spec = {"nodeName": "edge-0", "containers": [{"name": "c", "image": "i"}]}
            await client.create(pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        draining = asyncio.create_task(drain.run())
        while drain.left != 2 or not drain.held:
            await told.wait()
            told.clear()
        await clock.next_sleep(at_most=PAUSES.initial * 2)
        for number in range(20):
            await client.patch(f"{pods}/a", {"metadata": {"labels": {"n": str(number)}}}, MERGE_PATCH)
            await drain.changes.get()
            for _ in range(50):
                await asyncio.sleep(0)
        assert client.asked == 2
        clock.advance(PAUSES.initial * 2)
        while client.asked < 4:  # noqa: ASYNC110 - looked at
            await asyncio.sleep(0.01)
        draining.cancel()
        await asyncio.wait([draining])
