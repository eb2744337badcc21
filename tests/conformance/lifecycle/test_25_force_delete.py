"""A forced delete takes the object at once, and the workload with it."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube


async def test_the_workload_ends_too(kube: Kube) -> None:
    hook = {"preStop": {"exec": {"command": ["x", "sleep", "100000"]}}}
    pod = await kube.create("spin", lifecycle=hook, spec={"terminationGracePeriodSeconds": 1000})
    await kube.running()
    assert pod["metadata"]["name"] in await running(kube)
    text = await kube.kubectl("delete", "pod", "p", "--force", "--grace-period=0", "--wait=false")
    assert "force deleted" in text
    await kube.gone()
    async with kube.patience():
        while "p" in await running(kube):
            pass


async def running(kube: Kube) -> list[str]:
    """The pods of the namespace that the node says it runs."""
    found: dict[str, Any] = await kube.node_api("runningpods/")
    return [
        item["metadata"]["name"] for item in found["items"] or () if item["metadata"]["namespace"] == kube.namespace
    ]
