"""status.observedGeneration, and that of each condition, say which spec the status is of (KEP-5067)."""

from __future__ import annotations

from tests.conformance.harness import Kube
from tests.conformance.reading import condition


async def test_it_follows_the_spec(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    pod = await kube.ready()
    assert pod["metadata"]["generation"] == pod["status"]["observedGeneration"] == 1
    assert condition(pod, "Ready")["observedGeneration"] == 1
    await kube.patch({"spec": {"activeDeadlineSeconds": 1000}})
    pod = await kube.until(lambda pod: pod["status"]["observedGeneration"] == 2)
    assert pod["metadata"]["generation"] == 2
    for kind in ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"):
        assert condition(pod, kind)["observedGeneration"] == 2


async def test_one_that_was_refused(kube: Kube) -> None:
    await kube.create("print", "x", spec={"hostNetwork": True})
    await kube.refused()
    assert (await kube.get())["status"]["observedGeneration"] == 1
