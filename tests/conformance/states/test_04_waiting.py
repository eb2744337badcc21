"""A container that cannot have started yet waits: ContainerCreating, or PodInitializing behind init containers."""

from __future__ import annotations

from tests.conformance.harness import Kube
from tests.conformance.reading import state


async def test_container_creating(kube: Kube) -> None:
    await kube.create("print", "x", **kube.gate(optional=False))
    pod = await kube.waiting("ContainerCreating")
    assert pod["status"]["phase"] == "Pending"
    await kube.event("FailedMount", part='configmap "gate" not found')
    await kube.open_gate()
    await kube.phase("Succeeded")


async def test_pod_initializing(kube: Kube) -> None:
    inits = [kube.container("sleep", "1000", name="one"), kube.container(name="two")]
    await kube.create("print", "x", spec={"initContainers": inits})
    pod = await kube.running(container="one")
    assert state(pod, "two") == state(pod) == {"waiting": {"reason": "PodInitializing"}}
    assert pod["status"]["phase"] == "Pending"
