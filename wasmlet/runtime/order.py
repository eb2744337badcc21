"""The order in which a pod's containers run: init containers one by one, sidecars among them, then the rest.

A sidecar (KEP-753) holds up what comes after it until it has started, runs beside it, and ends after it. Main
containers are started in the manifest's order, each once the first try at the one before is over; ephemeral containers
whenever they are added. When no main container is to run again, what still runs is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasmlet.runtime.container import ContainerLife
    from wasmlet.runtime.pod import PodLife


async def run(pod: PodLife) -> None:
    """Run every container as the manifest says; return when none is to run again and none runs."""
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(_run_ephemeral(pod))]

        def keep(life: ContainerLife) -> None:
            beside.append(group.create_task(_keep(life)))

        if await _initialize(pod, keep):
            mains = []
            for container in pod.spec.containers:
                life = pod.containers[container.name]
                mains.append(group.create_task(_keep(life)))
                await life.tried.wait()
            await asyncio.wait(mains)
        for task in beside:
            task.cancel()
    await pod.stop_containers(pod.spec.termination_grace_seconds)


async def _initialize(pod: PodLife, keep: Callable[[ContainerLife], None]) -> bool:
    """Run init containers and start sidecars; False where an init container has failed for good."""
    # Main containers run only after every init container is done, so where one has run the init containers are.
    begun = any(pod.containers[container.name].record for container in pod.spec.containers)
    for container in pod.spec.init_containers:
        life = pod.containers[container.name]
        if life.kind == "sidecar":
            keep(life)
            if not begun:
                await life.up.wait()
        elif not begun and not life.done:
            ended = await life.run()
            if ended.exit_code != 0:
                return False
    return True


async def _run_ephemeral(pod: PodLife) -> None:
    """Run the ephemeral containers that are there, and those that are added."""
    known: set[str] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            pod.grown.clear()
            for container in pod.spec.ephemeral_containers:
                if container.name not in known:
                    known.add(container.name)
                    group.create_task(_keep(pod.containers[container.name]))
            await pod.grown.wait()


async def _keep(life: ContainerLife) -> None:
    await life.run()
