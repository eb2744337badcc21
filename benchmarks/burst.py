"""A burst: N pods created 50 at a time, until all are Running; then all deleted, until all are gone.

`burst` runs one burst, against a node or against the floor (`floor`: the least work that any node has to do). `rounds`
runs both by turns, so that other load on the machine affects both alike. A pod's time runs from its POST to its phase
Running in a watch. The time to gone runs from the first DELETE to the last DELETED event. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import attrs

from benchmarks import floor
from benchmarks.api import Api, Raw
from benchmarks.cluster import Cluster
from benchmarks.processes import BenchmarkFailed, Process
from benchmarks.report import Progress

CREATORS = 50
"""How many pods are created, or deleted, at a time."""
PATIENCE_SECONDS = 300.0
SETTLE_SECONDS = 1.0
"""For a second after all pods run, the node is still busy with their start, which its CPU includes."""
ENDED = ("Succeeded", "Failed")
REFUSED = ("CreateContainerConfigError", "InvalidImageName", "ErrImageNeverPull")
"""The reasons of a container that waits for another manifest: it would not run later."""

Figures = dict[str, float]
Meanwhile = Callable[[str], Awaitable[Figures]]
"""Takes more figures while all pods run; it is given the path of the pods' namespace in the API."""


@attrs.frozen
class Load:
    """The pods of a burst.

    Attributes:
        pods: how many.
        image, args: of each pod's one container.
        handler: of the RuntimeClass that the pods have; "" for none.
    """

    pods: int = 1000
    image: str = "file:///guest.wasm"
    args: Sequence[str] = ()
    handler: str = ""

    def spec(self, node: str) -> Mapping[str, Any]:
        return {
            **({"runtimeClassName": self.handler} if self.handler else {}),
            "nodeName": node,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": self.image, "args": list(self.args)}],
        }


@attrs.define
class Seen:
    """What a watch has shown of the pods."""

    wanted: int
    phases: dict[str, Raw] = attrs.field(factory=dict)
    running: dict[str, float] = attrs.field(factory=dict)
    gone: set[str] = attrs.field(factory=set)
    hopeless: str = ""
    """The first pod that will not run, and why; "" while all may."""
    all_running: asyncio.Event = attrs.field(factory=asyncio.Event)
    all_gone: asyncio.Event = attrs.field(factory=asyncio.Event)

    def saw(self, kind: str, pod: Raw) -> None:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        if kind == "DELETED":
            self.gone.add(name)
            self.phases.pop(name, None)
            if len(self.gone) == self.wanted:
                self.all_gone.set()
            return
        self.phases[name] = status
        if status.get("phase") == "Running" and name not in self.running:
            self.running[name] = time.monotonic()
            if len(self.running) == self.wanted:
                self.all_running.set()
        if not self.all_running.is_set() and (why := _hopeless(status)):
            self.hopeless = f"pod {name} did not run: {why}"
            self.all_running.set()

    async def until_running(self) -> None:
        """Return when all pods run.

        Raises:
            BenchmarkFailed: one of them will not run, or they do not in time.
        """
        await _until(self.all_running, lambda: self._missing("Running", len(self.running)))
        if self.hopeless:
            raise BenchmarkFailed(self.hopeless)

    async def until_gone(self) -> None:
        """Return when all pods are gone.

        Raises:
            BenchmarkFailed: they are not in time.
        """
        await _until(self.all_gone, lambda: self._missing("gone", len(self.gone)))

    def _missing(self, what: str, done: int) -> BenchmarkFailed:
        """The error that not all pods are `what`, with the status of one that is not."""
        status = next((s for name, s in self.phases.items() if what == "gone" or name not in self.running), None)
        text = f"{done} of {self.wanted} pods were {what} after {PATIENCE_SECONDS:g} s; one that was not: {status}"
        return BenchmarkFailed(text)


def _hopeless(status: Raw) -> str:
    """Why a pod with this status will not run, in the words of the status; "" where it may."""
    phase = str(status.get("phase"))
    said = [status] if phase in ENDED else []
    for container in status.get("containerStatuses") or ():
        states = (container.get("state") or {}).values()
        said += [state for state in states if phase in ENDED or state.get("reason") in REFUSED]
    words = [str(one[key]) for one in said for key in ("reason", "message") if one.get(key)]
    return ": ".join([phase, *words]) if said else ""


async def burst(
    cluster: Cluster,
    load: Load,
    progress: Progress,
    node: Process | None = None,
    while_running: Meanwhile | None = None,
) -> Figures:
    """Run one burst. Returns its figures.

    Args:
        node: the process of the node under test; None for the floor.
        while_running: called when all pods run.

    Raises:
        BenchmarkFailed: the API server refuses something, or not all pods ran or were gone in time.
    """
    try:
        if node is None:
            name = f"{cluster.node}-floor"
            async with floor.owned(cluster.api, name):
                return await _burst(cluster, load, progress, name, None, None)
        return await _burst(cluster, load, progress, cluster.node, node, while_running)
    except BaseExceptionGroup as group:
        raise cause(group) from None


