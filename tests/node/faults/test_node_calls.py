"""A provider that can list no pods, or not say how its node is: the node starts, is Ready or not, and ends anyhow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, condition, running
from tests.node.trouble import FastClock, fast_node
from wasmlet.node import assembly, registration
from wasmlet.node.services import NodeServices
from wasmlet.provider import PodRecord
from wasmlet.testing.reference import ReferenceProvider

NODE_PATH = f"/api/v1/nodes/{NODE}"


async def until_ready(cluster: Cluster, status: str) -> str:
    """The message of the node's Ready condition as soon as it has that status."""
    async with asyncio.timeout(cluster.seconds):
        async with cluster.admin.stream("/api/v1/nodes", {"watch": "1", "resourceVersion": "0"}) as content:
            async for _ in content:
                found = condition(await cluster.admin.get(NODE_PATH), "Ready")
                if found is not None and found["status"] == status:
                    return str(found["message"])
    raise AssertionError("the watch ended")


class Lists(ReferenceProvider):
    """What it listed is not to be had at first."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: Any = None
        self.listed = 0

    async def list_pods(self) -> Sequence[PodRecord]:
        self.listed += 1
        self._touched.set()
        if self.trouble is not None:
            await self.trouble()
        return await super().list_pods()


async def raises() -> None:
    raise RuntimeError("the backend is away")


async def hangs() -> None:
    await asyncio.Event().wait()


async def cancels() -> None:
    raise asyncio.CancelledError


@asynccontextmanager
async def starting(cluster: Cluster, provider: wasmlet.Provider, **settings: Any) -> AsyncIterator[wasmlet.Node]:
    """A node that has begun to start."""
    node = wasmlet.Node(provider, cluster.config(**settings), clock=FastClock())
    entering = asyncio.create_task(node.__aenter__())
    try:
        yield node
        await entering
    finally:
        await node.stop()
        await asyncio.wait([entering])


class TestTheStart:
    @pytest.mark.parametrize("trouble", [raises, hangs, cancels])
    async def test_a_list_that_fails_keeps_the_node_from_being_ready_and_does_not_end_it(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, trouble: Any
    ) -> None:
        provider = Lists()
        async with cluster.node(provider):
            made = await cluster.create(restartPolicy="Never")
            kept = await cluster.create("kept", restartPolicy="Never")
            await asyncio.gather(cluster.until(running), cluster.until(running, "kept"))
        provider.finish(made.key, 3)
        provider.trouble, provider.listed = trouble, 0
        monkeypatch.setattr(assembly, "NodeServices", partial(NodeServices, call_seconds=0.5))
        async with starting(cluster, provider):
            assert "could not list its pods" in await until_ready(cluster, "False")
            await provider.until(lambda: provider.listed >= 3)
            assert (await cluster.get("kept")).phase == "Running"
            provider.trouble = None
            await until_ready(cluster, "True")
            await cluster.until(lambda pod: pod.phase == "Failed")
            assert (await cluster.get("kept")).status["containerStatuses"][0]["restartCount"] == 0
        assert sorted(key.name for key in provider.created) == [kept.name, made.name]

    async def test_a_node_that_cannot_list_is_stopped_at_once(self, cluster: Cluster) -> None:
        provider = Lists()
        provider.trouble = hangs
        node = wasmlet.Node(provider, cluster.config())
        entering = asyncio.create_task(node.__aenter__())
        await provider.until(lambda: provider.listed)
        async with asyncio.timeout(30):
            await node.stop()
            await entering

    @pytest.mark.parametrize("trouble", [raises, hangs])
    async def test_a_node_status_that_fails_at_first_is_asked_for_again(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, trouble: Any
    ) -> None:
        monkeypatch.setattr(registration, "PING_SECONDS", 0.1)
        left = 3

        class Late(ReferenceProvider):
            async def node_status(self) -> wasmlet.NodeStatus:
                nonlocal left
                if left:
                    left -= 1
                    await trouble()
                return wasmlet.NodeStatus(capacity={"cpu": "3"}, labels={"late": "1"})

        async with wasmlet.Node(Late(), cluster.config(), clock=FastClock()):
            node = await cluster.admin.get(NODE_PATH)
        assert (left, node["metadata"]["labels"]["late"], node["status"]["capacity"]["cpu"]) == (0, "1", "3")


class Sick(ReferenceProvider):
    """What `ping` and `node_status` do is set by the test."""

    pinged: Any = None
    asked: Any = None

    async def ping(self) -> None:
        if self.pinged is not None:
            await self.pinged()

    async def node_status(self) -> Any:
        if self.asked is not None:
            return await self.asked()
        return await super().node_status()


async def lies() -> Any:
    return "all is well"


async def exaggerates() -> wasmlet.NodeStatus:
    return wasmlet.NodeStatus(capacity={"cpu": "a lot"})


async def mumbles() -> wasmlet.NodeStatus:
    return wasmlet.NodeStatus(capacity={"cpu": object()})  # type: ignore[dict-item]


class TestTheNodeStatus:
    @pytest.mark.parametrize("asked", [raises, hangs, cancels, lies, exaggerates, mumbles])
    @pytest.mark.parametrize("pinged", [raises, hangs])
    async def test_it_does_not_keep_not_ready_from_being_written(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, asked: Any, pinged: Any
    ) -> None:
        monkeypatch.setattr(registration, "PING_SECONDS", 0.2)
        provider = Sick()
        async with fast_node(cluster, provider):
            await until_ready(cluster, "True")
            before = (await cluster.admin.get(NODE_PATH))["status"]["capacity"]
            provider.asked, provider.pinged = asked, pinged
            expected = "the backend is away" if pinged is raises else "did not answer within 0.2 s"
            assert expected in await until_ready(cluster, "False")
            assert (await cluster.admin.get(NODE_PATH))["status"]["capacity"] == before
            provider.pinged = None
            await until_ready(cluster, "True")  # with what was known of the node
            provider.asked = None
            await cluster.create()
            await cluster.until(running)

    @pytest.mark.parametrize("asked", [raises, hangs])
    async def test_the_end_of_the_node_is_told_without_it(self, cluster: Cluster, asked: Any) -> None:
        provider = Sick()
        async with cluster.node(provider, drain_on_exit=True):
            await cluster.create()
            await cluster.until(running)
            provider.asked = provider.pinged = asked
        assert await until_ready(cluster, "False") == "node is shutting down"
        assert (await cluster.get()).phase == "Failed"

    async def test_a_node_that_was_deleted_is_made_again_without_it(self, cluster: Cluster) -> None:
        provider = Sick()
        async with fast_node(cluster, provider):
            before = await cluster.admin.get(NODE_PATH)
            provider.asked = raises
            await cluster.admin.delete(NODE_PATH)
            async with asyncio.timeout(30):
                async with cluster.admin.stream("/api/v1/nodes", {"watch": "1"}) as content:
                    assert (await content.readline()).startswith(b'{"type":"ADDED"')
        after = await cluster.admin.get(NODE_PATH)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["status"]["capacity"] == before["status"]["capacity"]
