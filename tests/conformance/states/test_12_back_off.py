"""Restarts are put off by 10, 20, 40, 80, 160 and 300 s for each container; ten minutes of running begin anew.

The cap can be lowered (`--max-container-restart-period`, KubeletCrashLoopBackOffMax).
"""

from __future__ import annotations

import asyncio

from tests.conformance.conftest import Own
from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import state, status
from wasmlet.testing.clock import FakeClock

WORDS = {10: "10s", 20: "20s", 40: "40s", 80: "1m20s", 160: "2m40s", 300: "5m0s"}


async def crash(kube: Kube, restarts: int, pause: float) -> None:
    """The next crash is followed by this pause, and that passes."""

    def waits(pod: dict[str, object]) -> bool:
        waiting = state(pod).get("waiting", {}).get("reason") == "CrashLoopBackOff"
        return bool(waiting) and status(pod)["restartCount"] == restarts

    pod = await kube.until(waits)
    assert f"back-off {WORDS[int(pause)]} restarting" in state(pod)["waiting"]["message"]
    kube.clock.advance(pause - 1)
    async with asyncio.timeout(SECONDS):
        assert await kube.clock.next_sleep(1, 1) == 1
    assert status(await kube.get())["restartCount"] == restarts
    kube.clock.advance(1)


async def test_it_doubles_up_to_the_cap(timed: Kube) -> None:
    await timed.create("exit", "1", spec={"restartPolicy": "Always"})
    for restarts, pause in enumerate([10, 20, 40, 80, 160, 300, 300], start=1):
        await crash(timed, restarts, pause)


async def test_the_cap_can_be_lowered(own: Own) -> None:
    async with own(clock=FakeClock(), given={"max_container_restart_period": 40.0}) as kube:
        await kube.create("exit", "1", spec={"restartPolicy": "Always"})
        for restarts, pause in enumerate([10, 20, 40, 40], start=1):
            await crash(kube, restarts, pause)
