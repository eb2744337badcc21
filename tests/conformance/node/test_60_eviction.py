"""A pod that takes more ephemeral storage than its limit is evicted: Failed, Evicted, DisruptionTarget.

The node does not rank pods when its own memory or disk run short; no condition says that it does.
"""

from __future__ import annotations

import asyncio

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import condition, terminated


async def test_ephemeral_storage(timed: Kube) -> None:
    """Never restarted, so that the end of its container alone would make it Failed without a reason."""
    limits = {"limits": {"ephemeral-storage": "1Mi"}}
    spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounts = [{"name": "v", "mountPath": "/v"}]
    script = ("fill", "/v/file", "2048", "print", "full", "sleep", "1000")
    await timed.create(*script, spec=spec, volumeMounts=mounts, resources=limits)
    await timed.logged("full")
    async with asyncio.timeout(SECONDS):
        await timed.clock.next_sleep(0, 10)
    timed.clock.advance(10)
    pod = await timed.phase("Failed")
    message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
    assert (pod["status"]["reason"], pod["status"]["message"]) == ("Evicted", message)
    assert condition(pod, "DisruptionTarget")["reason"] == "TerminationByKubelet"
    assert terminated(pod)["exitCode"] in (137, 143)
    await timed.event("Evicted", part=message)
