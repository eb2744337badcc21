"""A pod that a controller evicts for a NoExecute taint ends in order, and keeps what the controller says of it.

The controller marks the pod with DisruptionTarget and deletes it, which is what is done here in its stead.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from tests.conformance.harness import SECONDS, Kube, condition, terminated
from wasmlet.kube.client import STRATEGIC_PATCH


async def test_teardown(kube: Kube) -> None:
    toleration = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "tolerationSeconds": 300}
    tolerations = [{"key": "wasmlet.dev/provider", "operator": "Exists"}, toleration | {"operator": "Exists"}]
    await kube.create("sleep", "1000", spec={"tolerations": tolerations})
    pod = await kube.ready()
    told = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "taint manager",
    }
    await kube.patch({"status": {"conditions": [told]}}, "p/status", how=STRATEGIC_PATCH)
    since, last = pod["metadata"]["resourceVersion"], pod
    async with asyncio.timeout(SECONDS), aclosing(kube.versions("p", since=since)) as versions:
        await kube.delete()
        async for kind, version in versions:
            last = version
            if kind == "DELETED":
                break
    assert condition(last, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
    assert terminated(last)["exitCode"] == 143
