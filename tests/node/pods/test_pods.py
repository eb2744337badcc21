"""A pod's life through the node loop, with a real API between, and providers that misbehave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import wasmlet
from tests.node.cluster import Cluster, condition, running
from tests.node.trouble import KUBELET, Troubled, troubled_cluster
from wasmlet.controlplane.faults import Delay
from wasmlet.kube import errors
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.node.pods.report import EACH_CONTAINER_SECONDS
from wasmlet.provider import StatusChanged
from wasmlet.testing.reference import ReferenceProvider


def state(pod: wasmlet.Pod, container: int = 0) -> Any:
    statuses = pod.status.get("containerStatuses")
    return statuses[container]["state"] if statuses else {}


async def test_a_pod_runs_and_says_so(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        await cluster.create()
        pod = await cluster.until(running)
    assert "startedAt" in state(pod)["running"]
    assert pod.status["hostIP"] == "127.0.0.1"
    assert pod.status["startTime"]
    assert pod.status["containerStatuses"][0]["ready"] is True
    for kind in ("PodScheduled", "Initialized", "PodReadyToStartContainers", "ContainersReady", "Ready"):
        assert condition(pod.raw, kind)["status"] == "True"
        assert condition(pod.raw, kind)["lastTransitionTime"]
    assert provider.created == [pod.key]


@pytest.mark.parametrize(("code", "phase", "reason"), [(0, "Succeeded", "PodCompleted"), (3, "Failed", "PodFailed")])
async def test_a_pod_that_ends_is_reported_and_then_left_alone(
    cluster: Cluster, provider: ReferenceProvider, code: int, phase: str, reason: str
) -> None:
    async with cluster.node(provider):
        made = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        provider.finish(made.key, code)
        pod = await cluster.until(lambda pod: pod.finished)
        assert pod.phase == phase
        assert state(pod)["terminated"]["exitCode"] == code
        assert condition(pod.raw, "Ready")["reason"] == reason
        await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
        await cluster.create("other")
        await cluster.until(running, "other")
        assert (await cluster.get()).status == pod.status
    assert provider.updated == []


async def test_a_deleted_pod_shows_how_it_ended_before_it_goes(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        await cluster.create()
        await cluster.until(running)
        async with asyncio.timeout(30):
            seen = asyncio.create_task(_states(cluster))
            await cluster.delete()
            states = await seen
    # The grace period of 30 s is not waited for: nothing is left to wait for.
    assert states[-1] == "DELETED"
    assert states[-2]["terminated"]["exitCode"] == 143
    assert not provider.pods


async def _states(cluster: Cluster) -> list[Any]:
    states: list[Any] = []
    async for kind, raw in cluster.versions("p"):
        if kind == "DELETED":
            return [*states, kind]
        states.append(state(wasmlet.Pod(raw)))
    return states


async def test_a_pod_that_is_deleted_at_once_is_ended_at_once(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        await cluster.create()
        await cluster.until(running)
        await cluster.delete(gracePeriodSeconds=0)
        await provider.until(lambda: not provider.pods)


async def test_a_successor_of_the_same_name_is_another_pod(cluster: Cluster) -> None:
    class Slow(ReferenceProvider):
        def __init__(self) -> None:
            super().__init__()
            self.ending, self.may_end = asyncio.Event(), asyncio.Event()

        async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
            self.ending.set()
            await self.may_end.wait()
            return await super().delete_pod(key, grace_seconds)

    provider = Slow()
    async with cluster.node(provider):
        first = await cluster.create()
        await cluster.until(running)
        await cluster.delete(gracePeriodSeconds=0)
        await provider.ending.wait()
        second = await cluster.create()
        pod = await cluster.until(running)
        assert pod.uid == second.uid != first.uid
        assert set(provider.pods) == {first.uid, second.uid}
        provider.may_end.set()
        await provider.until(lambda: set(provider.pods) == {second.uid})
        assert (await cluster.get()).phase == "Running"


async def test_a_shortened_grace_period_is_passed_on(cluster: Cluster) -> None:
    class Stubborn(ReferenceProvider):
        def __init__(self) -> None:
            super().__init__()
            self.graces: list[float] = []
            self.asked = asyncio.Event()

        async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
            self.graces.append(grace_seconds)
            self.asked.set()
            if grace_seconds > 1:
                await asyncio.Event().wait()
            return await super().delete_pod(key, grace_seconds)

    provider = Stubborn()
    async with cluster.node(provider):
        await cluster.create()
        await cluster.until(running)
        await cluster.delete(gracePeriodSeconds=600)
        await provider.asked.wait()
        await cluster.delete(gracePeriodSeconds=1)
        await cluster.until_gone()
    assert provider.graces == [600, 1]


async def test_finalizers_keep_the_object_and_not_the_workload(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        await cluster.create(metadata={"finalizers": ["example.com/wait"]})
        await cluster.until(running)
        await cluster.delete()
        pod = await cluster.until(lambda pod: pod.finished)
        assert not provider.pods
        assert pod.deleting
        await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"finalizers": []}}, MERGE_PATCH)
        await cluster.until_gone()


async def test_a_provider_that_fails_is_tried_again_and_told_of(cluster: Cluster) -> None:
    class Flaky(ReferenceProvider):
        failures = 3

        async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("out of luck")
            await super().create_pod(pod, inputs)

    provider = Flaky()
    async with cluster.node(provider):
        await cluster.create()
        pod = await cluster.until(lambda pod: state(pod).get("waiting"))
        assert pod.phase == "Pending"
        assert state(pod)["waiting"] == {"reason": "CreateContainerError", "message": "out of luck"}
        await cluster.until(running)
    assert len(provider.created) == 1
    assert ["out of luck" in event["message"] for event in await cluster.events("p")].count(True) == 1


async def test_a_refused_pod_stays_pending_with_the_field_and_recovers(cluster: Cluster) -> None:
    class Choosy(ReferenceProvider):
        tries = 0

        async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
            self.tries += 1
            if "ok" not in pod.labels:
                raise wasmlet.Refused("spec.containers[0].image", "not that one")
            await super().create_pod(pod, inputs)

    provider = Choosy()
    async with cluster.node(provider):
        await cluster.create()
        pod = await cluster.until(lambda pod: state(pod).get("waiting"))
        assert pod.phase == "Pending"
        waiting = state(pod)["waiting"]
        assert waiting["reason"] == "CreateContainerConfigError"
        assert waiting["message"] == "spec.containers[0].image: not that one"
        assert provider.tries == 1
        await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"labels": {"ok": ""}}}, MERGE_PATCH)
        await cluster.until(running)
    assert provider.tries == 2


async def test_a_refused_change_leaves_what_runs_alone(cluster: Cluster) -> None:
    class Choosy(ReferenceProvider):
        async def update_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
            await super().update_pod(pod, inputs)
            raise wasmlet.Refused("metadata.labels", "not these")

    provider = Choosy()
    async with cluster.node(provider):
        await cluster.create()
        await cluster.until(running)
        path = f"{cluster.pods}/p"
        await cluster.admin.patch(path, {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
        await provider.until(lambda: provider.updated)
        await cluster.create("other")
        await cluster.until(running, "other")
        assert "running" in state(await cluster.get())
        assert any("metadata.labels: not these" in event["message"] for event in await cluster.events("p"))


async def test_an_update_of_a_pod_that_the_provider_lost_starts_it_again(cluster: Cluster) -> None:
    provider = ReferenceProvider()
    async with cluster.node(provider):
        made = await cluster.create()
        await cluster.until(running)
        provider.pods.clear()
        path = f"{cluster.pods}/p"
        await cluster.admin.patch(path, {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
        pod = await cluster.until(lambda pod: pod.status["containerStatuses"][0]["restartCount"] == 1)
        assert pod.uid == made.uid
    assert len(provider.created) == 2


async def test_a_rejected_pod_fails_with_its_reason(cluster: Cluster) -> None:
    class Full(ReferenceProvider):
        async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
            raise wasmlet.Rejected("OutOfcpu", "no cpu left")

    async with cluster.node(Full()):
        await cluster.create()
        pod = await cluster.until(lambda pod: pod.finished)
    assert (pod.phase, pod.status["reason"], pod.status["message"]) == ("Failed", "OutOfcpu", "no cpu left")


@pytest.mark.parametrize("hang", ["create", "delete"])
async def test_a_pod_can_be_deleted_while_the_provider_hangs(cluster: Cluster, hang: str) -> None:
    class Hanging(ReferenceProvider):
        def __init__(self) -> None:
            super().__init__()
            self.hung = asyncio.Event()
            self.cancelled = 0

        async def _hang(self) -> None:
            self.hung.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
            if hang == "create":
                await self._hang()
            await super().create_pod(pod, inputs)

        async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
            if hang == "delete" and not self.hung.is_set():
                await self._hang()
            return await super().delete_pod(key, grace_seconds)

    provider = Hanging()
    async with cluster.node(provider):
        await cluster.create()
        if hang == "delete":
            await cluster.until(running)
            await cluster.delete()
        await provider.hung.wait()
        await cluster.delete(gracePeriodSeconds=1)
        await cluster.until_gone()
    assert provider.cancelled == 1
    assert not provider.pods


async def test_changes_of_the_pod_are_passed_on(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        await cluster.create()
        pod = await cluster.until(running)
        labels = {"metadata": {"labels": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 99}}
        await cluster.admin.patch(f"{cluster.pods}/p", labels, MERGE_PATCH)
        held = await provider.until(lambda: provider.updated and provider.pods[pod.uid].pod)
    assert held.labels == {"a": "b"}
    assert held.spec["activeDeadlineSeconds"] == 99
    assert len(provider.updated) == 1


async def test_inputs_are_handed_over_and_their_changes_too(cluster: Cluster, provider: ReferenceProvider) -> None:
    maps = cluster.maps
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]
    container = {"name": "c", "image": "file:///none.wasm", "env": env}
    async with cluster.node(provider):
        pod = await cluster.create(containers=[container], automountServiceAccountToken=False)
        await provider.until(lambda: pod.uid in provider.inputs)
        assert provider.inputs[pod.uid].config_maps == {}
        assert "kubernetes" in [s["metadata"]["name"] for s in provider.inputs[pod.uid].services]
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}
        await cluster.admin.create(maps, body)
        await provider.until(lambda: provider.inputs[pod.uid].config_maps)
        assert provider.inputs[pod.uid].config_maps["settings"]["data"] == {"a": "1"}
        await cluster.admin.patch(f"{maps}/settings", {"data": {"a": "2"}}, MERGE_PATCH)
        await provider.until(lambda: provider.inputs[pod.uid].config_maps["settings"]["data"] == {"a": "2"})
        await cluster.admin.delete(f"{maps}/settings")
        await provider.until(lambda: not provider.inputs[pod.uid].config_maps)


async def test_changes_that_break_off_are_followed_again(cluster: Cluster) -> None:
    class Broken(ReferenceProvider):
        breaks = 2

        async def changes(self) -> Any:
            if self.breaks:
                self.breaks -= 1
                raise RuntimeError("broken off")
            async for change in super().changes():
                yield change

    provider = Broken()
    async with cluster.node(provider):
        made = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        provider.finish(made.key)
        await cluster.until(lambda pod: pod.phase == "Succeeded")


async def test_a_provider_without_a_stream_is_polled(cluster: Cluster) -> None:
    class Polled(ReferenceProvider):
        poll_seconds = 0.01

        def changes(self) -> None:  # type: ignore[override]
            return None

    provider = Polled()
    async with cluster.node(provider):
        made = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        provider.finish(made.key, 1)
        await cluster.until(lambda pod: pod.phase == "Failed")
        await cluster.delete()
        await cluster.until_gone()


async def test_many_at_once(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        names = [f"p{i}" for i in range(60)]
        pods: Sequence[wasmlet.Pod] = await asyncio.gather(*map(cluster.create, names))
        await asyncio.gather(*(cluster.until(running, name) for name in names))
        await asyncio.gather(*map(cluster.delete, names))
        await asyncio.gather(*map(cluster.until_gone, names))
    assert sorted(provider.created) == sorted(pod.key for pod in pods)
    assert not provider.pods
    with pytest.raises(errors.ObjectNotFound):
        await cluster.get("p0")


async def test_containers_that_start_one_after_the_other_are_few_writes(tmp_path: Path) -> None:
    """A status has all containers of a pod: a write for each that starts would be as many as there are, of all."""
    count = 100
    containers = [{"name": f"c{i}", "image": "file:///none.wasm"} for i in range(count)]
    async with troubled_cluster(tmp_path) as cluster:
        provider, faults = Slowly(), cluster.plane.faults
        async with cluster.node(provider):
            with faults.add(Delay(0), verb="patch", path="*/pods/p/status", user=KUBELET) as writes:
                made = await cluster.create(containers=containers)
                await provider.until(lambda: made.uid in provider.pods)
                begun = time.monotonic()
                for started in range(1, count + 1):
                    provider.begin(made.key, started)
                    await cluster.get()
                await cluster.until(lambda pod: all("running" in c["state"] for c in pod.status["containerStatuses"]))
                seconds = time.monotonic() - begun
            assert writes.met <= 3 + seconds / (EACH_CONTAINER_SECONDS * count)
            # What ends right after is written before the node has stopped.
            provider.finish(made.key, 3)
        pod = await cluster.get()
        assert {entry["state"]["terminated"]["exitCode"] for entry in pod.status["containerStatuses"]} == {3}


class Slowly(Troubled):
    """Its containers start when they are told to."""

    async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        await super().create_pod(pod, inputs)
        held = self.pods[pod.uid]
        self.running = held.status
        held.status = wasmlet.PodStatus()

    def begin(self, key: wasmlet.PodKey, count: int) -> None:
        """Let so many of the pod's containers run."""
        held = self.pods[key.uid]
        held.status = attrs.evolve(self.running, containers=self.running.containers[:count])
        self.tell(StatusChanged(key, held.status))
