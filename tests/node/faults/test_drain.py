"""A node that is drained when it ends: each pod is ended, told to go elsewhere, or waited for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

import wasmlet
from tests.node.cluster import Cluster, running
from tests.node.trouble import FastClock, Troubled
from wasmlet.kube.client import MERGE_PATCH


async def test_a_pod_whose_creation_is_under_way_is_ended(cluster: Cluster) -> None:
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
async def test_a_pod_whose_step_fails_is_ended(cluster: Cluster, call: str) -> None:
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


async def test_a_pod_that_waits_for_something_is_told_to_go_elsewhere(cluster: Cluster) -> None:
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


async def test_a_pod_that_is_being_deleted_is_waited_for(cluster: Cluster) -> None:
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


async def test_a_pod_that_comes_meanwhile_is_turned_away(cluster: Cluster) -> None:
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


async def test_an_end_that_fails_is_tried_again(cluster: Cluster) -> None:
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
