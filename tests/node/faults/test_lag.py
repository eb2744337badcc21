"""An API server that has told the node of a pod, and does not know yet that the pod is on the node."""

from __future__ import annotations

import pytest

import wasmlet
from tests.node.cluster import Cluster, running
from tests.node.trouble import KUBELET, Troubled, fast_node
from wasmlet.controlplane.faults import Fail
from wasmlet.controlplane.lag import Lag
from wasmlet.model.inputs import TokenKey
from wasmlet.node import inputs
from wasmlet.testing.reference import ReferenceProvider

REFUSALS = 4
ROOT_CA = "kube-root-ca.crt"
"""Mounted beside each token."""
CONTAINER = {"name": "main", "image": "x", "envFrom": [{"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}]}
WARNINGS = {"FailedCreatePodSandBox", "Failed", "FailedMount"}


async def runs_without_a_warning(cluster: Cluster, lag: Lag) -> wasmlet.Inputs:
    """Have a pod run that has a token, a config map and a secret; what it was given of them."""
    await cluster.admin.create(cluster.maps, {"metadata": {"name": "m"}, "data": {"a": "1"}})
    secrets = cluster.maps.replace("configmaps", "secrets")
    await cluster.admin.create(secrets, {"metadata": {"name": "s"}, "stringData": {"b": "2"}})
    provider = ReferenceProvider()
    with cluster.plane.faults.add(lag, user=KUBELET):
        async with fast_node(cluster, provider):
            pod = await cluster.create(containers=[CONTAINER])
            seen = []

            def looks(pod: wasmlet.Pod) -> bool:
                seen.append(pod.phase)
                return running(pod)

            await cluster.until(looks)
            assert set(seen) <= {"Pending", "Running"}
            reasons = {event["reason"] for event in await cluster.events("p")}
    assert not reasons & WARNINGS
    return provider.inputs[pod.uid]


async def test_what_a_pod_gives_a_right_to_is_asked_for_again(cluster: Cluster) -> None:
    lag = Lag(REFUSALS)
    found = await runs_without_a_warning(cluster, lag)
    assert (set(found.config_maps), set(found.secrets)) == ({ROOT_CA, "m"}, {"s"})
    assert set(found.tokens) == {TokenKey("", 3607)}
    assert sorted(lag.refused.values()) == [REFUSALS] * 4


async def test_objects_that_are_looked_at_now_and_then(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above so many watches, they are polled once a minute: what is refused is asked for sooner."""
    monkeypatch.setattr(inputs, "WATCHES", 0)
    lag = Lag(REFUSALS)
    found = await runs_without_a_warning(cluster, lag)
    assert (set(found.config_maps), set(found.secrets)) == ({ROOT_CA, "m"}, {"s"})
    assert sorted(lag.refused.values()) == [REFUSALS] * 4


async def test_a_token_for_a_pod_that_admission_does_not_know_yet(cluster: Cluster) -> None:
    lag = Lag(REFUSALS, admission=True)
    found = await runs_without_a_warning(cluster, lag)
    assert set(found.tokens) == {TokenKey("", 3607)}
    assert list(lag.refused.values()) == [REFUSALS]


async def test_a_pod_whose_delete_is_not_understood_yet_is_deleted(cluster: Cluster) -> None:
    lag, provider = Lag(REFUSALS, admission=True), ReferenceProvider()
    async with fast_node(cluster, provider):
        await cluster.create()
        await cluster.until(running)
        with cluster.plane.faults.add(lag, verb="delete", user=KUBELET):
            await cluster.delete()
            await cluster.until_gone()
    assert list(lag.refused.values()) == [REFUSALS]


async def test_a_token_that_is_refused_for_ever(cluster: Cluster) -> None:
    """It is told once, and asked for ever less often."""
    async with fast_node(cluster, Troubled(), speed=60.0):
        with cluster.plane.faults.add(Fail(403, message="never"), path="*/token", user=KUBELET) as rule:
            await cluster.create()
            waiting = await cluster.until(lambda pod: bool(pod.status.get("containerStatuses")))
            assert "never" in str(waiting.status["containerStatuses"])
            met = rule.met
            assert met >= 4  # with patience, before anybody is told
            await rule.until(met + 5)
            told = [event for event in await cluster.events("p") if event["type"] == "Warning"]
            assert [(event["reason"], event["count"]) for event in told] == [("FailedCreatePodSandBox", 1)]
        await cluster.until(running)
