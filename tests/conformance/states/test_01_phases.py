"""A pod's phase follows from its containers and restartPolicy, and Succeeded and Failed are never left again."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import state


@pytest.mark.parametrize(
    ("args", "phases"),
    [
        (["print", "x"], ["Pending", "Running", "Succeeded"]),
        (["exit", "3"], ["Pending", "Running", "Failed"]),
    ],
)
async def test_a_pod_goes_through_its_phases_once(kube: Kube, args: list[str], phases: list[str]) -> None:
    created = await kube.create("await", "/go/on", "now", *args, **kube.gate())
    seen = [created["status"]["phase"]]
    async with asyncio.timeout(60), aclosing(kube.versions("p", since=created["metadata"]["resourceVersion"])) as pods:
        await kube.running()
        await kube.open_gate()
        async for _, pod in pods:
            if pod["status"]["phase"] != seen[-1]:
                seen.append(pod["status"]["phase"])
            if seen[-1] in ("Succeeded", "Failed"):
                break
    assert seen == phases


async def test_the_phase_is_that_of_all_containers(kube: Kube) -> None:
    await kube.create(spec={"containers": [kube.container("exit", "1", name="a"), kube.container("sleep", "1000")]})
    pod = await kube.until(lambda pod: "terminated" in state(pod, "a") and "running" in state(pod))
    assert pod["status"]["phase"] == "Running"
    await kube.remove(gracePeriodSeconds=0)


async def test_a_phase_that_is_final_stays(kube: Kube) -> None:
    await kube.create("print", "x")
    before = await kube.ended()
    await kube.patch({"metadata": {"labels": {"a": "b"}}})
    await kube.create("print", "y", name="q")
    await kube.ended("q")
    after = await kube.get()
    assert after["status"] == before["status"]
    assert after["status"]["phase"] == "Succeeded"
