"""A pod for which the node has no room is turned away: Failed, OutOfcpu, OutOfmemory or OutOfpods."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube


@pytest.mark.parametrize(("resource", "amount"), [("cpu", "1000"), ("memory", "1000Gi")])
async def test_more_than_there_is(kube: Kube, resource: str, amount: str) -> None:
    await kube.create("print", "x", resources={"requests": {resource: amount}})
    pod = await kube.phase("Failed")
    assert pod["status"]["reason"] == f"OutOf{resource}"
    assert f"Node didn't have enough resource: {resource}, requested: " in pod["status"]["message"]
    await kube.event(f"OutOf{resource}")


async def test_too_many_pods(own: Own) -> None:
    async with own(max_pods=2) as kube:
        for name in ("one", "two"):
            await kube.create("sleep", "1000", name=name)
            await kube.ready(name)
        await kube.create("print", "x", name="three")
        pod = await kube.phase("Failed", "three")
        assert pod["status"]["reason"] == "OutOfpods"
        await kube.remove("one")
        await kube.create("print", "x", name="four")
        await kube.phase("Succeeded", "four")
