"""What may be changed of a pod that runs: an image restarts its container, labels, annotations, tolerations do not."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.harness import Kube
from tests.conformance.reading import state, status


async def test_an_image(kube: Kube, driver_copy: Path) -> None:
    """Even where the pod is never restarted: it is another container, and no failure."""
    other = kube.container("sleep", "1000", name="other")
    await kube.create(spec={"containers": [kube.container("sleep", "1000"), other]})
    before = await kube.ready()
    await kube.change_container(image=f"file://{driver_copy}")
    pod = await kube.until(lambda pod: status(pod)["restartCount"] == 1 and "running" in state(pod))
    assert pod["status"]["phase"] == "Running"
    assert status(pod)["image"] == f"file://{driver_copy}"
    assert status(pod)["containerID"] != status(before)["containerID"]
    assert status(pod, "other") == status(before, "other")
    await kube.event("Killing", part="Container c definition changed, will be restarted")


async def test_labels_annotations_and_tolerations(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    before = await kube.ready()
    more = [*before["spec"]["tolerations"], {"key": "example.com/x", "operator": "Exists", "effect": "NoSchedule"}]
    await kube.patch({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"tolerations": more}})
    pod = await kube.until(lambda pod: pod["status"].get("observedGeneration") == pod["metadata"]["generation"] > 1)
    assert status(pod) == status(before)
