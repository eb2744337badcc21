"""Requests and limits: the memory limit is the guest's own, the QoS class is the API server's and is kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube, status


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "10m"}}, "Burstable"),
        ({"limits": {"cpu": "10m", "memory": "40Mi"}}, "Guaranteed"),
    ],
)
async def test_qos_class(kube: Kube, resources: dict[str, Any], qos: str) -> None:
    await kube.create("sleep", "1000", resources=resources)
    pod = await kube.ready()
    assert pod["status"]["qosClass"] == qos
    wanted = pod["spec"]["containers"][0]["resources"]
    assert (status(pod).get("resources") or {}) == wanted
    assert (status(pod).get("allocatedResources") or {}) == (wanted.get("requests") or {})


async def test_the_memory_limit_is_held_for_each_container(kube: Kube) -> None:
    small = kube.container("alloc", "40", name="small", resources={"limits": {"memory": "40Mi"}})
    large = kube.container("alloc", "40", name="large", resources={"limits": {"memory": "120Mi"}})
    await kube.create(spec={"containers": [small, large]})
    assert await kube.output(container="small") == "no memory\n"
    assert await kube.output(container="large") == "40 MiB\n"
