"""`PodsAsProcesses`: the calls of the node loop, and the life of a pod."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import wasmlet
from tests.shared.pods_as_processes import manifest
from tests.shared.pods_as_processes.container import ContainerRun, Sandbox, Tell
from tests.shared.pods_as_processes.images import Image
from tests.shared.pods_as_processes.volumes import PodFiles
from wasmlet import Change, Clock, PodKey, PodStatus, SystemClock
from wasmlet.runtime.probe_counts import ProbeCounts


class PodsAsProcesses(wasmlet.Provider):
    """Runs pods as processes; see the package.

    Args:
        images: by their names in manifests.
        api_server: host and port where pods reach the API server.
    """

    name: ClassVar[str] = "pods-as-processes"

    def __init__(self, images: Mapping[str, Image], api_server: tuple[str, int], *, clock: Clock | None = None) -> None:
        super().__init__()
        self._images = images
        self._api_server = api_server
        self._clock = clock or SystemClock()
        self._counts = ProbeCounts()
        self._pods: dict[str, PodRun] = {}
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._directory = Path()

    async def start(self, context: wasmlet.NodeContext) -> None:
        if os.geteuid() != 0:
            raise wasmlet.ConfigError("pods as processes need root, found an ordinary user")
        self._directory = context.state_dir / "pods"
        await asyncio.to_thread(self._directory.mkdir, exist_ok=True)

    async def stop(self) -> None:
        """End every process; nobody would find them again."""
        async with asyncio.TaskGroup() as group:
            for run in self._pods.values():
                group.create_task(run.end(0))
        for run in self._pods.values():
            await asyncio.to_thread(run.remove)
        self._pods.clear()

    async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        if pod.uid not in self._pods:  # no await up to here and below: a cancelled call has done all or nothing
            manifest.check(pod, self._images)
            directory = self._directory / pod.uid
            sandbox = Sandbox(
                pod, inputs, free_address(pod), directory, PodFiles(directory / "files"), self._clock, self._counts,
                self._api_server,
            )  # fmt: skip
            self._pods[pod.uid] = PodRun(sandbox, self._images, self._changes)

    async def update_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        await self._run(pod.key).update(pod, inputs)

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        run = self._run(key)
        await run.end(grace_seconds)
        await asyncio.to_thread(run.remove)
        self._pods.pop(key.uid, None)
        self._counts.forget(key)
        return run.status()

    async def pod_status(self, key: PodKey) -> PodStatus:
        return self._run(key).status()

    async def list_pods(self) -> Sequence[wasmlet.PodRecord]:
        return [wasmlet.PodRecord(run.key, run.status()) for run in self._pods.values()]

    async def changes(self) -> AsyncGenerator[Change, None]:
        while True:
            yield await self._changes.get()

    async def logs(self, key: PodKey, container: str, options: wasmlet.LogOptions) -> AsyncGenerator[bytes, None]:
        log = self._run(key).container(container).log(previous=options.previous)
        async with contextlib.aclosing(log.read(options)) as pieces:
            async for piece in pieces:
                yield piece

    async def node_status(self) -> wasmlet.NodeStatus:
        return wasmlet.NodeStatus(capacity={"cpu": "16", "memory": "64Gi"})

    def _run(self, key: PodKey) -> PodRun:
        try:
            return self._pods[key.uid]
        except KeyError:
            raise wasmlet.NotFound(f"pod {key} is not here") from None


class PodRun:
    """One pod UID, from its creation until `end` has returned."""

    def __init__(self, sandbox: Sandbox, images: Mapping[str, Image], changes: asyncio.Queue[Change]) -> None:
        self._sandbox = sandbox
        self._changes = changes
        self._started = sandbox.clock.now()
        self._containers = {
            spec.name: ContainerRun(sandbox, spec, images[spec.image], self._publish, self._teller(spec.name))
            for spec in sandbox.pod.containers
        }
        self._task = asyncio.create_task(self._run(), name=f"pod {self.key}")
        self._publish()

    @property
    def key(self) -> PodKey:
        return self._sandbox.pod.key

    def status(self) -> PodStatus:
        statuses = tuple(container.status for container in self._containers.values())
        return PodStatus(statuses, pod_ips=(self._sandbox.ip,), start_time=self._started)

    def container(self, name: str) -> ContainerRun:
        if name not in self._containers:
            raise wasmlet.NotFound(f"container {name} is not in pod {self.key}")
        return self._containers[name]

    async def update(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        """Processes go on; their volumes have what is new."""
        sandbox = self._sandbox
        sandbox.pod, sandbox.inputs = pod, inputs
        sandbox.changed.set()
        sandbox.changed = asyncio.Event()
        if any(isinstance(container.status.state, wasmlet.Running) for container in self._containers.values()):
            await asyncio.to_thread(sandbox.files.write, pod, inputs, sandbox.ip, sandbox.clock.now())

    async def end(self, grace_seconds: float) -> None:
        self._sandbox.ending.set()
        async with asyncio.TaskGroup() as group:
            for container in self._containers.values():
                group.create_task(container.stop(grace_seconds))
        await asyncio.wait([self._task])

    def remove(self) -> None:
        """Remove what it has on disk; blocks."""
        self._sandbox.files.remove()
        shutil.rmtree(self._sandbox.directory, ignore_errors=True)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for container in self._containers.values():
                group.create_task(container.run())

    def _publish(self) -> None:
        self._changes.put_nowait(wasmlet.StatusChanged(self.key, self.status()))

    def _teller(self, container: str) -> Tell:
        def tell(kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
            field = f"spec.containers{{{container}}}"
            self._changes.put_nowait(wasmlet.PodEvent(self.key, reason, message, kind, field))

        return tell


def free_address(pod: wasmlet.Pod) -> str:
    """An address of loopback at which nobody has the pod's ports."""
    ports = [int(port["containerPort"]) for one in pod.containers for port in one.raw.get("ports") or ()]
    while True:
        address = f"127.{random.randrange(64, 128)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        with contextlib.ExitStack() as sockets, contextlib.suppress(OSError):
            for port in ports:
                sockets.enter_context(socket.create_server((address, port)))
            return address
