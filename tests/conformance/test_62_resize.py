"""In-place resize: requests and cpu are taken over while the guest runs, a memory limit with RestartContainer.

An API server from 1.36 on allows it on nodes whose label kubernetes.io/os is linux, or missing; there it is refused.
"""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube, condition, state, status
from wasmlet.kube import errors


async def resized(kube: Kube, **resources: Any) -> bool:
    """Ask for these resources; False where the API server does not let a node of this kind have it."""
    try:
        await kube.change_container(to="resize", resources=resources)
    except errors.Forbidden as error:
        if not kube.machine.real or "only supported on linux nodes" not in str(error):
            raise
        return False
    return True


async def test_cpu_without_a_restart(kube: Kube) -> None:
    await kube.create("sleep", "1000", resources={"requests": {"cpu": "10m"}, "limits": {"cpu": "20m"}})
    before = await kube.ready()
    wanted = {"requests": {"cpu": "15m"}, "limits": {"cpu": "30m"}}
    if not await resized(kube, **wanted):
        return
    pod = await kube.until(lambda pod: status(pod)["resources"] == wanted)
    assert status(pod)["allocatedResources"] == {"cpu": "15m"}
    assert status(pod)["containerID"] == status(before)["containerID"]


async def test_memory_with_a_restart(kube: Kube) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    script = ("alloc", "40", "sleep", "1000")
    await kube.create(
        *script,
        resources={"limits": {"memory": "40Mi"}},
        resizePolicy=policy,
        spec={"restartPolicy": "Always"},
    )
    await kube.logged("no memory")
    if not await resized(kube, limits={"memory": "120Mi"}, requests={"memory": "120Mi"}):
        return
    pod = await kube.until(lambda pod: status(pod)["restartCount"] == 1 and "running" in state(pod))
    assert await kube.logged("MiB") == "40 MiB\n"
    assert status(pod)["resources"]["limits"] == {"memory": "120Mi"}


async def test_what_is_infeasible(kube: Kube) -> None:
    await kube.create("sleep", "1000", resources={"requests": {"cpu": "10m"}})
    await kube.ready()
    if not await resized(kube, requests={"cpu": "1000"}):
        return
    pod = await kube.until(lambda pod: condition(pod, "PodResizePending"))
    pending = condition(pod, "PodResizePending")
    assert (pending["status"], pending["reason"]) == ("True", "Infeasible")
    assert status(pod)["allocatedResources"] == {"cpu": "10m"}
    assert await resized(kube, requests={"cpu": "10m"})
    await kube.until(lambda pod: not condition(pod, "PodResizePending"))
