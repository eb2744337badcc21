"""A liveness probe that fails has the container restarted; one that succeeds leaves it alone.

Exec probes are a second instance; http, tcp and grpc probes ask the pod's address, where the node has a network.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import status
from wasmlet.model.pod import Raw

NETWORK: dict[str, dict[str, Any]] = {
    "httpGet": {"path": "/500", "port": "web"},
    "tcpSocket": {"port": 8081},
    "grpc": {"port": 8081},
}
LISTENS = {"httpGet": {"path": "/up", "port": "web"}, "periodSeconds": 1, "failureThreshold": 100}
"""A startup probe: until the server listens, a connection is refused, whatever is asked."""
SAID = {
    "httpGet": "HTTP probe failed with statuscode: 500",
    "tcpSocket": "connection refused",
    "grpc": "failed to connect service",
}


async def test_failures_restart_it(kube: Kube) -> None:
    probe = {"exec": {"command": ["x", "exit", "1"]}, "periodSeconds": 1, "failureThreshold": 1}
    await kube.create("sleep", "1000", livenessProbe=probe, spec={"restartPolicy": "Always"})
    counts: list[int] = []

    def five_times(pod: Raw) -> bool:
        counts.append(status(pod).get("restartCount", 0))
        return counts[-1] == 5

    pod = await kube.until(five_times)
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2, 3, 4, 5}
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 143
    await kube.event("Killing", part="Container c failed liveness probe, will be restarted")


async def test_successes_leave_it_alone(kube: Kube) -> None:
    probe = {"exec": {"command": ["x", "print", "well"]}, "periodSeconds": 1, "failureThreshold": 1}
    await kube.create("sleep", "1000", livenessProbe=probe)
    await kube.ready()
    async with kube.patience():
        while (await kube.metric("metrics/probes", "prober_probe_total", 'probe_type="Liveness"')) < 3:
            pass
    pod = await kube.get()
    assert (status(pod)["restartCount"], pod["status"]["phase"]) == (0, "Running")


@pytest.mark.parametrize("kind", NETWORK)
async def test_failures_over_the_network_restart_it(net: Kube, kind: str) -> None:
    probe = {kind: NETWORK[kind], "periodSeconds": 1, "failureThreshold": 1}
    await net.serve(startupProbe=LISTENS, livenessProbe=probe, spec={"restartPolicy": "Always"})
    await net.until(lambda pod: status(pod).get("restartCount", 0) >= 1)
    await net.event("Unhealthy", part=SAID[kind])
    await net.event("Killing", part="Container c failed liveness probe, will be restarted")


@pytest.mark.parametrize("handler", [{"httpGet": {"path": "/", "port": "web"}}, {"tcpSocket": {"port": 8080}}])
async def test_successes_over_the_network_leave_it_alone(net: Kube, handler: dict[str, Any]) -> None:
    await net.serve(livenessProbe={**handler, "initialDelaySeconds": 1, "periodSeconds": 1, "failureThreshold": 1})
    async with net.patience():
        while (await net.metric("metrics/probes", "prober_probe_total", 'result="successful"')) < 3:
            pass
    assert status(await net.get())["restartCount"] == 0


@pytest.mark.parametrize("kind", NETWORK)
async def test_without_a_network_it_is_refused(kube: Kube, kind: str) -> None:
    field = f"spec.containers[0].livenessProbe.{kind}"
    await kube.refuses("p", field, livenessProbe={kind: {"port": 8080}})
