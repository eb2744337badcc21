"""A readiness probe makes its container ready, not before its initial delay, and its failures never restart it.

http, tcp and grpc probes ask the pod's address, where the node has a network.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.lifecycle.test_18_liveness_probes import NETWORK, SAID
from tests.conformance.reading import condition, state, status


async def test_it_is_ready_after_its_delay(timed: Kube) -> None:
    probe = {"exec": {"command": ["x", "print", "x"]}, "initialDelaySeconds": 30, "periodSeconds": 1}
    await timed.create("sleep", "1000", readinessProbe=probe)
    pod = await timed.running()
    assert status(pod)["ready"] is False
    async with asyncio.timeout(SECONDS):
        assert 20 < await timed.clock.next_sleep() <= 30
    timed.clock.advance(30)
    pod = await timed.ready()
    assert status(pod)["ready"] is True
    ready = datetime.fromisoformat(condition(pod, "Ready")["lastTransitionTime"])
    assert ready >= datetime.fromisoformat(state(pod)["running"]["startedAt"])


async def test_it_never_restarts(kube: Kube) -> None:
    probe = {"exec": {"command": ["x", "exit", "1"]}, "periodSeconds": 1, "failureThreshold": 1}
    await kube.create("sleep", "1000", readinessProbe=probe, spec={"restartPolicy": "Always"})
    await kube.event("Unhealthy", part="Readiness probe failed")
    async with kube.patience():
        while (await kube.metric("metrics/probes", "prober_probe_total", 'result="failed"')) < 3:
            pass
    pod = await kube.get()
    assert (status(pod)["ready"], status(pod)["restartCount"]) == (False, 0)
    assert condition(pod, "Ready")["reason"] == "ContainersNotReady"


async def test_it_comes_and_goes(kube: Kube) -> None:
    await kube.config_map("gate", on="now")
    probe = {"exec": {"command": ["x", "has", "/go/on"]}, "periodSeconds": 1, "failureThreshold": 1}
    await kube.create("sleep", "1000", **kube.gate(), readinessProbe=probe)
    await kube.ready()
    await kube.patch({"data": {"on": None, "off": "now"}}, "gate", "configmaps")
    pod = await kube.until(lambda pod: condition(pod, "Ready").get("status") == "False")
    assert status(pod)["restartCount"] == 0
    await kube.patch({"data": {"on": "now"}}, "gate", "configmaps")
    await kube.ready()


@pytest.mark.parametrize("kind", NETWORK)
async def test_failures_over_the_network(net: Kube, kind: str) -> None:
    await net.serve(readinessProbe={kind: NETWORK[kind], "periodSeconds": 1})
    await net.event("Unhealthy", part=SAID[kind])
    pod = await net.get()
    assert condition(pod, "Ready")["status"] == "False"
    assert status(pod)["restartCount"] == 0


async def test_a_server_is_ready_once_it_listens(net: Kube) -> None:
    """Until the guest accepts, a connection is refused: nothing is sent to a server that is still starting."""
    gate = net.gate()
    await net.serve("after", "/go/on", readinessProbe={"tcpSocket": {"port": "web"}, "periodSeconds": 1}, **gate)
    await net.event("Unhealthy", part="connection refused")
    await net.open_gate()
    await net.ready()


@pytest.mark.parametrize("kind", NETWORK)
async def test_without_a_network_it_is_refused(kube: Kube, kind: str) -> None:
    field = f"spec.containers[0].readinessProbe.{kind}"
    await kube.refuses("p", field, readinessProbe={kind: {"port": 8080}})
