"""Pods that run when the node loop starts: which are taken over, and which end."""

from __future__ import annotations

from tests.node.cluster import Cluster, running
from tests.node.pods.test_pods import state
from wasmlet.testing.reference import ReferenceProvider


class TestAdoption:
    """A node loop that starts finds what ran while it was away."""

    async def test_what_runs_goes_on(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        async with cluster.node(provider):
            await cluster.create()
            before = await cluster.until(running)
        async with cluster.node(provider):
            await cluster.create("other")
            await cluster.until(running, "other")
            after = await cluster.get()
        assert after.status == before.status
        assert len(provider.created) == 2

    async def test_what_ended_is_reported(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        async with cluster.node(provider):
            made = await cluster.create(restartPolicy="Never")
            await cluster.until(running)
        provider.finish(made.key, 7)
        async with cluster.node(provider):
            pod = await cluster.until(lambda pod: pod.finished)
        assert state(pod)["terminated"]["exitCode"] == 7

    async def test_what_the_api_does_not_know_is_ended(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        async with cluster.node(provider):
            await cluster.create()
            await cluster.until(running)
        await cluster.delete(gracePeriodSeconds=0)
        await cluster.create()  # of the same name, and yet another one
        async with cluster.node(provider):
            pod = await cluster.until(running)
            await provider.until(lambda: list(provider.pods) == [pod.uid])

    async def test_what_is_lost_is_reported_as_lost(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        async with cluster.node(provider):
            await cluster.create(restartPolicy="Never")
            await cluster.until(running)
        provider.pods.clear()
        async with cluster.node(provider):
            pod = await cluster.until(lambda pod: pod.finished)
        assert pod.phase == "Failed"
        ended = state(pod)["terminated"]
        assert (ended["reason"], ended["exitCode"]) == ("ContainerStatusUnknown", 137)
        assert len(provider.created) == 1

    async def test_what_is_lost_is_not_run_again_where_a_part_of_it_is_done(
        self, cluster: Cluster, provider: ReferenceProvider
    ) -> None:
        containers = [{"name": name, "image": "file:///none.wasm"} for name in ("done", "going")]
        async with cluster.node(provider):
            made = await cluster.create(restartPolicy="OnFailure", containers=containers)
            await cluster.until(running)
            provider.finish(made.key, 0, "done")
            await cluster.until(lambda pod: "terminated" in state(pod))
        provider.pods.clear()
        async with cluster.node(provider):
            pod = await cluster.until(lambda pod: pod.finished)
        assert pod.phase == "Failed"
        assert [state(pod, i)["terminated"]["exitCode"] for i in (0, 1)] == [0, 137]
        assert len(provider.created) == 1

    async def test_what_is_lost_and_may_be_restarted_is_a_restart(
        self, cluster: Cluster, provider: ReferenceProvider
    ) -> None:
        async with cluster.node(provider):
            await cluster.create()
            await cluster.until(running)
        for restarts in (1, 2):
            provider.pods.clear()
            async with cluster.node(provider):
                pod = await cluster.until(
                    lambda pod, n=restarts: pod.status["containerStatuses"][0]["restartCount"] == n
                )
                status = pod.status["containerStatuses"][0]
                assert pod.phase == "Running"
                assert status["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
                assert "running" in status["state"]
        # Adopted once more, the provider counts none of them, and the API's count does not go down.
        async with cluster.node(provider):
            await cluster.create("other")
            await cluster.until(running, "other")
            assert (await cluster.get()).status["containerStatuses"][0]["restartCount"] == 2

    async def test_a_delete_that_was_asked_for_meanwhile_is_finished(
        self, cluster: Cluster, provider: ReferenceProvider
    ) -> None:
        async with cluster.node(provider):
            await cluster.create()
            await cluster.until(running)
        await cluster.delete()
        async with cluster.node(provider):
            await cluster.until_gone()
        assert not provider.pods
