"""What a node measures and says of itself: /stats/summary, /metrics and those below it, /healthz, /configz."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube


async def test_summary(kube: Kube) -> None:
    await kube.create("spin")
    await kube.ready()
    summary: dict[str, Any] = await kube.node_api("stats/summary")
    assert summary["node"]["nodeName"] == kube.node
    assert summary["node"]["memory"]["workingSetBytes"] > 0
    pod = next(item for item in summary["pods"] if item["podRef"]["namespace"] == kube.namespace)
    container = pod["containers"][0]
    assert container["name"] == "c"
    assert container["memory"]["workingSetBytes"] > 0
    before = container["cpu"]["usageCoreNanoSeconds"]
    async with kube.patience():
        while await cpu(kube) <= before:
            pass


async def cpu(kube: Kube) -> int:
    summary: dict[str, Any] = await kube.node_api("stats/summary")
    pod = next(item for item in summary["pods"] if item["podRef"]["namespace"] == kube.namespace)
    found: int = pod["containers"][0]["cpu"]["usageCoreNanoSeconds"]
    return found


async def test_resource_metrics(kube: Kube) -> None:
    """What metrics-server scrapes."""
    await kube.create("spin")
    await kube.ready()
    async with kube.patience():
        while not await kube.metric("metrics/resource", "container_cpu_usage_seconds_total"):
            pass
    assert await kube.metric("metrics/resource", "container_memory_working_set_bytes", 'container="c"') > 0
    assert await kube.metric("metrics/resource", "pod_memory_working_set_bytes", 'pod="p"') > 0
    assert await kube.metric("metrics/resource", "container_start_time_seconds") > 0
    assert "\nnode_cpu_usage_seconds_total" in await kube.node_api("metrics/resource")


async def test_pages_of_its_own(kube: Kube) -> None:
    assert "# TYPE" in await kube.node_api("metrics")
    assert "prober_probe_total" in await kube.node_api("metrics/probes")
    assert await kube.node_api("healthz") == "ok"
    config = await kube.node_api("configz")
    assert config["kubeletconfig"]["kind"] == "KubeletConfiguration"
    pods = await kube.node_api("pods")
    assert pods["kind"] == "PodList"
