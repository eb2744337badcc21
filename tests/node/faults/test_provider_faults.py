"""The node loop over providers in trouble: that fail, hang, lie, or lose their stream of changes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

import wasmlet
from tests.node.cluster import Cluster, running
from tests.node.faults.test_restored import restarts
from tests.node.trouble import Troubled, fast_node
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.node import assembly
from wasmlet.node.pods.report import STARTING_SECONDS
from wasmlet.node.services import NodeServices
from wasmlet.provider import Change, StatusChanged


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider has 0.1 seconds for a call."""
    monkeypatch.setattr(assembly, "NodeServices", partial(NodeServices, call_seconds=0.1))


def unlucky(seed: int, probability: float) -> Any:
    """Trouble that strikes by chance, before the work is done or after it."""
    rng = random.Random(seed)

    async def trouble(call: str, after: bool) -> None:
        if rng.random() < probability:
            raise RuntimeError(f"bad luck with {call} {'after' if after else 'before'} the fact")

    return trouble


@pytest.mark.parametrize("seed", range(4))
async def test_a_provider_that_fails_now_and_then(cluster: Cluster, seed: int) -> None:
    provider = Troubled()
    names = [f"p{i}" for i in range(8)]
    async with fast_node(cluster, provider, 60):
        provider.trouble = unlucky(seed, 0.4)
        pods = [await cluster.create(name, restartPolicy="Never") for name in names]
        await asyncio.gather(*(cluster.until(running, name) for name in names))
        for name in names:
            await cluster.admin.patch(f"{cluster.pods}/{name}", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
        await provider.until(lambda: all(held.pod.labels == {"a": "b"} for held in provider.pods.values()))
        for pod in pods[:4]:
            provider.finish(pod.key, 1)
        provider.break_changes()
        await asyncio.gather(*(cluster.until(lambda pod: pod.finished, name) for name in names[:4]))
        await asyncio.gather(*map(cluster.delete, names))
        await asyncio.gather(*map(cluster.until_gone, names))
        await provider.until(lambda: not provider.pods)
    assert Counter(provider.created) == Counter(pod.key for pod in pods)


async def test_inputs_that_changed_are_handed_over_again_until_they_are_taken(cluster: Cluster) -> None:
    maps, provider = cluster.maps, Troubled()
    container = {"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "m", "optional": True}}]}
    async with fast_node(cluster, provider):
        pod = await cluster.create(containers=[container])
        await cluster.until(running)
        provider.trouble = unlucky(1, 1)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}
        await cluster.admin.create(maps, body)
        await provider.called("update_pod", 3)
        provider.trouble = unlucky(1, 0)
        await provider.until(lambda: "m" in provider.inputs[pod.uid].config_maps)
    assert provider.inputs[pod.uid].config_maps["m"]["data"] == {"a": "1"}


async def test_a_provider_that_fails_for_ever_is_asked_ever_less_often(cluster: Cluster) -> None:
    tries = 0

    async def trouble(call: str, after: bool) -> None:
        nonlocal tries
        if call == "create_pod":
            tries += 1
            raise RuntimeError(f"failure number {tries}")  # a text that changes changes the status each time

    provider = Troubled(trouble)
    async with fast_node(cluster, provider, 40):
        await cluster.create()
        begun = asyncio.get_running_loop().time()
        await cluster.until(lambda pod: tries >= 6)
        # Pauses of 0.5, 1, 2, 4 and 8 seconds lie between six tries.
        assert asyncio.get_running_loop().time() - begun >= 15.5 / 40
        await cluster.delete()
        await cluster.until_gone()


async def test_an_end_that_fails_for_ever_is_never_forgotten(cluster: Cluster) -> None:
    provider = Troubled()
    async with fast_node(cluster, provider, 100):
        made = await cluster.create()
        other = await cluster.create("other")
        await cluster.until(running)
        provider.trouble = unlucky(1, 1)
        await cluster.delete(gracePeriodSeconds=0)
        await cluster.create()
        await provider.called("delete_pod", 6)
        assert set(provider.pods) >= {made.uid}
        provider.trouble = unlucky(1, 0)
        await cluster.until(running)
        await provider.until(lambda: made.uid not in provider.pods)
        assert other.uid in provider.pods


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("hangs", ["create_pod", "update_pod", "delete_pod", "list_pods"])
async def test_a_provider_that_hangs_is_asked_again(cluster: Cluster, hangs: str, after: bool) -> None:
    left, cancelled = 2, 0

    async def trouble(call: str, done: bool) -> None:
        nonlocal left, cancelled
        if call == hangs and done == after and left:
            left -= 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise

    provider = Troubled()
    async with fast_node(cluster, provider):
        provider.trouble = trouble
        made = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
        await provider.until(lambda: provider.pods[made.uid].pod.labels)
        provider.break_changes()
        provider.finish(made.key, 2)
        await cluster.until(lambda pod: pod.finished)
        await cluster.delete()
        await cluster.until_gone()
        await provider.until(lambda: not provider.pods)
    assert provider.created == [made.key]
    # Done is done: a call that hung after its work is repeated only while there is something to be told.
    assert cancelled == 2 if not after else cancelled <= 2


async def test_a_call_that_cancels_itself_is_a_failure_like_any_other(cluster: Cluster) -> None:
    cancels = {"create_pod", "delete_pod", "changes"}

    async def trouble(call: str, after: bool) -> None:
        if call in cancels:
            cancels.discard(call)
            raise asyncio.CancelledError

    provider = Troubled(trouble)
    async with fast_node(cluster, provider):
        made = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        provider.finish(made.key, 0)
        await cluster.until(lambda pod: pod.finished)
        await cluster.create("other")
        await cluster.until(running, "other")
        await cluster.delete("other")
        await cluster.until_gone("other")
    assert not cancels


async def test_reports_that_nobody_asked_for_change_nothing(cluster: Cluster) -> None:
    provider = Troubled()
    async with fast_node(cluster, provider):
        made = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        early = provider.pods[made.uid].status
        provider.finish(made.key, 4)
        before = await cluster.until(lambda pod: pod.finished)
        provider.tell(StatusChanged(made.key, early))  # out of order: it has ended already
        provider.tell(StatusChanged(wasmlet.PodKey("default", "p", "not-its-uid"), early))
        provider.tell(StatusChanged(wasmlet.PodKey("nowhere", "nothing", "no-uid"), early))
        await cluster.create("other")
        await cluster.until(running, "other")
        assert (await cluster.get()).status == before.status
        await cluster.delete()
        await cluster.until_gone()
        provider.tell(StatusChanged(made.key, early))
        await cluster.delete("other")
        await cluster.until_gone("other")
    assert len(provider.created) == 2


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        wasmlet.PodStatus(containers=(wasmlet.ContainerStatus("c", wasmlet.Running(None)),)),  # type: ignore[arg-type]
        wasmlet.PodStatus(containers=(wasmlet.ContainerStatus("c", "running"),)),  # type: ignore[arg-type]
        wasmlet.PodStatus(containers=None),  # type: ignore[arg-type]
    ],
    ids=["none", "no-time", "no-state", "no-containers"],
)
async def test_a_status_that_is_none_does_not_end_the_node(cluster: Cluster, nonsense: Any) -> None:
    provider = Troubled()
    async with fast_node(cluster, provider):
        made = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        provider.tell(StatusChanged(made.key, nonsense))
        await cluster.create("other")
        await cluster.until(running, "other")
        provider.finish(made.key, 0)
        provider.break_changes()
        await cluster.until(lambda pod: pod.phase == "Succeeded")


