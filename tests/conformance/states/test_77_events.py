"""What happens to a pod is told in the kubelet's events, once each, and counted where it happens again and again."""

from __future__ import annotations

from tests.conformance.harness import Kube


async def test_a_life(kube: Kube) -> None:
    body = kube.pod("sleep", "1000")
    del body["spec"]["nodeName"]
    body["spec"]["nodeSelector"] = {"kubernetes.io/hostname": kube.node}
    await kube.make("pods", body)
    await kube.ready()
    await kube.remove()
    for reason in ("Scheduled", "Pulled", "Created", "Started", "Killing"):
        event = await kube.event(reason)
        assert event["type"] == "Normal"
        assert event["involvedObject"]["kind"] == "Pod"
        if reason != "Scheduled":
            assert event["source"]["host"] == kube.node
            assert event["involvedObject"]["fieldPath"] == "spec.containers{c}"
    assert (await kube.event("Killing"))["message"] == "Stopping container c"


async def test_repetition_is_counted(kube: Kube) -> None:
    await kube.create("exit", "1", spec={"restartPolicy": "Always"})
    async with kube.patience():
        while True:
            event = await kube.event("BackOff")
            if event["count"] >= 3:
                break
    assert event["lastTimestamp"] > event["firstTimestamp"]
    backing_off = [event for event in await kube.events() if event["reason"] == "BackOff"]
    assert len(backing_off) == 1
