"""However a pod comes to its end, its memory is free at once: the garbage collector has nothing to find."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.runtime.files.test_volumes import CONFIG, settings, with_volume
from tests.runtime.harness import Runtime, pod_of
from tests.shared.garbage import nothing_left
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import PodStatus, phase_of
from wasmlet.runtime.pods.container import ContainerLife
from wasmlet.runtime.pods.eviction import PERIOD
from wasmlet.runtime.pods.pod import PodLife

PODS = 3

Life = Callable[[Runtime, str, str], Awaitable[PodKey]]
"""The life of a pod until it is deleted. It is given a runtime with a clock of its own, the image, the pod's name."""


async def ends_by_itself(timed: Runtime, image: str, name: str) -> PodKey:
    key = await timed.create(pod_of("print", "x", image=image, name=name))
    await timed.ended(key)
    return key


async def is_deleted_while_it_runs(timed: Runtime, image: str, name: str) -> PodKey:
    key = await timed.create(pod_of("sleep", "1000", image=image, name=name))
    await timed.running(key)
    return key


async def is_deleted_before_it_runs(timed: Runtime, image: str, name: str) -> PodKey:
    return await timed.create(pod_of("sleep", "1000", image=image, name=name))


async def has_no_image(timed: Runtime, image: str, name: str) -> PodKey:
    key = await timed.create(pod_of(image="file:///absent.wasm", name=name))
    await timed.event(key, "Failed")
    return key


async def has_no_module(timed: Runtime, image: str, name: str) -> PodKey:
    broken = timed.state_dir / f"{name}.wasm"
    broken.write_bytes(b"\0asm\1\0\0\0\xff")
    key = await timed.create(pod_of(image=f"file://{broken}", name=name))
    await timed.waiting(key, "CreateContainerError")
    return key


async def lacks_a_config_map(timed: Runtime, image: str, name: str) -> PodKey:
    key = await timed.create(with_volume("sleep", "1000", image=image, source=CONFIG, name=name))
    await timed.event(key, "FailedMount")
    return key


async def has_a_volume(timed: Runtime, image: str, name: str) -> PodKey:
    pod = with_volume("sleep", "1000", image=image, source=CONFIG, name=name)
    key = await timed.create(pod, settings(a="1"))
    await timed.running(key)
    await timed.provider.update_pod(pod, settings(a="2"))
    return key


async def is_evicted(timed: Runtime, image: str, name: str) -> PodKey:
    source = {"emptyDir": {"sizeLimit": "1Mi"}}
    key = await timed.create(
        with_volume("fill", "/v/x", "2000", "sleep", "1000", image=image, source=source, name=name)
    )
    await timed.logged(key, b"fill /v/x: ok\n")
    assert await timed.fake_clock.next_sleep() == PERIOD
    timed.fake_clock.advance(PERIOD)
    assert (await timed.until(key, lambda status: status.phase == "Failed")).reason == "Evicted"
    return key


async def passes_its_deadline(timed: Runtime, image: str, name: str) -> PodKey:
    key = await timed.create(pod_of("sleep", "1000", image=image, name=name, spec={"activeDeadlineSeconds": 60}))
    await timed.running(key)
    assert await timed.fake_clock.next_sleep() == 60
    timed.fake_clock.advance(60)
    assert (await timed.until(key, lambda status: status.phase == "Failed")).reason == "DeadlineExceeded"
    return key


async def is_restarted(timed: Runtime, image: str, name: str) -> PodKey:
    key = await timed.create(pod_of("exit", "1", image=image, name=name, restart="Always"))
    await timed.waiting(key, "CrashLoopBackOff")
    return key


async def has_others_beside_it(timed: Runtime, image: str, name: str) -> PodKey:
    init: list[Any] = [
        {"name": "side", "image": image, "args": ["sleep", "1000"], "restartPolicy": "Always"},
        {"name": "init", "image": image, "args": ["print", "x"]},
    ]
    more = {"name": "more", "image": image, "args": ["print", "x"]}
    pod = pod_of("sleep", "1000", image=image, name=name, spec={"initContainers": init})
    pod.raw["spec"]["containers"].append(more)
    key = await timed.create(pod)
    await timed.running(key)
    await timed.ended(key, "more")
    return key


async def is_done_beside_a_sidecar(timed: Runtime, image: str, name: str) -> PodKey:
    side = {"name": "side", "image": image, "args": ["sleep", "1000"], "restartPolicy": "Always"}
    pod = pod_of("print", "x", image=image, name=name, spec={"initContainers": [side]})
    return await _succeeds(timed, pod)


async def _succeeds(timed: Runtime, pod: Pod) -> PodKey:
    def succeeded(status: PodStatus) -> bool:
        return phase_of(pod, status) == "Succeeded"

    key = await timed.create(pod)
    await timed.until(key, succeeded)
    return key


async def is_probed(timed: Runtime, image: str, name: str) -> PodKey:
    probe = {"exec": {"command": ["main", "exit", "0"]}, "periodSeconds": 10}
    pod = pod_of("sleep", "1000", image=image, name=name, readinessProbe=probe)
    key = await timed.create(pod)
    await timed.main(key, lambda status: status.is_ready)
    return key


async def is_deleted_while_it_is_probed(timed: Runtime, image: str, name: str) -> PodKey:
    ready = {"exec": {"command": ["main", "exit", "0"]}, "periodSeconds": 10}
    alive = {"exec": {"command": ["main", "sleep", "1000"]}, "timeoutSeconds": 1000}
    pod = pod_of("sleep", "1000", image=image, name=name, readinessProbe=ready, livenessProbe=alive)
    key = await timed.create(pod)
    await timed.main(key, lambda status: status.is_ready)
    return key


async def is_hooked(timed: Runtime, image: str, name: str) -> PodKey:
    hook = {"exec": {"command": ["main", "exit", "0"]}}
    key = await timed.create(
        pod_of("sleep", "1000", image=image, name=name, lifecycle={"postStart": hook, "preStop": hook})
    )
    await timed.running(key)
    return key


async def is_resized(timed: Runtime, image: str, name: str) -> PodKey:
    def resources(cpu: str) -> dict[str, Any]:
        return {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}

    key = await timed.create(pod_of("sleep", "1000", image=image, name=name, resources=resources("0.1")))
    await timed.running(key)
    resized = pod_of("sleep", "1000", image=image, name=name, resources=resources("0.2"))
    await timed.provider.update_pod(resized, Inputs())
    await timed.main(key, lambda status: status.resources == resources("0.2"))
    return key


LIVES: list[Life] = [
    ends_by_itself,
    is_deleted_while_it_runs,
    is_deleted_before_it_runs,
    has_no_image,
    has_no_module,
    lacks_a_config_map,
    has_a_volume,
    is_evicted,
    passes_its_deadline,
    is_restarted,
    has_others_beside_it,
    is_done_beside_a_sidecar,
    is_probed,
    is_deleted_while_it_is_probed,
    is_hooked,
    is_resized,
]


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
async def test_an_ended_pod_leaves_nothing(timed: Runtime, image: str, life: Life) -> None:
    await timed.provider.delete_pod(await life(timed, image, "first"), 0)  # what is made once, is made
    async with nothing_left(PodLife, ContainerLife):
        for number in range(PODS):
            await timed.provider.delete_pod(await life(timed, image, f"p{number}"), 0)
