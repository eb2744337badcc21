"""Requests between a node and its agent that are lost, late, doubled or cut short: nothing runs twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest
from wasmlet_remote.changes import GONE_SECONDS
from wasmlet_remote.link import Away

import wasmlet
from tests.node.cluster import Cluster, running
from tests.node.trouble import FastClock
from tests.remote.agents import PATIENCE, pod
from tests.remote.beside import Beside
from wasmlet.testing import FakeClock
from wasmlet.testing.fault_proxy import Fault


async def test_a_create_that_is_held_back_never_runs_after_the_delete(cluster: Cluster, beside: Beside) -> None:
    held = beside.proxy.trap("hold", "PUT", "/v1/pods/*")
    async with beside.node(cluster):
        await cluster.create("late")
        await held.sprung()
        await cluster.delete("late", gracePeriodSeconds=0)
        await beside.proxy.seen(lambda seen: seen.method == "DELETE")
        between = await cluster.create("between")
        await cluster.until(running, "between")
        held.release()
        after = await cluster.create("after")
        await cluster.until(running, "after")
        assert beside.there.created == [between.key, after.key]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("fault", ["delay", "drop", "lose", "truncate", "duplicate"])
async def test_a_life_with_a_fault_in_its_middle(cluster: Cluster, beside: Beside, fault: Fault, method: str) -> None:
    trap = beside.proxy.trap(fault, method, "/v1/pods/*", seconds=0.1, size=30)
    async with beside.node(cluster):
        pod = await cluster.create(restartPolicy="Never", terminationGracePeriodSeconds=0)
        await cluster.until(running)
        beside.there.finish(pod.key, 3)
        failed = await cluster.until(lambda pod: pod.phase == "Failed")
        assert failed.status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
        await cluster.delete()
        await beside.there.until(lambda: beside.there.deleted, PATIENCE)
        await cluster.until_gone()
        assert trap.hits == 1
        assert beside.there.created == beside.there.deleted == [pod.key]


async def test_the_exit_code_of_a_pod_whose_delete_had_no_answer(cluster: Cluster, beside: Beside) -> None:
    beside.proxy.trap("lose", "DELETE", "/v1/pods/*")
    async with beside.node(cluster):
        await cluster.create(metadata={"finalizers": ["test/keep"]})
        await cluster.until(running)
        await cluster.delete()
        pod = await cluster.until(lambda pod: pod.phase == "Failed")
        assert pod.status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143


async def test_a_log_that_is_followed_breaks_off_when_the_agent_is_gone(beside: Beside, tmp_path: Path) -> None:
    """Nothing comes on a connection whose other end has lost its power, not even its end."""
    clock = FakeClock()
    async with asyncio.timeout(PATIENCE), beside.started(tmp_path, clock) as provider:
        await provider.create_pod(wasmlet.Pod(pod("u1", "print", "one")), wasmlet.Inputs())
        key = wasmlet.PodKey("default", "u1", "u1")
        async with aclosing(provider.logs(key, "main", wasmlet.LogOptions(follow=True))) as log:
            assert await anext(log) == b"one\n"
            beside.proxy.partition()
            more = asyncio.create_task(anext(log))
            await clock.next_sleep()
            clock.advance(GONE_SECONDS)
            with pytest.raises(Away, match="it is silent"):
                await more
        beside.proxy.heal()


async def test_a_log_can_be_left_while_it_is_followed(beside: Beside, tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE), beside.started(tmp_path) as provider:
        await provider.create_pod(wasmlet.Pod(pod("u1", "print", "one")), wasmlet.Inputs())
        key = wasmlet.PodKey("default", "u1", "u1")
        for leaves in ("between", "within"):
            log = provider.logs(key, "main", wasmlet.LogOptions(follow=True))
            async with aclosing(log):
                assert await anext(log) == b"one\n"
                if leaves == "within":
                    more = asyncio.create_task(anext(log))
                    await asyncio.sleep(0)
                    more.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await more
        assert not [task for task in asyncio.all_tasks() if "anext" in repr(task) or "gone" in repr(task)]


async def test_updates_that_change_places_end_with_the_newest(beside: Beside, tmp_path: Path) -> None:
    """The older of two is refused where it arrives late."""
    async with beside.started(tmp_path) as provider:
        pod = _pod("u1")
        await provider.create_pod(pod, wasmlet.Inputs())
        late = beside.proxy.trap("reorder", "PATCH", "/v1/pods/*")
        first = asyncio.create_task(provider.update_pod(pod, wasmlet.Inputs(node_name="old")))
        await late.sprung()
        first.cancel()
        await asyncio.wait([first])
        await provider.update_pod(pod, wasmlet.Inputs(node_name="new"))
        await beside.proxy.seen(lambda seen: seen.method == "PATCH", 2)
        await provider.pod_status(pod.key)
        assert beside.there.inputs["u1"].node_name == "new"
        assert beside.there.updated == [pod.key]


async def test_pods_that_end_in_a_partition_are_told_of_once(cluster: Cluster, beside: Beside) -> None:
    names = [f"p{number}" for number in range(20)]
    async with beside.node(cluster, FastClock()):
        pods = [await cluster.create(name, restartPolicy="Never") for name in names]
        for name in names:
            await cluster.until(running, name)
        since = (await cluster.admin.get(cluster.pods))["metadata"]["resourceVersion"]
        beside.proxy.partition()
        await _ready(cluster, "False")
        for code, pod in enumerate(pods):
            beside.there.finish(pod.key, code)
        beside.proxy.heal()
        await _ready(cluster, "True")
        told = await _until_all_ended(cluster, since, len(pods))
        codes = {
            name: [pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in versions]
            for name, versions in told.items()
        }
        assert codes == {name: [code] for code, name in enumerate(names)}
        assert Counter(beside.there.created) == Counter(pod.key for pod in pods)


async def test_what_is_asked_for_in_a_partition_is_done_after_it(cluster: Cluster, beside: Beside) -> None:
    async with beside.node(cluster):
        ends = await cluster.create("ends", terminationGracePeriodSeconds=0)
        await cluster.until(running, "ends")
        beside.proxy.cut()
        beside.proxy.partition()
        await cluster.delete("ends")
        made = await cluster.create("made")
        never = await cluster.create("never")
        await cluster.delete("never", gracePeriodSeconds=0)
        await cluster.until_gone("never", never.uid)
        beside.proxy.heal()
        await cluster.until_gone("ends")
        await cluster.until(running, "made")
        await beside.there.until(lambda: beside.there.pods.keys() == {made.uid}, PATIENCE)
        assert Counter(beside.there.created) - Counter([never.key]) == Counter([ends.key, made.key])


async def _ready(cluster: Cluster, wanted: str) -> None:
    """Return when the Node says so."""
    async with asyncio.timeout(PATIENCE), cluster.admin.stream("/api/v1/nodes", {"watch": "1"}) as lines:
        async for line in lines:
            conditions = orjson.loads(line)["object"]["status"].get("conditions", ())
            if any(c["type"] == "Ready" and c["status"] == wanted for c in conditions):
                return


async def _until_all_ended(cluster: Cluster, since: str, count: int) -> dict[str, list[dict[str, Any]]]:
    """Every version that each pod had since then, once all are Failed or Succeeded."""
    told: dict[str, list[dict[str, Any]]] = {}
    ended = set()
    params = {"watch": "1", "resourceVersion": since}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(PATIENCE))
        lines = await stack.enter_async_context(cluster.admin.stream(cluster.pods, params))
        async for line in lines:
            pod = orjson.loads(line)["object"]
            told.setdefault(pod["metadata"]["name"], []).append(pod)
            if pod["status"]["phase"] in ("Succeeded", "Failed"):
                ended.add(pod["metadata"]["name"])
            if len(ended) == count:
                break
    return told


def _pod(uid: str) -> wasmlet.Pod:
    metadata = {"namespace": "default", "name": uid, "uid": uid}
    return wasmlet.Pod({"metadata": metadata, "spec": {"containers": [{"name": "main"}]}})
