"""A guest that is to end is interrupted where a container gets TERM: WASI has no signals, so the exit code is 143.

The rest of the grace period is for what comes before that (preStop); 0 ends at once, and a delete may shorten it.
"""

from __future__ import annotations

import asyncio

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import terminated

LOOK = {"finalizers": ["example.com/look"]}


async def test_an_interrupted_guest_does_not_use_up_its_grace_period(kube: Kube) -> None:
    await kube.create("spin", metadata=LOOK, spec={"terminationGracePeriodSeconds": 600})
    await kube.running()
    await kube.delete()
    pod = await kube.until(terminated)
    assert (terminated(pod)["exitCode"], terminated(pod)["reason"]) == (143, "Error")
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 600


async def test_it_may_be_shortened(timed: Kube) -> None:
    hook = {"preStop": {"sleep": {"seconds": 500}}}
    await timed.create("sleep", "1000", lifecycle=hook, spec={"terminationGracePeriodSeconds": 600})
    await timed.running()
    await timed.delete()
    async with asyncio.timeout(SECONDS):
        assert await timed.clock.next_sleep(400, 500) == 500
    await timed.delete(gracePeriodSeconds=5)
    async with asyncio.timeout(SECONDS):
        assert await timed.clock.next_sleep(0, 5) <= 5
    timed.clock.advance(5)
    await timed.gone()


async def test_a_delete_without_any(kube: Kube) -> None:
    hook = {"preStop": {"exec": {"command": ["x", "sleep", "100000"]}}}
    await kube.create("spin", lifecycle=hook, spec={"terminationGracePeriodSeconds": 0})
    await kube.running()
    await kube.remove()
