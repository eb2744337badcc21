"""What the tests of Deployments and Services share: objects, a stand-in for a kubelet, and waiting for objects."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs

from tests.controlplane.client import PODS, STRATEGIC, Api, Object, node

APPS = "/apis/apps/v1/namespaces/default"
DEPLOYMENTS, SETS = f"{APPS}/deployments", f"{APPS}/replicasets"
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
LABELS = {"app": "web"}
SECONDS = 20.0


def template(image: str = "img:1", **spec: Any) -> Object:
    """A template of pods with a named port."""
    container = {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}
    return {
        "metadata": {"labels": LABELS},
        "spec": {"containers": [container], "automountServiceAccountToken": False, **spec},
    }


def deployment(name: str = "web", image: str = "img:1", replicas: int = 2, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template(image), **spec},
    }


def replica_set(name: str = "rs", replicas: int = 2, **spec: Any) -> Object:
    return deployment(name, replicas=replicas, **spec) | {"kind": "ReplicaSet"}


def service(name: str = "web", **spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": LABELS, "ports": ports, **spec},
    }


async def until(api: Api, path: str, hold: Callable[[list[Object]], Any]) -> list[Object]:
    """Watch a collection until something holds of its objects; the objects, by name."""
    there: dict[str, Object] = {}
    listed = await api.ok("GET", path)
    there = {item["metadata"]["name"]: item for item in listed["items"]}
    async with (
        asyncio.timeout(SECONDS),
        api.watch(path, resourceVersion=listed["metadata"]["resourceVersion"]) as lines,
    ):
        while not hold(found := [there[name] for name in sorted(there)]):
            event = await lines.next(SECONDS)
            there[event["object"]["metadata"]["name"]] = event["object"]
            if event["type"] == "DELETED":
                del there[event["object"]["metadata"]["name"]]
    return found


async def available(api: Api, count: int, name: str = "web") -> Object:
    """Wait until that many pods of a Deployment are available, all of its present template."""

    def hold(found: list[Object]) -> bool:
        (item,) = (item for item in found if item["metadata"]["name"] == name)
        status = item.get("status", {})
        counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
        return counts == [count] * 3 and status["observedGeneration"] == item["metadata"]["generation"]

    found = await until(api, DEPLOYMENTS, hold)
    return next(item for item in found if item["metadata"]["name"] == name)


def ready_status(address: str, *, ready: bool = True, phase: str = "Running") -> Object:
    """The status of a pod, as a kubelet writes it."""
    return {
        "phase": phase,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }


@attrs.define
class Runner:
    """Stands in for a kubelet: says of each pod that it is ready, or what `status_of` says, and lets it go."""

    api: Api
    status_of: Callable[[Object], Object | None] | None = None
    numbers: Any = attrs.field(factory=lambda: itertools.count(1))
    seen: set[str] = attrs.field(factory=set)

    async def run(self) -> None:
        async with self.api.watch(PODS) as lines:
            while True:
                event = await lines.next(3600)
                pod = event["object"]
                name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
                if event["type"] == "DELETED" or not pod["spec"].get("nodeName"):
                    continue
                if "deletionTimestamp" in pod["metadata"]:
                    options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}  # not one of the same name
                    await self.api("DELETE", f"{PODS}/{name}", options)
                elif uid not in self.seen:
                    self.seen.add(uid)
                    status = self.status_of(pod) if self.status_of else ready_status(f"10.1.0.{next(self.numbers)}")
                    if status is not None:
                        await self.say(name, status)

    async def say(self, name: str, status: Object) -> None:
        """Write the status of a pod."""
        await self.api("PATCH", f"{PODS}/{name}/status", {"status": status}, media=STRATEGIC)


@contextlib.asynccontextmanager
async def running(api: Api, status_of: Callable[[Object], Object | None] | None = None) -> AsyncIterator[Runner]:
    """A node, and pods that get ready on it."""
    await api.ok("POST", "/api/v1/nodes", node("n1", pods="200"))
    runner = Runner(api, status_of)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