class TestChangesThatBreak:
    """The stream of changes ends in an error, and what happens until it is open again is not told by it."""

    async def test_what_ended_meanwhile_is_found(self, cluster: Cluster) -> None:
        provider = Troubled()
        async with fast_node(cluster, provider):
            made = await cluster.create(restartPolicy="Never")
            await cluster.until(running)
            lists = provider.calls.count("list_pods")
            failures = 3

            async def trouble(call: str, after: bool) -> None:
                nonlocal failures
                if call in ("changes", "list_pods") and failures:
                    failures -= 1
                    raise OSError("not now")

            provider.trouble = trouble
            provider.break_changes()
            provider.finish(made.key, 9)
            assert (await cluster.until(lambda pod: pod.finished)).phase == "Failed"
            assert failures == 0
            assert provider.calls.count("list_pods") > lists

    @pytest.mark.parametrize(("policy", "phase"), [("Always", "Running"), ("Never", "Failed")])
    async def test_what_was_lost_meanwhile_is_found(self, cluster: Cluster, policy: str, phase: str) -> None:
        provider = Troubled()
        async with fast_node(cluster, provider):
            made = await cluster.create(restartPolicy=policy)
            kept = await cluster.create("kept", restartPolicy="Never")
            await cluster.until(running)
            before = await cluster.until(running, "kept")
            provider.pods.pop(made.uid)
            provider.break_changes()
            pod = await cluster.until(lambda pod: pod.finished or restarts(pod) == 1)
            assert pod.phase == phase
            ended = pod.status["containerStatuses"][0]["lastState" if policy == "Always" else "state"]["terminated"]
            assert ended["reason"] == "ContainerStatusUnknown"
            assert (await cluster.get("kept")).status == before.status
        assert Counter(provider.created) == {made.key: 2 if policy == "Always" else 1, kept.key: 1}

    async def test_what_is_still_there_is_handed_over_again(self, cluster: Cluster) -> None:
        """What is behind the provider may have started anew, and know less of its pods than it was told."""
        provider = Troubled()
        async with fast_node(cluster, provider):
            runs, done = await cluster.create("runs"), await cluster.create("done", restartPolicy="Never")
            await cluster.until(running, "runs")
            await cluster.until(running, "done")
            provider.finish(done.key)
            await cluster.until(lambda pod: pod.finished, "done")
            assert provider.updated == []
            provider.break_changes()
            await provider.until(lambda: provider.updated)
            provider.break_changes()
            await provider.until(lambda: len(provider.updated) > 1)
        assert provider.updated == [runs.key, runs.key]
        assert provider.created == [runs.key, done.key]

    async def test_a_provider_that_cannot_go_on_ends_the_node_and_no_pod(self, cluster: Cluster) -> None:
        provider = Troubled()

        async def trouble(call: str, after: bool) -> None:
            if call == "changes":
                raise wasmlet.ConfigError("somebody else has it")

        node = wasmlet.Node(provider, cluster.config())
        await node.__aenter__()
        made = await cluster.create()
        await cluster.until(running)
        provider.trouble = trouble
        provider.break_changes()
        with pytest.raises(wasmlet.ConfigError, match="somebody else has it"):
            await node.wait()
        assert list(provider.pods) == [made.uid]

    async def test_what_the_api_does_not_know_is_ended(self, cluster: Cluster) -> None:
        provider = Troubled()
        async with fast_node(cluster, provider):
            made = await cluster.create()
            await cluster.until(running)
            held = provider.pods[made.uid]
            await cluster.delete()
            await cluster.until_gone()
            provider.pods[made.uid] = held  # it had forgotten that it forgot
            provider.break_changes()
            await provider.until(lambda: not provider.pods)
        assert provider.created == [made.key]

    async def test_a_change_during_the_listing_is_newer_than_the_list(self, cluster: Cluster) -> None:
        listing, may_answer = asyncio.Event(), asyncio.Event()

        class Slow(Troubled):
            slow = False

            async def list_pods(self) -> Any:
                found = await super().list_pods()
                if self.slow:
                    listing.set()
                    await may_answer.wait()
                return found

        provider = Slow()
        async with fast_node(cluster, provider):
            made = await cluster.create()
            await cluster.until(running)
            provider.slow = True
            provider.break_changes()
            await listing.wait()
            now = datetime.now(UTC)
            ended = wasmlet.Terminated(3, started_at=now, finished_at=now)
            again = wasmlet.ContainerStatus("c", wasmlet.Running(now), last_state=ended, restart_count=1)
            provider.tell(StatusChanged(made.key, wasmlet.PodStatus(containers=(again,))))
            await cluster.until(lambda pod: restarts(pod) == 1)
            await cluster.create("other")
            await cluster.until(running, "other")  # accepted while the list that lacks it is on its way
            may_answer.set()
            await provider.called("list_pods")
            provider.node_changed()
            await cluster.create("last")
            await cluster.until(running, "last")
            assert restarts(await cluster.get()) == 1
        assert Counter(provider.created).most_common(1)[0][1] == 1


async def test_a_change_that_is_none_is_passed_over(cluster: Cluster) -> None:
    provider = Troubled()
    async with fast_node(cluster, provider):
        strange: Change = "a change?"  # type: ignore[assignment]
        provider.tell(strange)
        await cluster.create()
        await cluster.until(running)


async def test_a_node_that_ends_while_pods_start_leaves_nothing_behind(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a moment after a pod was accepted its start is reported; by then the node may be gone."""

    class Silent(Troubled):
        def tell(self, change: Change) -> None:
            pass

    provider = Silent()
    async with fast_node(cluster, provider):
        await cluster.create()
        await provider.until(lambda: provider.pods)
    await asyncio.sleep(2 * STARTING_SECONDS)  # what must not happen has no event
    assert not [record for record in caplog.records if record.name == "asyncio"]
