"""A pod that was bound to a node it does not select or tolerate is Failed: NodeAffinity, TaintToleration."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube

LINUX = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}
PLACES: list[dict[str, Any]] = [
    {"nodeSelector": {"kubernetes.io/os": "linux"}},
    {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [LINUX]}}}},
]


@pytest.mark.parametrize("place", PLACES)
async def test_node_affinity(kube: Kube, place: dict[str, Any]) -> None:
    await kube.create("print", "x", spec=place)
    pod = await kube.phase("Failed")
    assert pod["status"]["reason"] == "NodeAffinity"
    await kube.event("NodeAffinity")


async def test_taints(own: Own) -> None:
    async with own(register_with_taints=("example.com/gone=yes:NoExecute",)) as kube:
        own_taint = {"key": "wasmlet.dev/provider", "operator": "Exists"}
        await kube.create("print", "x", name="taken", spec={"tolerations": [{"operator": "Exists"}]})
        await kube.phase("Succeeded", "taken")
        await kube.create("print", "x", name="refused", spec={"tolerations": [own_taint]})
        if kube.machine.real:  # where a controller evicts it, whatever the node says of it
            await kube.gone("refused")
            return
        pod = await kube.phase("Failed", "refused")
        assert pod["status"]["reason"] == "TaintToleration"
