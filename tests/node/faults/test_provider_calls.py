"""A provider that hangs or fails when it is asked for the status of one pod: the others do without.

And the promise of `wasmlet.provider`: for one UID, one call at a time.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import structlog

import wasmlet
from tests.node.cluster import Cluster, running
from tests.node.trouble import Troubled, fast_node
from wasmlet.kube.client import MERGE_PATCH


class Polled(Troubled):
    """A provider without a stream of changes, as that of the tutorial is."""

    poll_seconds = 0.2

    def changes(self) -> Any:
        return None


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
