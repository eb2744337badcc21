"""A pod that a controller evicts for a NoExecute taint ends in order, and keeps what the controller says of it.

In a cluster the taint is there and its controller acts on it; without one its two steps are done here: it marks the pod
with DisruptionTarget and deletes it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from tests.conformance.conftest import Own
from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import condition, terminated
from wasmlet.kube.client import STRATEGIC_PATCH

KEY = "example.com/out"
REASON = "DeletionByTaintManager"


async def test_teardown(own: Own) -> None:
    async with own() as kube:
        tolerated = {"key": KEY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
        tolerations = [{"key": "wasmlet.dev/provider", "operator": "Exists"}, tolerated]
        await kube.create("sleep", "1000", spec={"tolerations": tolerations})
        pod = await kube.ready()
        since, last = pod["metadata"]["resourceVersion"], pod
        async with asyncio.timeout(SECONDS), aclosing(kube.versions("p", since=since)) as versions:
            await evict(kube)
            async for kind, version in versions:
                last = version
                if kind == "DELETED":
                    break
        assert condition(last, "DisruptionTarget")["reason"] == REASON
        assert terminated(last)["exitCode"] == 143


async def evict(kube: Kube) -> None:
    if kube.machine.real:
        taints = {"spec": {"taints": [{"key": KEY, "effect": "NoExecute"}]}}
        await kube.admin.patch(f"/api/v1/nodes/{kube.node}", taints, STRATEGIC_PATCH)
        return
    told = {"type": "DisruptionTarget", "status": "True", "reason": REASON, "message": "taint manager: deleting"}
    await kube.patch({"status": {"conditions": [told]}}, "p/status", how=STRATEGIC_PATCH)
    await kube.delete()
