"""A pod with finalizers stays in the API after its delete, its workload ended, until they are taken off."""

from __future__ import annotations

from tests.conformance.harness import Kube
from tests.conformance.reading import condition, terminated


async def test_the_object_stays_and_the_workload_ends(kube: Kube) -> None:
    await kube.create("sleep", "1000", metadata={"finalizers": ["example.com/keep"]})
    await kube.running()
    await kube.delete()
    pod = await kube.phase("Failed")
    assert terminated(pod)["exitCode"] == 143
    assert condition(pod, "Ready")["status"] == "False"
    assert pod["metadata"]["deletionTimestamp"]
    pod = await kube.get()
    assert pod["metadata"]["finalizers"] == ["example.com/keep"]
    await kube.patch({"metadata": {"finalizers": None}})
    await kube.gone()
