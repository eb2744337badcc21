"""A pod has the kubelet's conditions, with its reasons, and a transition time that moves only when the status does."""

from __future__ import annotations

from tests.conformance.harness import Kube
from tests.conformance.reading import condition

KINDS = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")


async def test_conditions_of_a_pod_that_runs_and_completes(kube: Kube) -> None:
    await kube.create("await", "/go/on", "now", **kube.gate())
    running = await kube.ready()
    assert {kind: condition(running, kind)["status"] for kind in KINDS} == dict.fromkeys(KINDS, "True")
    await kube.open_gate()
    ended = await kube.ended()
    assert [condition(ended, kind)["status"] for kind in KINDS] == ["False", "True", "False", "False"]
    for kind in ("Initialized", "ContainersReady", "Ready"):
        assert condition(ended, kind)["reason"] == "PodCompleted"
    before, after = condition(running, "Initialized"), condition(ended, "Initialized")
    assert before["lastTransitionTime"] == after["lastTransitionTime"]


async def test_conditions_while_an_init_container_runs(kube: Kube) -> None:
    await kube.create("sleep", "1000", spec={"initContainers": [kube.container("sleep", "1000", name="first")]})
    pod = await kube.running(container="first")
    initialized, ready = condition(pod, "Initialized"), condition(pod, "ContainersReady")
    assert initialized["status"] == ready["status"] == "False"
    assert initialized["reason"] == "ContainersNotInitialized"
    assert initialized["message"] == "containers with incomplete status: [first]"
    assert ready["reason"] == "ContainersNotReady"
    assert ready["message"] == "containers with unready status: [c]"


async def test_what_a_scheduler_says_is_kept(kube: Kube) -> None:
    body = kube.pod("sleep", "1000")
    del body["spec"]["nodeName"]
    body["spec"]["nodeSelector"] = {"kubernetes.io/hostname": kube.node}
    await kube.make("pods", body)
    pod = await kube.ready()
    assert pod["spec"]["nodeName"] == kube.node
    assert condition(pod, "PodScheduled")["status"] == "True"
