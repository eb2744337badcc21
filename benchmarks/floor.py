"""The floor: a bare client that makes, for each pod, the writes that a correct node has to make, and nothing else.

That is one status patch when the pod runs, and, when it is deleted, one terminal status patch and one delete with grace
0. It has no admission, no inputs, no retries of its own and no provider. `burst` runs it beside the node under test, on
pods bound to a Node of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from benchmarks.api import STRATEGIC_PATCH, Api, Raw
from wasmlet.kube import paths
from wasmlet.model.times import rfc3339

IN_FLIGHT = 16
"""The most requests at a time, as many as the node has. More would only make each of them slower."""
CONDITIONS = ("Initialized", "ContainersReady", "Ready")


class Floor:
    """Plays the node for the pods that are passed to `saw`; `owned` makes its Node and removes it.

    Args:
        group: owns the tasks that write statuses and deletes.
    """

    def __init__(self, api: Api, group: asyncio.TaskGroup) -> None:
        self._api = api
        self._group = group
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._started: set[str] = set()
        self._ended: set[str] = set()

    def saw(self, pod: Raw) -> None:
        """A pod was added or changed."""
        metadata = pod["metadata"]
        ending = "deletionTimestamp" in metadata
        known = self._ended if ending else self._started
        if metadata["uid"] not in known:
            known.add(metadata["uid"])
            self._group.create_task(self._end(pod) if ending else self._start(pod))

    async def _start(self, pod: Raw) -> None:
        async with self._slots:
            await self._patch(pod, "Running", {"running": {"startedAt": _now()}})

    async def _end(self, pod: Raw) -> None:
        ended = {"exitCode": 143, "reason": "Error", "finishedAt": _now()}
        async with self._slots:
            await self._patch(pod, "Failed", {"terminated": ended})
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
            await self._api.call("DELETE", _path(pod), options)

    async def _patch(self, pod: Raw, phase: str, state: Raw) -> None:
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": self.status(pod, phase, state)}
        await self._api.call("PATCH", f"{_path(pod)}/status", patch, STRATEGIC_PATCH)

    def status(self, pod: Raw, phase: str, state: Raw) -> dict[str, Any]:
        """What is written of a pod whose containers are all in this state; "Running" or "Failed" is its phase."""
        ready, now = phase == "Running", _now()
        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
            }
            for container in pod["spec"]["containers"]
        ]
        return {
            "phase": phase,
            "startTime": now,
            "conditions": [{"type": t, "status": str(ready), "lastTransitionTime": now} for t in CONDITIONS],
            "containerStatuses": containers,
        }


@asynccontextmanager
async def owned(api: Api, name: str) -> AsyncIterator[None]:
    """A Node of that name, Ready, for as long as the context is open."""
    room, now = {"cpu": "1000", "memory": "1000Gi", "pods": "100000"}, _now()
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "the floor of a benchmark",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    await api.call("POST", paths.NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    try:
        status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
        await api.call("PATCH", f"{paths.NODES}/{name}/status", status, STRATEGIC_PATCH)
        yield
    finally:
        await api.call("DELETE", f"{paths.NODES}/{name}", accept=404)


def _path(pod: Raw) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _now() -> str:
    return rfc3339(datetime.now(UTC))
