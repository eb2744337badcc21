"""A container that fails over and over waits with CrashLoopBackOff, and its last end is in lastState."""

from __future__ import annotations

from tests.conformance.harness import Kube
from tests.conformance.reading import state, status


async def test_crash_loop_back_off(timed: Kube) -> None:
    await timed.create("print", "x", "exit", "5", spec={"restartPolicy": "Always"})
    pod = await timed.waiting("CrashLoopBackOff")
    uid = pod["metadata"]["uid"]
    assert pod["status"]["phase"] == "Running"
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 5
    assert status(pod)["lastState"]["terminated"]["reason"] == "Error"
    message = f"back-off 10s restarting failed container=c pod=p_{timed.namespace}({uid})"
    assert state(pod)["waiting"]["message"] == message
    assert status(pod)["ready"] is False
    await timed.event("BackOff", part="Back-off restarting failed container c in pod")
