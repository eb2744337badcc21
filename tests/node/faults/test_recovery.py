"""What waits while the API server is away goes on when it is back, and not after the rest of a long pause."""

from __future__ import annotations

import asyncio

import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, running
from tests.node.trouble import KUBELET, Troubled
from wasmlet.controlplane.faults import Delay, Drop, Effect, Fail, Rule
from wasmlet.provider import PodEvent
from wasmlet.testing import FakeClock

LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"
LONG = 150
"""Seconds after which every pause has grown to its cap."""
TOKEN_SECONDS = 2900
"""After these a token of an hour is to be refreshed."""


async def pass_time(clock: FakeClock, rule: Rule, seconds: float) -> None:
    """Let so much time pass in an outage; the lease is tried with each step."""
    until = clock.monotonic() + seconds
    while clock.monotonic() < until:
        met = rule.met
        clock.advance(3 if clock.monotonic() < until - seconds + 12 else 1)
        await rule.until(met + 1)


@pytest.mark.parametrize("effect", [Drop(), Fail(503), Fail(401), Delay()], ids=["refused", "503", "401", "silent"])
async def test_all_that_waited_is_done_within_two_seconds(cluster: Cluster, effect: Effect) -> None:
    provider, clock, faults = Troubled(), FakeClock(), cluster.plane.faults
    async with asyncio.timeout(60), wasmlet.Node(provider, cluster.config(), clock=clock):
        pods = {name: await cluster.create(name, restartPolicy="Never") for name in ("ends", "goes", "going", "tells")}
        for name in pods:
            await cluster.until(running, name)
        token = provider.inputs[pods["tells"].uid].tokens
        deletes = faults.add(Fail(503), verb="delete", user=KUBELET)
        await cluster.delete("going")
        await deletes.until(1)

        rule = faults.add(effect, user=KUBELET)
        faults.disconnect()
        clock.advance(TOKEN_SECONDS)
        provider.finish(pods["ends"].key, 3)
        provider.tell(PodEvent(pods["tells"].key, "Telling", "something", "Warning"))
        await cluster.delete("goes")
        await pass_time(clock, rule, LONG)
        deletes.remove()
        rule.remove()
        clock.advance(1)  # for the lease; from now on the clock stands still
        ended = await cluster.until(lambda pod: pod.finished, "ends")
        await cluster.until_gone("going")
        await cluster.until_gone("goes")
        await provider.until(lambda: provider.inputs[pods["tells"].uid].tokens != token)
        while not any(event["reason"] == "Telling" for event in await cluster.events("tells")):
            pass
        assert ended.status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert sorted(provider.created) == sorted(pod.key for pod in pods.values())


async def test_a_request_that_the_outage_swallowed_is_made_again(cluster: Cluster) -> None:
    """It has no answer though the others have theirs: its packets wait to be sent again."""
    provider, clock, faults = Troubled(), FakeClock(), cluster.plane.faults
    async with asyncio.timeout(30), wasmlet.Node(provider, cluster.config(), clock=clock):
        pod = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        with faults.add(Delay(), verb="patch", path="*/pods/p/status", user=KUBELET, count=1) as swallowed:
            rule = faults.add(Delay(), path=LEASE, user=KUBELET)
            provider.finish(pod.key, 3)
            await swallowed.until()
            clock.advance(10)
            await rule.until(1)
            await pass_time(clock, rule, 15)
            rule.remove()
            await cluster.until(lambda pod: pod.finished)
        assert swallowed.met == 1


