"""In-place resize: requests, cpu and a memory limit that the kernel holds are taken over while the guest runs.

Where the engine holds the limit of memory, the container has to ask for a restart (RestartContainer).

An API server from 1.36 on allows it on nodes whose label kubernetes.io/os is linux, or missing; there it is refused.
"""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube
from tests.conformance.reading import begun, condition, state, status
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


async def test_memory_without_a_restart(kube: Kube) -> None:
    volume = kube.gate()
    script = ("alloc", "8", "await", "/go/on", "now", "alloc", "80")
    await kube.create(*script, resources={"limits": {"memory": "40Mi"}}, **volume)
    before = await kube.ready()
    wanted = {"limits": {"memory": "160Mi"}, "requests": {"memory": "160Mi"}}
    if not await resized(kube, **wanted):
        return
    if not kube.machine.oom_kills:
        pod = await kube.until(lambda pod: condition(pod, "PodResizePending"))
        assert condition(pod, "PodResizePending")["reason"] == "Infeasible"
        return
    pod = await kube.until(lambda pod: (status(pod).get("resources") or {}) == wanted)
    assert status(pod)["containerID"] == status(before)["containerID"]
    assert not condition(pod, "PodResizeInProgress")
    await kube.open_gate()
    assert await kube.output() == "8 MiB\n80 MiB\n"
    assert (await kube.ended())["status"]["phase"] == "Succeeded"


async def test_memory_with_a_restart(kube: Kube) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    script = ("alloc", "80", "print", "up", "sleep", "1000")
    await kube.create(
        *script,
        resources={"limits": {"memory": "40Mi"}},
        resizePolicy=policy,
        spec={"restartPolicy": "Always"},
    )
    await kube.until(begun)
    if not await resized(kube, limits={"memory": "240Mi"}, requests={"memory": "240Mi"}):
        return
    wanted = {"memory": "240Mi"}
    pod = await kube.until(lambda p: "running" in state(p) and status(p).get("resources", {}).get("limits") == wanted)
    assert status(pod)["restartCount"] >= 1
    assert await kube.logged("up") == "80 MiB\nup\n"


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
