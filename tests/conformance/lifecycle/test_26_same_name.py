"""A pod that takes the name of one which is still ending is another pod, and is not harmed by that end."""

from __future__ import annotations

import asyncio

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import status


async def test_a_new_pod_of_the_same_name(timed: Kube) -> None:
    hook = {"preStop": {"sleep": {"seconds": 100}}}
    first = await timed.create("sleep", "1000", lifecycle=hook, spec={"terminationGracePeriodSeconds": 500})
    await timed.running()
    await timed.delete()
    async with asyncio.timeout(SECONDS):
        await timed.clock.next_sleep(99, 100)
    await timed.delete(gracePeriodSeconds=0, preconditions={"uid": first["metadata"]["uid"]})
    await timed.gone()
    second = await timed.create("print", "second", "sleep", "1000")
    await timed.logged("second\n")
    timed.clock.advance(1000)
    pod = await timed.ready()
    assert pod["metadata"]["uid"] == second["metadata"]["uid"] != first["metadata"]["uid"]
    assert status(pod)["restartCount"] == 0


async def test_again_and_again(kube: Kube) -> None:
    for turn in range(5):
        await kube.create("print", f"turn {turn}", "sleep", "1000")
        assert await kube.logged("turn") == f"turn {turn}\n"
        await kube.delete(gracePeriodSeconds=0)
        await kube.gone()
