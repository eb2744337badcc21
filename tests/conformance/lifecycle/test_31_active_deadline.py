"""activeDeadlineSeconds ends a pod that takes too long: Failed, DeadlineExceeded; it may be set while the pod runs."""

from __future__ import annotations

import asyncio

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import terminated

MESSAGE = "Pod was active on the node longer than the specified deadline"


async def test_a_deadline(timed: Kube) -> None:
    await timed.create("sleep", "1000", spec={"activeDeadlineSeconds": 600, "restartPolicy": "Always"})
    await timed.running()
    async with asyncio.timeout(SECONDS):
        await timed.clock.next_sleep(1, 600)
    timed.clock.advance(610)
    pod = await timed.phase("Failed")
    assert (pod["status"]["reason"], pod["status"]["message"]) == ("DeadlineExceeded", MESSAGE)
    assert terminated(pod)["exitCode"] == 143
    await timed.event("DeadlineExceeded", part=MESSAGE)


async def test_one_that_is_set_while_the_pod_runs(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    await kube.running()
    await kube.patch({"spec": {"activeDeadlineSeconds": 1}})
    pod = await kube.phase("Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
