"""One provider that hangs, raises or lies: the other pods, the node's Ready condition and the node's end do without it.

And the promise of `wasmlet.provider`: for one UID, one call at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

import wasmlet
from tests.node.cluster import NODE, Cluster, condition, running
from tests.node.trouble import FastClock, Troubled, fast_node, troubled_cluster
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.node import assembly, registration
from wasmlet.node.services import NodeServices
from wasmlet.provider import PodRecord
from wasmlet.testing.reference import ReferenceProvider

NODE_PATH = f"/api/v1/nodes/{NODE}"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with troubled_cluster(tmp_path) as cluster:
        yield cluster


class Polled(Troubled):
    """A provider without a stream of changes, as that of the tutorial is."""

    poll_seconds = 0.2

    def changes(self) -> Any:
        return None


async def until_ready(cluster: Cluster, status: str) -> str:
    """The message of the node's Ready condition as soon as it has that status."""
    async with asyncio.timeout(cluster.seconds):
        async with cluster.admin.stream("/api/v1/nodes", {"watch": "1", "resourceVersion": "0"}) as content:
            async for _ in content:
                found = condition(await cluster.admin.get(NODE_PATH), "Ready")
                if found is not None and found["status"] == status:
                    return str(found["message"])
    raise AssertionError("the watch ended")


