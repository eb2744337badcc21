"""postStart runs right after the start, by exec or sleep; its failure kills the container (FailedPostStartHook).

Hooks over http need a network, so they are refused by name for now.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.harness import SECONDS, Kube, begun, state, status


async def test_it_runs_in_the_container(kube: Kube) -> None:
    spec: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
    hook = {"postStart": {"exec": {"command": ["x", "put", "/v/hook", "hooked"]}}}
    mounts = [{"name": "v", "mountPath": "/v"}]
    await kube.create("await", "/v/hook", "hooked", "print", "seen", lifecycle=hook, spec=spec, volumeMounts=mounts)
    assert await kube.output() == "seen\n"
    await kube.phase("Succeeded")


async def test_the_container_is_not_running_before_it_is_over(timed: Kube) -> None:
    await timed.create("sleep", "1000", lifecycle={"postStart": {"sleep": {"seconds": 20}}})
    async with asyncio.timeout(SECONDS):
        assert await timed.clock.next_sleep(15, 20) == 20
    assert not begun(await timed.get())
    timed.clock.advance(20)
    await timed.ready()


async def test_its_failure_kills(kube: Kube) -> None:
    hook = {"postStart": {"exec": {"command": ["x", "exit", "9"]}}}
    await kube.create("sleep", "1000", lifecycle=hook, spec={"restartPolicy": "Always"})
    pod = await kube.until(lambda pod: status(pod).get("restartCount", 0) >= 1 and "waiting" in state(pod))
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 143
    await kube.event("FailedPostStartHook")
    await kube.event("Killing", part="FailedPostStartHook")


@pytest.mark.later
@pytest.mark.parametrize("kind", ["httpGet", "tcpSocket"])
async def test_a_network_is_refused(kube: Kube, kind: str) -> None:
    hook = {"postStart": {kind: {"port": 8080}}}
    await kube.refuses("p", f"spec.containers[0].lifecycle.postStart.{kind}", lifecycle=hook)
