"""`ProcessProvider`: the methods that the node loop calls, each a few lines over `PodLife`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import ClassVar

import attrs

import wasmlet
from wasmlet import Change, Channel, Clock, Streams, SystemClock
from wasmlet_processes import manifest
from wasmlet_processes.pod import PodLife, ProcessServices
from wasmlet_processes.ports import forward

MARK = "WASMLET_PROCESSES"
"""A variable of every process, whose value says which node started it."""


@attrs.frozen
class ProcessConfig:
    """Each field is a flag, a variable and a key of the TOML file: `--max-log-bytes`, `WASMLET_MAX_LOG_BYTES`, ..."""

    max_log_bytes: int = wasmlet.option(10 * 1024 * 1024, help="Bytes of a container's log before it is rotated.")


class ProcessProvider(wasmlet.Provider[ProcessConfig]):
    """Runs each container as a process with the node's own rights, files and network.

    The processes are children of the node's process, so they cannot outlive it: `stop` ends them, and `start` ends
    what a node that was killed has left behind.
    """

    name: ClassVar[str] = "processes"
    config: ProcessConfig

    def __init__(self, config: ProcessConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(config)
        self._clock = clock or SystemClock()
        self._pods: dict[str, PodLife] = {}
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._services: ProcessServices | None = None

    # --- start and stop

    async def start(self, context: wasmlet.NodeContext) -> None:
        directory = context.state_dir / "processes"
        clearing = asyncio.ensure_future(asyncio.to_thread(_clear, directory))
        try:
            await asyncio.shield(clearing)
        except asyncio.CancelledError:
            await asyncio.wait([clearing])  # a thread cannot be cancelled, and must not be at work in the next start
            raise
        self._services = ProcessServices(
            directory, (MARK, str(directory)), self.config.max_log_bytes, self._clock, self._changes.put_nowait
        )

    async def stop(self) -> None:
        """End every process; nobody would find them again."""
        async with asyncio.TaskGroup() as group:
            for life in self._pods.values():
                group.create_task(life.end(0))
        self._pods.clear()

    # --- pods

    async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        if self._services is None:
            raise wasmlet.WasmletError("the provider is not started")
        if pod.uid not in self._pods:  # no await up to here and below: a cancelled call has done all or nothing
            manifest.check(pod)
            self._pods[pod.uid] = PodLife(self._services, pod, inputs)

    async def update_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        self._life(pod.key).update(pod, inputs)

    async def delete_pod(self, key: wasmlet.PodKey, grace_seconds: float) -> wasmlet.PodStatus | None:
        life = self._life(key)
        await life.end(grace_seconds)
        await asyncio.to_thread(shutil.rmtree, life.directory, ignore_errors=True)
        self._pods.pop(key.uid, None)
        return life.status()

    async def pod_status(self, key: wasmlet.PodKey) -> wasmlet.PodStatus:
        return self._life(key).status()

    async def list_pods(self) -> Sequence[wasmlet.PodRecord]:
        return [wasmlet.PodRecord(life.key, life.status()) for life in self._pods.values()]

    async def changes(self) -> AsyncGenerator[Change, None]:
        """What the pods have put into the queue, which goes on filling while nobody reads."""
        while True:
            yield await self._changes.get()

    # --- what kubectl asks for

    async def logs(
        self, key: wasmlet.PodKey, container: str, options: wasmlet.LogOptions
    ) -> AsyncGenerator[bytes, None]:
        log = self._life(key).container(container).log(previous=options.previous)
        async with contextlib.aclosing(log.read(options)) as pieces:
            async for piece in pieces:
                yield piece

    async def exec(self, key: wasmlet.PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        return await self._life(key).container(container).exec(command, streams)

    async def attach(self, key: wasmlet.PodKey, container: str, streams: Streams) -> None:
        await self._life(key).container(container).attach(streams)

    async def port_forward(self, key: wasmlet.PodKey, port: int, channel: Channel) -> None:
        await forward(self._life(key).sessions(), port, channel)

    # --- the node

    async def node_status(self) -> wasmlet.NodeStatus:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return wasmlet.NodeStatus(capacity={"cpu": str(os.cpu_count() or 1), "memory": str(memory)})

    def _life(self, key: wasmlet.PodKey) -> PodLife:
        try:
            return self._pods[key.uid]
        except KeyError:
            raise wasmlet.NotFound(f"pod {key} (uid {key.uid}) is not here") from None


def _clear(directory: Path) -> None:
    """End the processes of a node that used this directory before, and remove what it kept; blocks."""
    if not Path("/proc/self/environ").exists():
        raise wasmlet.ConfigError("expected Linux with /proc, by which processes of an earlier node are found")
    mark = f"{MARK}={directory}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Processes come and go meanwhile, and others' are not ours to read.
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700, parents=True)
