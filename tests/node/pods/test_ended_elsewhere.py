"""Pods that the API has as ended, by somebody else than their node."""

from __future__ import annotations

import asyncio

import pytest

import wasmlet
from tests.node.cluster import Cluster, condition, running
from tests.node.pods.test_pods import state
from tests.node.trouble import KUBELET
from wasmlet.controlplane.faults import Fail
from wasmlet.testing.reference import ReferenceProvider


class TestEndedBySomebodyElse:
    """A pod that somebody marks Failed or Succeeded is torn down, as kubelet's pod_workers do."""

    async def mark(self, cluster: Cluster, phase: str, name: str = "p") -> None:
        path = f"{cluster.pods}/{name}/status"
        await cluster.admin.patch(path, {"status": {"phase": phase, "reason": "Marked", "message": "by hand"}})

    def ended(self, pod: wasmlet.Pod) -> bool:
        return all("terminated" in entry["state"] for entry in pod.status.get("containerStatuses") or [{"state": {}}])

    @pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
    async def test_what_runs_is_ended(self, cluster: Cluster, provider: ReferenceProvider, phase: str) -> None:
        async with cluster.node(provider):
            made = await cluster.create()
            await cluster.until(running)
            await self.mark(cluster, phase)
            pod = await cluster.until(self.ended)
            assert (pod.phase, pod.status["reason"], pod.status["message"]) == (phase, "Marked", "by hand")
            assert state(pod)["terminated"]["exitCode"] == 143
            assert condition(pod.raw, "Ready")["status"] == "False"
            assert provider.deleted == [made.key]
            # It stays so, and goes when it is deleted.
            await cluster.delete()
            await cluster.until_gone()
        assert (provider.created, provider.deleted) == ([made.key], [made.key])

    async def test_a_change_before_its_end_is_written_means_nothing_else(self, cluster: Cluster) -> None:
        class Told(ReferenceProvider):
            ended = asyncio.Event()

            async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
                status = await super().delete_pod(key, grace_seconds)
                self.ended.set()
                return status

        provider = Told()
        async with cluster.node(provider):
            made = await cluster.create()
            await cluster.until(running)
            with cluster.plane.faults.add(Fail(500), path="*/pods/p/status", user=KUBELET) as rule:
                await self.mark(cluster, "Failed")
                await asyncio.wait_for(provider.ended.wait(), 30)
                await rule.until()
                await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"labels": {"changed": "meanwhile"}}})
                again = await cluster.create("q")  # once this one runs, the node has heard of the change
                await cluster.until(lambda pod: pod.name == "q" and provider.created == [made.key, again.key], "q")
            pod = await cluster.until(self.ended)
            assert state(pod)["terminated"]["exitCode"] == 143
        assert (provider.created, provider.deleted) == ([made.key, again.key], [made.key])

    async def test_its_room_is_given_to_others_when_it_has_ended(self, cluster: Cluster) -> None:
        class Stubborn(ReferenceProvider):
            ending, may_end = asyncio.Event(), asyncio.Event()

            async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
                self.ending.set()
                await self.may_end.wait()
                return await super().delete_pod(key, grace_seconds)

        provider = Stubborn()
        async with cluster.node(provider, max_pods=1):
            await cluster.create()
            await cluster.until(running)
            await self.mark(cluster, "Failed")
            await asyncio.wait_for(provider.ending.wait(), 30)
            await cluster.create("early")
            assert (await cluster.until(lambda pod: pod.finished, "early")).status["reason"] == "OutOfpods"
            provider.may_end.set()
            await cluster.until(self.ended)
            await cluster.create("late")
            await cluster.until(running, "late")

    async def test_a_creation_that_is_under_way_is_ended(self, cluster: Cluster) -> None:
        class Slow(ReferenceProvider):
            creating = asyncio.Event()

            async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
                await super().create_pod(pod, inputs)
                self.creating.set()
                await asyncio.Event().wait()

        provider = Slow()
        async with cluster.node(provider):
            made = await cluster.create()
            await asyncio.wait_for(provider.creating.wait(), 30)
            await self.mark(cluster, "Failed")
            await cluster.until(self.ended)
        assert provider.deleted == [made.key]

    async def test_what_was_marked_while_the_node_was_away(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        async with cluster.node(provider):
            made = await cluster.create()
            await cluster.until(running)
        await self.mark(cluster, "Failed")
        async with cluster.node(provider):
            pod = await cluster.until(self.ended)
        assert (pod.phase, provider.deleted) == ("Failed", [made.key])

    async def test_ends_that_the_api_had_not_heard_of_are_written(
        self, cluster: Cluster, provider: ReferenceProvider
    ) -> None:
        async with cluster.node(provider):
            made = await cluster.create(restartPolicy="Never")
            await cluster.until(running)
        provider.finish(made.key, 5)
        await self.mark(cluster, "Failed")
        async with cluster.node(provider):
            pod = await cluster.until(self.ended)
        assert state(pod)["terminated"]["exitCode"] == 5
        assert provider.deleted == []
