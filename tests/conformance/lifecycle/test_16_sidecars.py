"""A sidecar (an init container with restartPolicy Always, KEP-753) starts in its turn and ends last."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.conformance.harness import Kube
from tests.conformance.reading import begun, condition, state, status, terminated


def sidecar(kube: Kube, name: str, *script: str, **fields: Any) -> dict[str, Any]:
    return kube.container(*(script or ("sleep", "1000")), name=name, restartPolicy="Always", **fields)


async def test_order_of_starts_and_ends(kube: Kube) -> None:
    inits = [sidecar(kube, "one"), kube.container("print", "x", name="init"), sidecar(kube, "two")]
    await kube.create("await", "/go/on", "now", **kube.gate(initContainers=inits))
    pod = await kube.ready()
    names = ("one", "init", "two", "c")
    starts = [(state(pod, n).get("running") or terminated(pod, n))["startedAt"] for n in names]
    assert starts == sorted(starts)
    assert condition(pod, "Initialized")["status"] == "True"
    await kube.open_gate()
    pod = await kube.phase("Succeeded")
    ends = [datetime.fromisoformat(terminated(pod, name)["finishedAt"]) for name in ("c", "two", "one")]
    assert ends == sorted(ends)


async def test_its_startup_probe_holds_up_what_comes_next(kube: Kube) -> None:
    probe = {"exec": {"command": ["x", "has", "/go/on"]}, "periodSeconds": 1, "failureThreshold": 600}
    gate = kube.gate()
    first = sidecar(kube, "one", startupProbe=probe, volumeMounts=gate["volumeMounts"])
    await kube.create("print", "x", **kube.gate(initContainers=[first]))
    pod = await kube.running(container="one")
    await kube.event("Unhealthy", part="Startup probe failed")
    pod = await kube.get()
    assert status(pod, "one")["started"] is False
    assert not begun(pod)
    await kube.open_gate()
    pod = await kube.phase("Succeeded")
    assert status(pod, "one")["restartCount"] == 0


async def test_it_restarts_on_its_own(kube: Kube) -> None:
    await kube.create("sleep", "1000", spec={"initContainers": [sidecar(kube, "one", "exit", "1")]})
    pod = await kube.until(lambda pod: status(pod, "one").get("restartCount", 0) >= 2 and begun(pod))
    assert status(pod)["restartCount"] == 0
    assert pod["status"]["phase"] in ("Pending", "Running")
    await kube.phase("Running")


async def test_it_does_not_hold_up_the_end(kube: Kube) -> None:
    await kube.create("exit", "4", spec={"initContainers": [sidecar(kube, "one")]})
    pod = await kube.phase("Failed")
    assert terminated(pod)["exitCode"] == 4
    assert "terminated" in state(pod, "one")
