"""A bare node: what the floor writes, but as a real node has to do it.

It is a process of its own, with a node's credentials and its own watch of the node's pods, and its statuses have all
that a kubelet writes. So it says how near a node can come to the floor on this API server, whatever it runs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.api import Api, Raw
from benchmarks.floor import Floor
from wasmlet.kube import paths

HOST = "127.0.0.1"
RUNNING = ("PodReadyToStartContainers", "PodScheduled", "Initialized", "ContainersReady", "Ready")
ENDED = {"PodReadyToStartContainers": "", "ContainersReady": "PodFailed", "Ready": "PodFailed"}
"""The conditions that turn False when a pod has ended, with the reason that is given."""


class Bare(Floor):
    """The floor, with statuses as a kubelet of 1.36 writes them for a pod of one container that runs nothing."""

    def status(self, pod: Raw, phase: str, state: Raw) -> dict[str, Any]:
        status = super().status(pod, phase, state)
        metadata = pod["metadata"]
        generation, now = metadata.get("generation", 1), status["startTime"]
        for container in status["containerStatuses"]:
            container["containerID"] = f"bare://{metadata['uid']}/{container['name']}"
        same = {"lastTransitionTime": now, "observedGeneration": generation}
        if phase == "Running":
            status["conditions"] = [{"type": kind, "status": "True", **same} for kind in RUNNING]
            status |= {"hostIP": HOST, "hostIPs": [{"ip": HOST}]}
        else:
            del status["startTime"]
            ended = [{"type": kind, "status": "False", **same, "reason": reason} for kind, reason in ENDED.items()]
            status["conditions"] = [{"type": "Initialized", "status": "True", **same}, *ended]
        return status | {"observedGeneration": generation}


async def play(api: Api, name: str, ready: asyncio.Event) -> None:
    """Be the node of that name until cancelled; `ready` is set once its pods are watched."""
    of_node = f"fieldSelector=spec.nodeName%3D{name}"
    version = (await api.call("GET", f"{paths.PODS}?{of_node}"))["metadata"]["resourceVersion"]
    async with asyncio.TaskGroup() as group:
        node = Bare(api, group)
        ready.set()
        async for kind, pod in api.watch(paths.PODS, version, of_node):
            if kind != "DELETED":
                node.saw(pod)
