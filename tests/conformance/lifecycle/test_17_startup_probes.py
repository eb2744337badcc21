"""A startup probe holds off the other probes until it succeeds once, and a container that never starts up is killed."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube
from tests.conformance.reading import condition, status

OPEN = {"exec": {"command": ["x", "has", "/go/on"]}, "periodSeconds": 1}
FAILS = {"exec": {"command": ["x", "exit", "1"]}, "periodSeconds": 1}


async def test_other_probes_wait_for_it(kube: Kube) -> None:
    probes: dict[str, Any] = {
        "startupProbe": OPEN | {"failureThreshold": 600},
        "livenessProbe": OPEN | {"failureThreshold": 1},
        "readinessProbe": OPEN,
    }
    await kube.create("sleep", "1000", **kube.gate(), **probes)
    await kube.event("Unhealthy", part="Startup probe failed")
    pod = await kube.get()
    assert (status(pod)["started"], status(pod)["ready"]) == (False, False)
    await kube.open_gate()
    pod = await kube.ready()
    assert (status(pod)["started"], status(pod)["restartCount"]) == (True, 0)
    assert not [e for e in await kube.events() if "Liveness" in e["message"] or "Readiness" in e["message"]]


async def test_its_failure_kills(kube: Kube) -> None:
    await kube.create("sleep", "1000", startupProbe=FAILS | {"failureThreshold": 2}, spec={"restartPolicy": "Always"})
    pod = await kube.until(lambda pod: status(pod).get("restartCount") == 1)
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 143
    await kube.event("Killing", part="Container c failed startup probe, will be restarted")


async def test_its_failure_fails_a_pod_that_is_not_restarted(kube: Kube) -> None:
    await kube.create("sleep", "1000", startupProbe=FAILS | {"failureThreshold": 1})
    pod = await kube.phase("Failed")
    assert status(pod)["restartCount"] == 0
    assert condition(pod, "Ready")["status"] == "False"