class TestPolling:
    async def test_a_status_that_hangs_delays_no_other(self, cluster: Cluster) -> None:
        hung = asyncio.Event()

        class Hangs(Polled):
            async def pod_status(self, key: wasmlet.PodKey) -> wasmlet.PodStatus:
                if key.name == "hangs":
                    hung.set()
                    await asyncio.Event().wait()
                return await super().pod_status(key)

        provider = Hangs()
        async with cluster.node(provider):
            before = await cluster.create("before", restartPolicy="Never")
            await cluster.until(running, "before")
            await cluster.create("hangs")
            await hung.wait()
            provider.finish(before.key, 3)
            await cluster.create("after")
            async with asyncio.timeout(30):
                await cluster.until(lambda pod: pod.phase == "Failed", "before")
                await cluster.until(running, "after")
            # What hangs is no reason to leave the pod itself alone, and is not waited for.
            async with asyncio.timeout(30):
                await cluster.admin.patch(f"{cluster.pods}/hangs", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
                await provider.until(lambda: any(key.name == "hangs" for key in provider.updated))
                await cluster.delete("hangs", gracePeriodSeconds=0)
                await cluster.until_gone("hangs")
        assert provider.overlaps == []

    async def test_slow_statuses_are_asked_for_side_by_side(self, cluster: Cluster) -> None:
        waiting, several = 0, asyncio.Event()

        async def slow(call: str, after: bool) -> None:
            nonlocal waiting
            if call == "pod_status" and not after and finished:
                waiting += 1
                if waiting == 3:
                    several.set()
                await several.wait()

        provider, names, finished = Polled(slow), [f"p{i}" for i in range(5)], False
        async with cluster.node(provider):
            pods = [await cluster.create(name, restartPolicy="Never") for name in names]
            await asyncio.gather(*(cluster.until(running, name) for name in names))
            finished = True
            for pod in pods:
                provider.finish(pod.key, 1)
            await asyncio.gather(*(cluster.until(lambda pod: pod.finished, name) for name in names))
        assert provider.overlaps == []

    async def test_a_status_that_fails_is_asked_for_ever_less_often_and_said_once(self, cluster: Cluster) -> None:
        tries = 0

        async def trouble(call: str, after: bool) -> None:
            nonlocal tries
            if call == "pod_status" and failing:
                tries += 1
                raise RuntimeError(f"failure number {tries}")

        provider, failing = Polled(trouble), True
        with structlog.testing.capture_logs() as lines:
            async with fast_node(cluster, provider, 40):
                made = await cluster.create(restartPolicy="Never")
                await provider.until(lambda: tries >= 1)
                begun = asyncio.get_running_loop().time()
                await provider.until(lambda: tries >= 6)
                # Pauses of 0.2, 0.4, 0.8, 1.6 and 3.2 seconds lie between six tries.
                assert asyncio.get_running_loop().time() - begun >= 6.2 / 40
                failing = False
                provider.finish(made.key, 2)
                await cluster.until(lambda pod: pod.finished)
        said = [line for line in lines if "pod's status" in line["event"] and line["log_level"] == "warning"]
        assert [line["error"] for line in said] == ["failure number 1"]

    async def test_a_step_that_fails_keeps_its_pauses_and_the_status_is_reported(self, cluster: Cluster) -> None:
        """Asking for the status does not cut the pause of a failed update short, and is not put off by it."""
        tries = 0

        async def trouble(call: str, after: bool) -> None:
            nonlocal tries
            if call == "update_pod":
                tries += 1
                raise RuntimeError("no update today")

        provider = Polled(trouble)
        async with fast_node(cluster, provider, 40):
            made = await cluster.create(restartPolicy="Never")
            await cluster.until(running)
            await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
            await provider.until(lambda: tries >= 4)
            asked = provider.calls.count("pod_status")
            await provider.until(lambda: tries >= 7)  # 4 to 32 seconds between each
            # Some 300 times; less often on a busy machine, but not only when the update is tried.
            assert provider.calls.count("pod_status") - asked > 6
            provider.finish(made.key, 2)
            await cluster.until(lambda pod: pod.finished)
        assert provider.overlaps == []


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


class TestTheDrain:
    async def test_a_pod_whose_creation_is_under_way_is_ended(self, cluster: Cluster) -> None:
        begun = asyncio.Event()

        async def trouble(call: str, after: bool) -> None:
            if call == "create_pod" and after:  # it runs, and the call has not returned
                begun.set()
                await asyncio.Event().wait()

        provider = Troubled(trouble)
        async with cluster.node(provider, drain_on_exit=True):
            await cluster.create()
            await begun.wait()
            assert provider.pods
        pod = await cluster.get()
        assert (pod.phase, pod.status["reason"]) == ("Failed", "Terminated")
        assert not provider.pods
        assert provider.overlaps == []

    @pytest.mark.parametrize("call", ["create_pod", "update_pod"])
    async def test_a_pod_whose_step_fails_is_ended(self, cluster: Cluster, call: str) -> None:
        failed = asyncio.Event()

        async def trouble(name: str, after: bool) -> None:
            if name == call and after:
                failed.set()
                raise RuntimeError("half-way")

        provider = Troubled(trouble)
        async with cluster.node(provider, drain_on_exit=True):
            await cluster.create()
            if call == "update_pod":
                await cluster.until(running)
                await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
            await failed.wait()
        pod = await cluster.get()
        assert (pod.phase, pod.status["reason"]) == ("Failed", "Terminated")
        assert not provider.pods
        assert provider.overlaps == []

    async def test_a_pod_that_waits_for_something_is_told_to_go_elsewhere(self, cluster: Cluster) -> None:
        """A kubelet fails every pod that is not done, so that its controller makes another at once."""
        container = {"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "missing"}}]}

        class Refuses(Troubled):
            async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
                raise wasmlet.Refused("spec.containers[0].envFrom", "there is no such config map")

        provider = Refuses()
        async with cluster.node(provider, drain_on_exit=True):
            await cluster.create(containers=[container])
            await cluster.until(lambda pod: pod.status.get("containerStatuses"))
        pod = await cluster.get()
        assert (pod.phase, pod.status["reason"]) == ("Failed", "Terminated")
        assert "terminated" in pod.status["containerStatuses"][0]["state"]

    async def test_a_pod_that_is_being_deleted_is_waited_for(self, cluster: Cluster) -> None:
        ending = asyncio.Event()

        class Stubborn(Troubled):
            async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
                ending.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(grace_seconds):
                        await asyncio.Event().wait()
                return await super().delete_pod(key, grace_seconds)

        provider = Stubborn()
        async with cluster.node(provider, drain_on_exit=True, drain_seconds=1.0):
            await cluster.create(terminationGracePeriodSeconds=600)
            await cluster.until(running)
            await cluster.delete()
            await ending.wait()
        await cluster.until_gone()
        assert not provider.pods
        assert provider.overlaps == []

    async def test_a_pod_that_comes_meanwhile_is_turned_away(self, cluster: Cluster) -> None:
        ending, may_end = asyncio.Event(), asyncio.Event()

        async def trouble(call: str, after: bool) -> None:
            if call == "delete_pod" and not after:
                ending.set()
                await may_end.wait()

        provider = Troubled(trouble)
        async with cluster.node(provider, drain_on_exit=True) as node:
            await cluster.create()
            await cluster.until(running)
            node.request_stop()
            await ending.wait()
            await cluster.create("late")
            late = await cluster.until(lambda pod: pod.finished, "late")
            may_end.set()
        assert (late.phase, late.status["reason"]) == ("Failed", "NodeShutdown")
        assert [key.name for key in provider.created] == ["p"]

    async def test_an_end_that_fails_is_tried_again(self, cluster: Cluster) -> None:
        left = 2

        async def trouble(call: str, after: bool) -> None:
            nonlocal left
            if call == "delete_pod" and not after and left:
                left -= 1
                raise RuntimeError("not now")

        provider = Troubled(trouble)
        async with wasmlet.Node(provider, cluster.config(drain_on_exit=True), clock=FastClock()):
            await cluster.create()
            await cluster.until(running)
        assert (await cluster.get()).phase == "Failed"
        assert not provider.pods


async def test_calls_for_one_pod_never_overlap(cluster: Cluster) -> None:
    """Updates, deletes, polls and a drain at once, each of which takes a moment."""

    async def slow(call: str, after: bool) -> None:
        await asyncio.sleep(0.03)

    class Often(Polled):
        poll_seconds = 0.01

    provider, names = Often(slow), [f"p{i}" for i in range(6)]
    async with cluster.node(provider, drain_on_exit=True):
        for name in names:
            await cluster.create(name)
        for number in range(4):
            for name in names:
                labels = {"at": str(number), "now": str(datetime.now(UTC).microsecond)}
                await cluster.admin.patch(f"{cluster.pods}/{name}", {"metadata": {"labels": labels}}, MERGE_PATCH)
            await provider.called("pod_status", provider.calls.count("pod_status") + len(names))
        await cluster.delete(names[0])
        await cluster.delete(names[1], gracePeriodSeconds=0)
    assert not provider.pods
    assert {"create_pod", "update_pod", "delete_pod", "pod_status"} <= set(provider.calls)
    assert provider.overlaps == []
