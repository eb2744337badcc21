"""Stats: what a kubelet's summary says, measured at guests that use what they are told to."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from tests.runtime.harness import Runtime, pod_of
from wasmlet.kubelet.stats import completed, resource_metrics
from wasmlet.model.times import parse

MEBIBYTE = 2**20


def of(summary: Any, name: str) -> Any:
    (found,) = [pod for pod in summary["pods"] if pod["podRef"]["name"] == name]
    return found


async def test_a_summary(runtime: Runtime, image: str) -> None:
    began = datetime.now(UTC)
    spins = await runtime.create(pod_of("spin", image=image, name="spins"))
    holds = await runtime.create(pod_of("alloc", "64", "print", "up", "sleep", "1000", image=image, name="holds"))
    over = await runtime.create(pod_of("print", "x", image=image, name="over"))
    await runtime.running(spins)
    await runtime.logged(holds, b"up")
    await runtime.ended(over)
    first = await runtime.provider.stats()
    used = of(first, "spins")["containers"][0]["cpu"]["usageCoreNanoSeconds"]
    second = first
    while of(second, "spins")["cpu"]["usageCoreNanoSeconds"] < used + 300_000_000:
        await asyncio.sleep(0.1)
        second = await runtime.provider.stats()
    busy, idle = of(second, "spins"), of(second, "holds")
    assert busy["podRef"] == {"name": "spins", "namespace": "default", "uid": spins.uid}
    assert [container["name"] for container in busy["containers"]] == ["main"]
    assert 0 < busy["cpu"]["usageNanoCores"] < 1.5e9
    assert busy["cpu"]["usageNanoCores"] > 10 * idle["cpu"]["usageNanoCores"]
    for kind in ("workingSetBytes", "rssBytes"):
        assert 64 * MEBIBYTE < idle["memory"][kind] < 100 * MEBIBYTE
        assert busy["memory"][kind] < 40 * MEBIBYTE
    assert began <= parse(busy["containers"][0]["startTime"]) <= parse(busy["cpu"]["time"]) <= datetime.now(UTC)
    # What has ended takes nothing, and its pod is still there.
    assert of(second, "over")["containers"] == []
    assert "cpu" not in of(second, "over")
    node = second["node"]
    assert node["cpu"]["usageCoreNanoSeconds"] > busy["cpu"]["usageCoreNanoSeconds"]
    assert node["memory"]["workingSetBytes"] + node["memory"]["availableBytes"] > 0
    assert node["fs"]["availableBytes"] <= node["fs"]["capacityBytes"]
    text = resource_metrics(completed(second, "node")).decode()
    assert 'container_cpu_usage_seconds_total{container="main",namespace="default",pod="spins"}' in text
    assert 'pod_memory_working_set_bytes{namespace="default",pod="holds"}' in text
    assert "scrape_error 0.0" in text


async def test_is_cheap(runtime: Runtime, image: str) -> None:
    keys = [await runtime.create(pod_of("sleep", "1000", image=image, name=f"pod-{n}")) for n in range(20)]
    for key in keys:
        await runtime.running(key)
    await runtime.provider.stats()
    before = time.process_time()
    for _ in range(5):
        assert len((await runtime.provider.stats())["pods"]) == 20
    assert (time.process_time() - before) / 5 / 20 < 0.005  # a second of CPU a minute for a thousand pods is 0.001
