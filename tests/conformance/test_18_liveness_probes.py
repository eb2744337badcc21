"""A liveness probe that fails has the container restarted; one that succeeds leaves it alone.

A guest has no network yet, so http, tcp and grpc probes are refused by name; exec probes are a second instance.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube, status
from wasmlet.model.pod import Raw

NETWORK: dict[str, dict[str, Any]] = {
    "httpGet": {"path": "/healthz", "port": 8080},
    "tcpSocket": {"port": 8080},
    "grpc": {"port": 8080},
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


@pytest.mark.later
@pytest.mark.parametrize("kind", NETWORK)
async def test_a_network_is_refused(kube: Kube, kind: str) -> None:
    field = f"spec.containers[0].livenessProbe.{kind}"
    await kube.refuses("p", field, livenessProbe={kind: NETWORK[kind]})
