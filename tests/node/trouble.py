"""Trouble for the node loop: a clock that runs fast, so that pauses are short, and a provider that fails when told to.

The tests in `faults` use it in small scenes, `churn` all of it at random.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

import wasmlet
from tests.node.cluster import NODE, Cluster
from wasmlet.kube import Client, load_identity
from wasmlet.provider import Change, PodRecord, StatusChanged
from wasmlet.testing import ControlPlane
from wasmlet.testing.reference import ReferenceProvider

KUBELET = f"system:node:{NODE}"
"""Whose requests fail where only the node is to be in trouble."""


class FastClock:
    """The machine's clock, some times as fast: all pauses stay in proportion, and none takes long."""

    def __init__(self, speed: float = 20.0) -> None:
        self._speed = speed
        self._start, self._begun = datetime.now(UTC), time.monotonic()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return (time.monotonic() - self._begun) * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)


async def no_trouble(call: str, after: bool) -> None:
    """What happens in a call of a provider that is well: nothing."""


class Troubled(ReferenceProvider):
    """A provider whose calls do what `trouble` does: raise, wait or neither, before or after they have done their work.

    `trouble` is awaited with the method's name and whether the work is done. `break_changes` ends the stream of
    changes with an error, and what changes until it is opened again is not told.
    """

    def __init__(self, trouble: Callable[[str, bool], Awaitable[None]] = no_trouble) -> None:
        super().__init__()
        self.trouble = trouble
        self.calls: list[str] = []
        self.overlaps: list[str] = []
        """Calls for a pod that were made while another one for it was under way, which the node loop never does."""
        self._under_way: dict[str, str] = {}
        self._streams: set[asyncio.Queue[Change | None]] = set()

    async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        with self._alone("create_pod", pod.key):
            await self.trouble("create_pod", False)
            await super().create_pod(pod, inputs)
            await self.trouble("create_pod", True)

    async def update_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        with self._alone("update_pod", pod.key):
            await self.trouble("update_pod", False)
            await super().update_pod(pod, inputs)
            await self.trouble("update_pod", True)

    async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
        with self._alone("delete_pod", key):
            await self.trouble("delete_pod", False)
            status = await super().delete_pod(key, grace_seconds)
            await self.trouble("delete_pod", True)
        return status

    async def pod_status(self, key: wasmlet.PodKey) -> wasmlet.PodStatus:
        with self._alone("pod_status", key):
            await self.trouble("pod_status", False)
            status = await super().pod_status(key)
            await self.trouble("pod_status", True)
        return status

    async def list_pods(self) -> Sequence[PodRecord]:
        self._note("list_pods")
        await self.trouble("list_pods", False)
        return await super().list_pods()

    async def changes(self) -> AsyncGenerator[Change, None]:
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._streams.add(queue)
        try:
            self._note("changes")
            await self.trouble("changes", False)
            while (change := await queue.get()) is not None:
                yield change
            raise ConnectionResetError("the stream of changes broke")
        finally:
            self._streams.discard(queue)

    def break_changes(self) -> None:
        for queue in self._streams:
            queue.put_nowait(None)
        self._streams.clear()

    def tell(self, change: Change) -> None:
        """Report something, true or not."""
        for queue in self._streams:
            queue.put_nowait(change)

    def _set(self, held: Any) -> None:
        self.pods[held.key.uid] = held
        held.tell()
        self._touched.set()
        self.tell(StatusChanged(held.key, held.status))

    @contextmanager
    def _alone(self, call: str, key: wasmlet.PodKey) -> Iterator[None]:
        self._note(call)
        if (other := self._under_way.get(key.uid)) is not None:
            self.overlaps.append(f"{call} of {key} during {other}")
        self._under_way[key.uid] = call
        try:
            yield
        finally:
            self._under_way.pop(key.uid, None)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._touched.set()

    async def called(self, call: str, times: int = 1) -> None:
        """Wait until a method was called so many times from the beginning."""
        await self.until(lambda: self.calls.count(call) >= times)


@contextmanager
def plain_tracebacks() -> Iterator[None]:
    """Failures are logged in a millisecond; with every local variable of every frame it takes far longer."""
    before = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*before[:-1], renderer])
    try:
        yield
    finally:
        structlog.configure(processors=before)


@asynccontextmanager
async def troubled_cluster(directory: Path, *, seed: int = 1, **settings: Any) -> AsyncIterator[Cluster]:
    """A cluster of the embedded control plane, whose faults the tests are about; never a real one."""
    async with AsyncExitStack() as stack:
        stack.enter_context(plain_tracebacks())
        plane = await stack.enter_async_context(ControlPlane(seed=seed, node_monitor_grace=None, **settings))
        admin = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig)))
        yield Cluster(plane, admin, directory)


@asynccontextmanager
async def fast_node(cluster: Cluster, provider: wasmlet.Provider, speed: float = 20.0) -> AsyncIterator[wasmlet.Node]:
    """A node whose clock runs fast."""
    async with wasmlet.Node(provider, cluster.config(), clock=FastClock(speed)) as node:
        yield node
