"""A container may have a restartPolicy of its own, and rules that go by its exit code (KEP-5307)."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube
from tests.conformance.reading import state, status


def rules(*codes: int, operator: str = "In") -> dict[str, Any]:
    on_exit = {"action": "Restart", "exitCodes": {"operator": operator, "values": list(codes)}}
    return {"restartPolicy": "Never", "restartPolicyRules": [on_exit]}


async def test_a_policy_of_a_containers_own(kube: Kube) -> None:
    containers = [kube.container("exit", "1", name="never", restartPolicy="Never"), kube.container("exit", "1")]
    await kube.create(spec={"restartPolicy": "Always", "containers": containers})
    pod = await kube.until(lambda pod: status(pod).get("restartCount") == 2)
    assert status(pod, "never")["restartCount"] == 0
    assert state(pod, "never")["terminated"]["exitCode"] == 1


async def test_rules_by_exit_code(kube: Kube) -> None:
    await kube.create("exit", "42", name="in", **rules(42, 43))
    await kube.create("exit", "41", name="out", **rules(42, 43))
    await kube.create("exit", "41", name="not-in", **rules(42, operator="NotIn"))
    assert (await kube.until(lambda pod: status(pod).get("restartCount") == 1, "in"))["status"]["phase"] == "Running"
    assert status(await kube.phase("Failed", "out"))["restartCount"] == 0
    await kube.until(lambda pod: status(pod).get("restartCount") == 1, "not-in")
