"""The node loop while its API server is in trouble: nothing is lost, nothing runs twice, and all of it ends well."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing

import orjson
import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, running
from tests.node.trouble import KUBELET, fast_node
from wasmlet.controlplane.faults import Cut, Delay, Drop, Effect, Fail
from wasmlet.testing.reference import ReferenceProvider

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"


@pytest.mark.parametrize(
    ("effect", "verb", "probability"),
    [
        (Drop(), "*", 0.4),
        (Drop(after=True), "*", 0.4),
        (Fail(500), "*", 0.4),
        (Fail(503), "*", 0.4),
        (Fail(429, retry_after=1), "*", 0.4),
        (Fail(401), "*", 0.3),
        (Fail(409), "*", 0.3),
        (Fail(410), "watch", 0.7),
        (Fail(410), "list", 0.5),
        (Cut(1), "watch", 0.9),
        (Cut(0), "watch", 0.6),
        (Delay(0.05), "*", 1.0),
    ],
    ids=lambda value: str(value),
)
async def test_whole_lives_under_a_fault(
    cluster: Cluster, provider: ReferenceProvider, effect: Effect, verb: str, probability: float
) -> None:
    names = [f"p{i}" for i in range(8)]
    async with fast_node(cluster, provider):
        rule = cluster.plane.faults.add(effect, verb=verb, user=KUBELET, probability=probability)
        cluster.plane.faults.disconnect()  # so that the fault meets watches too
        pods = [await cluster.create(name, restartPolicy="Never") for name in names]
        await asyncio.gather(*(cluster.until(running, name) for name in names))
        for pod in pods[:4]:
            provider.finish(pod.key, 3)
        ended = await asyncio.gather(*(cluster.until(lambda pod: pod.finished, name) for name in names[:4]))
        assert {pod.phase for pod in ended} == {"Failed"}
        await asyncio.gather(*map(cluster.delete, names))
        await asyncio.gather(*map(cluster.until_gone, names))
        await provider.until(lambda: not provider.pods)
        assert rule.met > 0
    assert Counter(provider.created) == Counter(pod.key for pod in pods)


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
async def test_statuses_that_an_outage_held_back_are_sent_when_it_ends(
    cluster: Cluster, provider: ReferenceProvider, silent: bool
) -> None:
    async with fast_node(cluster, provider):
        ends = await cluster.create("ends", restartPolicy="Never")
        stays = await cluster.create("stays")
        await cluster.until(running, "ends")
        before = await cluster.until(running, "stays")
        async with cluster.plane.faults.outage(silent=silent):
            provider.finish(ends.key, 5)
        pod = await cluster.until(lambda pod: pod.finished, "ends")
        assert pod.status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5
        assert (await cluster.get("stays")).status == before.status
    assert Counter(provider.created) == {ends.key: 1, stays.key: 1}


async def test_a_delete_that_the_node_could_not_hear_of_is_done_after_an_outage(
    cluster: Cluster, provider: ReferenceProvider
) -> None:
    async with fast_node(cluster, provider):
        await cluster.create(terminationGracePeriodSeconds=5)
        await cluster.until(running)
        with cluster.plane.faults.add(Drop(), user=KUBELET) as rule:
            cluster.plane.faults.disconnect()
            await cluster.delete()
            await rule.until(4)
            assert provider.pods
        await cluster.until_gone()
        assert not provider.pods


async def test_a_delete_that_an_outage_cut_short_is_finished(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with fast_node(cluster, provider):
        made = await cluster.create()
        await cluster.until(running)
        with cluster.plane.faults.add(Fail(503), verb="delete", user=KUBELET) as rule:
            await cluster.delete()
            await rule.until(3)
            assert (await cluster.get()).deleting
            async with cluster.plane.faults.outage():
                assert not provider.pods
        await cluster.until_gone(uid=made.uid)
    assert provider.created == [made.key]


async def test_what_is_created_and_deleted_during_an_outage(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with fast_node(cluster, provider):
        first = await cluster.create()
        await cluster.until(running)
        with cluster.plane.faults.add(Drop(), user=KUBELET) as rule:
            cluster.plane.faults.disconnect()
            await rule.until()
            await cluster.delete(gracePeriodSeconds=0)
            second = await cluster.create()
            await cluster.create("brief")
            await cluster.delete("brief", gracePeriodSeconds=0)
        pod = await cluster.until(running)
        assert pod.uid == second.uid
        await provider.until(lambda: set(provider.pods) == {second.uid})
    assert Counter(provider.created) == {first.key: 1, second.key: 1}


async def test_the_lease_is_renewed_after_an_outage(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with fast_node(cluster, provider):
        with cluster.plane.faults.add(Fail(500), path=LEASE, user=KUBELET) as rule:
            await rule.until(2)
            before = (await cluster.admin.get(LEASE))["spec"]["renewTime"]
            async with cluster.plane.faults.outage():
                pass
        params = {"watch": "1", "fieldSelector": f"metadata.name={NODE}"}
        async with asyncio.timeout(30), cluster.admin.stream(LEASE.rpartition("/")[0], params) as lines:
            async for line in lines:
                if orjson.loads(line)["object"]["spec"]["renewTime"] > before:
                    return
    raise AssertionError("the lease was not renewed")


async def test_a_node_that_is_put_off_waits(cluster: Cluster, provider: ReferenceProvider) -> None:
    speed, seconds = 20.0, 10
    async with fast_node(cluster, provider, speed):
        with (
            cluster.plane.faults.add(
                Fail(429, retry_after=seconds), verb="patch", path="*/pods/p/status", user=KUBELET, count=1
            ) as put_off,
            cluster.plane.faults.add(Delay(0), verb="patch", path="*/pods/p/status", user=KUBELET) as again,
        ):
            await cluster.create()
            await put_off.until()
            begun = time.monotonic()
            await again.until()
            assert time.monotonic() - begun >= seconds / speed
        await cluster.until(running)
    assert len(provider.created) == 1


async def test_credentials_that_are_not_accepted_for_a_while(cluster: Cluster, provider: ReferenceProvider) -> None:
    kubeconfig = cluster.config().kubeconfig
    assert kubeconfig is not None
    kept = kubeconfig.read_bytes()
    async with fast_node(cluster, provider, 100):
        with cluster.plane.faults.add(Fail(401), user=KUBELET) as rule:
            kubeconfig.unlink()
            await cluster.create()
            cluster.plane.faults.disconnect()
            await rule.until(10)
            kubeconfig.write_bytes(kept)
        await cluster.until(running)


async def test_a_failing_list_ends_nothing(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with fast_node(cluster, provider):
        made = await cluster.create()
        await cluster.until(running)
        with (
            cluster.plane.faults.add(Fail(410), verb="watch", user=KUBELET, count=1),
            cluster.plane.faults.add(Fail(500), verb="list", path="/api/v1/pods", user=KUBELET) as rule,
        ):
            cluster.plane.faults.disconnect()
            await rule.until(4)
            assert set(provider.pods) == {made.uid}
        await cluster.create("other")
        await cluster.until(running, "other")
        assert set(provider.pods) >= {made.uid}
    # A node loop that starts while lists fail does not end what it finds either.
    with cluster.plane.faults.add(Fail(500), verb="list", path="/api/v1/pods", user=KUBELET) as rule:
        starting = asyncio.create_task(wasmlet.Node(provider, cluster.config()).__aenter__())
        await rule.until(2)
        assert len(provider.pods) == 2
    node = await starting
    await node.stop()
    assert len(provider.pods) == len(provider.created) == 2


async def test_an_api_server_that_restarts_as_it_was_is_not_listed_again(
    cluster: Cluster, provider: ReferenceProvider
) -> None:
    async with fast_node(cluster, provider):
        await cluster.create()
        before = await cluster.until(running)
        with cluster.plane.faults.add(Delay(0), verb="watch", path="/api/v1/pods", user=KUBELET) as watches:
            await cluster.plane.faults.restart()
            await watches.until()
        await cluster.create("other")
        await cluster.until(running, "other")
        assert (await cluster.get()).resource_version == before.resource_version
        async with asyncio.timeout(30), aclosing(cluster.versions("p")) as versions:
            assert (await anext(versions))[1]["metadata"]["uid"] == before.uid
    assert len(provider.created) == 2
