"""A pod with readinessGates is Ready when its containers are and every gate's condition is True (KEP-580)."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube
from tests.conformance.reading import condition
from wasmlet.kube.client import STRATEGIC_PATCH

GATE = "example.com/open"


async def test_gates_are_anded_into_ready(kube: Kube) -> None:
    await kube.create("sleep", "1000", spec={"readinessGates": [{"conditionType": GATE}]})
    pod = await kube.until(lambda pod: condition(pod, "ContainersReady").get("status") == "True")
    ready = condition(pod, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ReadinessGatesNotReady")
    assert GATE in ready["message"]
    await say(kube, "True")
    pod = await kube.ready()
    assert condition(pod, GATE)["status"] == "True"
    await say(kube, "False")
    pod = await kube.until(lambda pod: condition(pod, "Ready")["status"] == "False")
    assert condition(pod, "ContainersReady")["status"] == "True"


async def say(kube: Kube, status: str) -> None:
    conditions: list[dict[str, Any]] = [{"type": GATE, "status": status}]
    await kube.patch({"status": {"conditions": conditions}}, "p/status", how=STRATEGIC_PATCH)