def cause(error: BaseException) -> BaseException:
    """The error that ended a group of tasks: ours, if there is one."""
    while isinstance(error, BaseExceptionGroup):
        error = (error.subgroup(BenchmarkFailed) or error).exceptions[0]
    return error


async def have_class(api: Api, handler: str) -> None:
    body = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": handler},
        "handler": handler,
    }
    await api.call("POST", "/apis/node.k8s.io/v1/runtimeclasses", body, accept=409)


async def _burst(
    cluster: Cluster,
    load: Load,
    progress: Progress,
    name: str,
    node: Process | None,
    while_running: Meanwhile | None,
) -> Figures:
    if load.handler:
        await have_class(cluster.api, load.handler)
    seen, sent = Seen(load.pods), dict[str, float]()
    figures: Figures = {}
    async with (
        cluster.namespace(f"bench-{os.getpid()}-{time.monotonic_ns() % 10**9}") as pods,
        asyncio.TaskGroup() as group,
    ):
        begin, cpu = time.monotonic(), node.cpu() if node else 0.0
        async with watched(cluster.api, group, pods, seen, None if node else floor.Floor(cluster.api, group)):
            spec = load.spec(name)

            async def create(pod: str) -> None:
                sent[pod] = time.monotonic()
                body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec}
                await cluster.api.call("POST", pods, body)

            async def delete(pod: str) -> None:
                await cluster.api.call("DELETE", f"{pods}/{pod}")

            async with progress.counting("Running", load.pods, lambda: len(seen.running)):
                begin = time.monotonic()
                await _each(create, [f"p-{number:05}" for number in range(load.pods)])
                await seen.until_running()
            figures["all_running"] = time.monotonic() - begin
            took = sorted(seen.running[pod] - at for pod, at in sent.items())
            figures |= {"running_p50": quantile(took, 0.5), "running_p99": quantile(took, 0.99)}
            if node is not None:
                await asyncio.sleep(SETTLE_SECONDS)
                figures["cpu_ms_per_pod_to_running"] = 1000 * (node.cpu() - cpu) / load.pods
                figures["rss_mib"] = node.rss()
            if while_running is not None:
                figures |= await while_running(pods.rpartition("/")[0])
            cpu = node.cpu() if node else 0.0
            async with progress.counting("gone", load.pods, lambda: len(seen.gone)):
                begin = time.monotonic()
                await _each(delete, list(sent))
                await seen.until_gone()
            figures["all_gone"] = time.monotonic() - begin
            if node is not None:
                figures["cpu_ms_per_pod_to_gone"] = 1000 * (node.cpu() - cpu) / load.pods
    return figures


@asynccontextmanager
async def watched(
    api: Api, group: asyncio.TaskGroup, pods: str, seen: Seen, stand_in: floor.Floor | None
) -> AsyncIterator[None]:
    """Watch the pods while the context is open, and pass the changes on to the floor, if it plays the node."""
    version = (await api.call("GET", pods))["metadata"]["resourceVersion"]

    async def follow() -> None:
        async with aclosing(api.watch(pods, version)) as changes:
            async for kind, pod in changes:
                if stand_in is not None and kind != "DELETED":
                    stand_in.saw(pod)
                seen.saw(kind, pod)

    task = group.create_task(follow())
    try:
        yield
    finally:
        task.cancel()


async def _each(work: Callable[[str], Any], names: Sequence[str]) -> None:
    """Do the work for each name, `CREATORS` of them at a time."""
    left = iter(names)

    async def some() -> None:
        for name in left:
            await work(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(CREATORS):
            group.create_task(some())


async def _until(event: asyncio.Event, otherwise: Callable[[], BenchmarkFailed]) -> None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await event.wait()
    except TimeoutError:
        raise otherwise() from None


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of sorted values does not exceed (nearest rank)."""
    return values[max(0, min(len(values) - 1, round(share * len(values)) - 1))]


async def rounds(
    cluster: Cluster,
    load: Load,
    count: int,
    progress: Progress,
    node: Process,
    while_running: Meanwhile | None = None,
) -> list[dict[str, Figures]]:
    """Bursts of node and floor by turns; who begins alternates: `[{"node": ..., "floor": ...}, ...]`."""
    results = []
    for number in range(count):
        figures: dict[str, Figures] = {}
        for who in ("floor", "node") if number % 2 == 0 else ("node", "floor"):
            with progress.step(f"round {number + 1} of {count}, {who}"):
                if who == "node":
                    figures[who] = await burst(cluster, load, progress, node, while_running)
                else:
                    figures[who] = await burst(cluster, load, progress)
            progress.result(figures[who])
        results.append(figures)
    return results