async def test_an_outage_costs_one_request_a_second(cluster: Cluster) -> None:
    provider, clock, faults = Troubled(), FakeClock(), cluster.plane.faults
    async with asyncio.timeout(60), wasmlet.Node(provider, cluster.config(), clock=clock):
        pods = [await cluster.create(f"p{i}", restartPolicy="Never") for i in range(20)]
        for pod in pods:
            await cluster.until(running, pod.name)
        rule = faults.add(Drop(), user=KUBELET)
        faults.disconnect()
        for pod in pods:
            provider.finish(pod.key, 3)
        await pass_time(clock, rule, LONG)
        before = rule.met
        await pass_time(clock, rule, 120)
        # One of each pod in some 30 s, and the lease with a look at the version.
        assert rule.met - before <= 120 * (len(pods) / 30 + 2 / 0.7 + 0.3)
        rule.remove()


async def test_what_always_fails_while_the_rest_is_well_is_tried_ever_less_often(cluster: Cluster) -> None:
    provider, clock, faults = Troubled(), FakeClock(), cluster.plane.faults
    async with asyncio.timeout(60), wasmlet.Node(provider, cluster.config(), clock=clock):
        pod = await cluster.create(restartPolicy="Never")
        await cluster.until(running)
        with (
            faults.add(Fail(500), verb="patch", path="*/pods/p/status", user=KUBELET) as refused,
            faults.add(Delay(0), verb="patch", path=LEASE, user=KUBELET) as renewals,
        ):
            provider.finish(pod.key, 3)
            begun = clock.monotonic()
            while clock.monotonic() - begun < 3600:
                clock.advance(await clock.next_sleep(0.01))
            assert refused.met <= 3600 / 30 + 10
            assert renewals.met <= 2 * 3600 / 10 + 20


async def lost_for_long(clock: FakeClock, lease: Rule, statuses: Rule) -> None:
    """Let the lease and statuses be refused until the pauses between the tries are long."""
    await lease.until(1)  # a doubt has brought it about
    begun = clock.monotonic()
    while clock.monotonic() - begun < LONG or statuses.met < 10:
        clock.advance(max(0.01, await clock.next_sleep()))


async def test_a_kind_that_is_written_before_the_lease_is_renewed(cluster: Cluster) -> None:
    """An API server's connections to etcd come back one after the other, that of the leases perhaps as the last."""
    provider, clock, faults = Troubled(), FakeClock(), cluster.plane.faults
    async with asyncio.timeout(30), wasmlet.Node(provider, cluster.config(), clock=clock):
        names = ("first", "second", "third")
        pods = {name: await cluster.create(name, restartPolicy="Never") for name in names}
        for name in names:
            await cluster.until(running, name)
        with faults.add(Fail(500), path=LEASE, user=KUBELET) as lease:
            with faults.add(Fail(500), path="*/pods/*/status", user=KUBELET) as statuses:
                for name in names[1:]:
                    provider.finish(pods[name].key, 3)
                await lost_for_long(clock, lease, statuses)
                assert statuses.met < 2 * 20
            provider.finish(pods["first"].key, 3)  # the clock stands still, and its status is the first to be written
            for name in names:
                await cluster.until(lambda pod: pod.finished, name)


async def test_writes_that_succeed_in_an_outage_end_a_pause_once(cluster: Cluster) -> None:
    """However many there are: what fails all the time is repeated with growing pauses."""
    provider, clock, faults = Troubled(), FakeClock(), cluster.plane.faults
    async with asyncio.timeout(30), wasmlet.Node(provider, cluster.config(), clock=clock):
        fails = await cluster.create("fails", restartPolicy="Never")
        writes = [await cluster.create(f"w{i}", restartPolicy="Never") for i in range(20)]
        for pod in (fails, *writes):
            await cluster.until(running, pod.name)
        with (
            faults.add(Fail(500), path=LEASE, user=KUBELET) as lease,
            faults.add(Fail(500), path="*/pods/fails/status", user=KUBELET) as statuses,
        ):
            provider.finish(fails.key, 3)
            await lost_for_long(clock, lease, statuses)
            met = statuses.met
            for pod in writes:
                provider.finish(pod.key, 0)
                await cluster.until(lambda pod: pod.finished, pod.name)
            await statuses.until(met + 1)
            assert statuses.met <= met + 2  # one of them may have been under way
