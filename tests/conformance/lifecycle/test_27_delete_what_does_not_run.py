"""Pods that never ran, failed, or wait for an image are deleted like any other."""

from __future__ import annotations

from tests.conformance.harness import Kube


async def test_pods_in_every_other_state(kube: Kube) -> None:
    await kube.create(name="no-image", image="file:///nowhere.wasm")
    await kube.create("print", "x", name="no-volume", **kube.gate(optional=False))
    await kube.create(name="refused", spec={"hostNetwork": True})
    await kube.create("exit", "1", name="failed")
    await kube.create("print", "x", name="succeeded")
    await kube.create("exit", "1", name="crashing", spec={"restartPolicy": "Always"})
    await kube.waiting("ErrImagePull", "no-image")
    await kube.event("FailedMount", "no-volume")
    await kube.refused("refused")
    await kube.phase("Failed", "failed")
    await kube.phase("Succeeded", "succeeded")
    await kube.waiting("CrashLoopBackOff", "crashing")
    names = ["no-image", "no-volume", "refused", "failed", "succeeded", "crashing"]
    for name in names:
        await kube.delete(name)
    for name in names:
        await kube.gone(name)


async def test_a_pod_that_nobody_runs_yet(kube: Kube) -> None:
    body = kube.pod("print", "x")
    body["spec"] |= {"nodeName": None, "nodeSelector": {"example.com/none": "such"}}
    await kube.make("pods", body)
    await kube.remove()
