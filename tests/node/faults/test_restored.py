"""The node loop when its API server comes back with an older state, from a backup."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, condition, running
from tests.node.trouble import KUBELET, Troubled, fast_node
from wasmlet.controlplane.faults import Fail
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.testing.reference import ReferenceProvider


@pytest.fixture
def provider() -> ReferenceProvider:
    return ReferenceProvider()


async def write_much(cluster: Cluster) -> None:
    """Let the versions grow, so that what a node writes after the server was restored does not reach the present one:
    it could not be told from a server that was never away then."""
    for i in range(100):
        await cluster.admin.create(
            cluster.maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"much-{i}"}}
        )


class TestRestoredFromABackup:
    """The API server comes back with an older state: versions go back, and what was written since has never been."""

    async def test_statuses_are_sent_again(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        faults = cluster.plane.faults
        async with fast_node(cluster, provider):
            with faults.add(Fail(500), verb="patch", path="*/pods/*/status", user=KUBELET) as rule:
                runs = await cluster.create("runs")
                ends = await cluster.create("ends", restartPolicy="Never")
                await rule.until(2)
                await provider.until(lambda: len(provider.pods) == 2)
                state = faults.snapshot()
            await cluster.until(running, "runs")
            await cluster.until(running, "ends")
            provider.finish(ends.key, 0)
            await cluster.until(lambda pod: pod.finished, "ends")
            await faults.restart(state)
            assert not (await cluster.get("runs")).status.get("containerStatuses")
            await cluster.until(running, "runs")
            assert (await cluster.until(lambda pod: pod.finished, "ends")).phase == "Succeeded"
        assert Counter(provider.created) == {runs.key: 1, ends.key: 1}

    async def test_a_pod_that_was_gone_and_is_back_runs_again(
        self, cluster: Cluster, provider: ReferenceProvider
    ) -> None:
        async with fast_node(cluster, provider):
            made = await cluster.create()
            never = await cluster.create("never", restartPolicy="Never")
            await cluster.until(running)
            await cluster.until(running, "never")
            state = cluster.plane.faults.snapshot()
            await cluster.delete()
            await cluster.delete("never")
            await cluster.until_gone()
            await cluster.until_gone("never")
            await provider.until(lambda: not provider.pods)
            await cluster.plane.faults.restart(state)
            await provider.until(lambda: set(provider.pods) == {made.uid})
            pod = await cluster.until(lambda pod: restarts(pod) == 1)
            assert pod.phase == "Running"
            lost = await cluster.until(lambda pod: pod.finished, "never")
            assert lost.status["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"
        assert Counter(provider.created) == {made.key: 2, never.key: 1}

    async def test_a_change_that_a_delete_interrupted_is_told_when_the_pod_goes_on(self, cluster: Cluster) -> None:
        updating, ending = asyncio.Event(), asyncio.Event()

        async def trouble(call: str, after: bool) -> None:
            if call == "update_pod" and not updating.is_set():
                updating.set()
                await asyncio.Event().wait()
            if call == "delete_pod":
                ending.set()
                raise OSError("not now")

        provider = Troubled(trouble)
        maps = cluster.pods.replace("/pods", "/configmaps")
        await cluster.admin.create(maps, {"metadata": {"name": "words"}, "data": {"word": "old"}})
        source = [{"configMapRef": {"name": "words"}}]
        async with asyncio.timeout(60), fast_node(cluster, provider):
            container = {"name": "main", "image": "x", "envFrom": source}
            made = await cluster.create(containers=[container])
            await cluster.until(running)
            await cluster.admin.patch(f"{maps}/words", {"data": {"word": "new"}}, MERGE_PATCH)
            await updating.wait()
            state = cluster.plane.faults.snapshot()
            await cluster.delete()
            await ending.wait()
            updates = provider.calls.count("update_pod")
            await cluster.plane.faults.restart(state)
            await provider.until(lambda: provider.calls.count("update_pod") > updates)
        assert provider.created == [made.key]

    @pytest.mark.parametrize("back_to", ["running", "deleting"])
    async def test_a_pod_whose_end_has_never_been(self, cluster: Cluster, back_to: str) -> None:
        provider = Troubled()
        async with fast_node(cluster, provider):
            made = await cluster.create(metadata={"finalizers": ["example.com/wait"]})
            await cluster.until(running)
            state = cluster.plane.faults.snapshot()
            await cluster.delete()
            if back_to == "deleting":
                state = cluster.plane.faults.snapshot()
            await cluster.until(lambda pod: pod.raw["metadata"].get("deletionGracePeriodSeconds") == 0)
            await cluster.plane.faults.restart(state)
            if back_to == "running":
                await provider.until(lambda: provider.created.count(made.key) == 2)
                await cluster.until(lambda pod: pod.phase == "Running" and restarts(pod) == 1)
                await cluster.delete()
            await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"finalizers": []}}, MERGE_PATCH)
            await cluster.until_gone()
            await provider.until(lambda: not provider.pods)

    async def test_a_pod_that_comes_back_while_it_ends(self, cluster: Cluster) -> None:
        stuck, may_end = asyncio.Event(), asyncio.Event()

        async def trouble(call: str, after: bool) -> None:
            if call == "delete_pod":
                stuck.set()
                await may_end.wait()

        provider = Troubled(trouble)
        async with fast_node(cluster, provider):
            made = await cluster.create()
            await cluster.until(running)
            state = cluster.plane.faults.snapshot()
            marker = await cluster.create("marker")
            await cluster.until(running, "marker")
            await write_much(cluster)
            await cluster.delete(gracePeriodSeconds=0)
            await stuck.wait()
            await cluster.plane.faults.restart(state)
            # The first is told again to end, and the marker, which the restored server does not have, for the first
            # time: the node has heard of the whole state.
            await provider.until(lambda: provider.calls.count("delete_pod") == 3)
            assert set(provider.pods) == {made.uid, marker.uid}
            may_end.set()
            await provider.until(lambda: set(provider.pods) == {made.uid} and provider.created.count(made.key) == 2)
            await cluster.until(lambda pod: pod.phase == "Running" and restarts(pod) == 1)
        assert Counter(provider.created) == {made.key: 2, marker.key: 1}

    async def test_what_pods_refer_to_is_read_again(self, cluster: Cluster) -> None:
        handed: list[str] = []

        class Handed(Troubled):
            async def update_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
                handed.append(inputs.config_maps["settings"]["data"]["a"])
                await super().update_pod(pod, inputs)

        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "before"}}
        source = {"configMapKeyRef": {"name": "settings", "key": "a"}}
        provider = Handed()
        async with fast_node(cluster, provider):
            await cluster.admin.create(cluster.maps, body)
            container = {"name": "main", "image": "x", "env": [{"name": "A", "valueFrom": source}]}
            await cluster.create(containers=[container])
            await cluster.until(running)
            state = cluster.plane.faults.snapshot()
            await cluster.admin.patch(f"{cluster.maps}/settings", {"data": {"a": "after"}}, MERGE_PATCH)
            await provider.until(lambda: handed[-1:] == ["after"])
            await write_much(cluster)
            await cluster.plane.faults.restart(state)
            await provider.until(lambda: handed[-1:] == ["before"])

    async def test_an_emptier_one_ends_by_uid_and_only_after_a_complete_list(
        self, cluster: Cluster, provider: ReferenceProvider
    ) -> None:
        faults = cluster.plane.faults
        async with fast_node(cluster, provider):
            stays = await cluster.create("stays")
            await cluster.until(running, "stays")
            state = faults.snapshot()
            named = await cluster.create("stays2")
            goes = await cluster.create("goes")
            await cluster.until(running, "goes")
            await cluster.until(running, "stays2")
            with faults.add(Fail(500), verb="list", path="/api/v1/pods", user=KUBELET) as rule:
                await faults.restart(state)
                again = await cluster.create("stays2")
                await rule.until(4)
                assert set(provider.pods) == {stays.uid, named.uid, goes.uid}
            await provider.until(lambda: set(provider.pods) == {stays.uid, again.uid})
            assert (await cluster.until(running, "stays2")).uid == again.uid
        assert Counter(provider.created) == {pod.key: 1 for pod in (stays, named, goes, again)}

    async def test_an_empty_one_has_the_node_again(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        state = cluster.plane.faults.snapshot()
        async with fast_node(cluster, provider):
            await cluster.create("goes")
            await cluster.until(running, "goes")
            before = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
            await cluster.plane.faults.restart(state)
            params = {"watch": "1", "fieldSelector": f"metadata.name={NODE}"}
            node: Any = None
            async with asyncio.timeout(30), cluster.admin.stream("/api/v1/nodes", params) as lines:
                async for line in lines:
                    node = orjson.loads(line)["object"]
                    if (condition(node, "Ready") or {}).get("status") == "True":
                        break
            assert node["metadata"]["uid"] != before["metadata"]["uid"]
            await provider.until(lambda: not provider.pods)
            await cluster.create()
            await cluster.until(running)


def restarts(pod: wasmlet.Pod) -> int:
    return sum(container["restartCount"] for container in pod.status.get("containerStatuses", ()))
