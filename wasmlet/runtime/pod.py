"""A pod's life: its init containers one after another, then its containers side by side, until it is deleted.

One task per pod drives it; what the shim reports arrives through `saw`. `container` keeps each container running.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs
import structlog

from wasmlet.clock import Clock
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import ContainerStatus, PodStatus, Waiting
from wasmlet.provider import PodEvent
from wasmlet.runtime import log_files
from wasmlet.runtime.changes import Changes
from wasmlet.runtime.compile import Compiler
from wasmlet.runtime.container import ContainerLife
from wasmlet.runtime.images import Images
from wasmlet.runtime.instances import Labels
from wasmlet.runtime.shim_client import ShimClient
from wasmlet.runtime.worker import ContainerRecord
from wasmlet.worker import wire

log = structlog.get_logger(__name__)

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@attrs.frozen
class Surroundings:
    """What all pods of a provider share.

    Attributes:
        zygote: the engine's, as `wasmlet.worker.wire` has it.
        log_limits: of each container's log, as `wasmlet.worker.wire` has them for `run`.
    """

    client: ShimClient
    images: Images
    compiler: Compiler
    changes: Changes
    clock: Clock
    state_dir: Path
    zygote: Mapping[str, str]
    log_limits: Mapping[str, int]
    spawn: Callable[[PodLife], asyncio.Task[None]]

    def remove_logs(self, paths: Sequence[str]) -> None:
        """Remove log files; blocks."""
        for path in paths:
            log_files.remove(self.state_dir / path)


class PodLife:
    """One pod UID, from the first `accept` (or what the shim had of it before) to the end of `end`."""

    def __init__(self, around: Surroundings, key: PodKey) -> None:
        self.around = around
        self.key = key
        self.pod: Pod | None = None
        self.inputs = Inputs()
        self._containers: dict[str, ContainerLife] = {}
        self._records: dict[str, ContainerRecord] = {}
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self._published: PodStatus | None = None
        self.log_directory = f"logs/{_file_name(key.uid)}"

    @property
    def spec(self) -> Pod:
        """The pod as it was accepted last."""
        assert self.pod is not None
        return self.pod

    def accept(self, pod: Pod, inputs: Inputs) -> None:
        """Run this pod, or go on with it; another time: it has changed."""
        self.pod, self.inputs = pod, inputs
        waiting = "PodInitializing" if pod.init_containers else "ContainerCreating"
        for container in pod.init_containers:
            if container.name not in self._containers:
                self._containers[container.name] = ContainerLife(self, container.name, "init", waiting)
        for container in pod.containers:
            if container.name not in self._containers:
                self._containers[container.name] = ContainerLife(self, container.name, "main", waiting)
        for life in self._containers.values():
            life.updated.set()
        if self._task is None and not self._ending:
            self._task = self.around.spawn(self)
        self.publish()

    def saw(self, record: ContainerRecord, labels: Labels) -> None:
        """The shim says this of one of the pod's containers."""
        self._records[record.id] = record
        life = self._containers.get(labels.container)
        if life is None:
            life = self._containers[labels.container] = ContainerLife(
                self, labels.container, labels.kind, "ContainerCreating"
            )
        life.saw(record, labels)
        self.publish()

    async def run(self) -> None:
        """Run every container as the manifest says, to the end. Cancelled when the pod is deleted."""
        pod = self.spec
        mains = [self._containers[c.name] for c in pod.containers]
        if not any(main.record for main in mains):  # they run only after every init container is done
            for container in pod.init_containers:
                init = self._containers[container.name]
                if init.done:
                    continue
                ended = await init.run()
                if ended.exit_code != 0:
                    return
        async with asyncio.TaskGroup() as group:
            for main in mains:
                group.create_task(main.run())

    async def end(self, grace: float) -> PodStatus:
        """End whatever runs, free everything, and return the last status. Goes on where a cancelled call left off."""
        self._ending = True
        client = self.around.client
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await client.ping()  # a container whose start was cancelled under way is known by the time this is answered
        living = [record for record in self._records.values() if not record.ended]
        for record in living:
            labels = Labels.of(record.labels)
            if labels is not None:
                where = "initContainers" if labels.kind == "init" else "containers"
                self.event("Normal", "Killing", f"Stopping container {labels.container}",
                           f"spec.{where}{{{labels.container}}}")  # fmt: skip
            await client.stop(record.id, grace)
        for record in living:
            await client.wait(record.id, wire.ENDED)
        final = self.status()
        await client.forget(list(self._records))
        self._records.clear()
        directory = self.around.state_dir / self.log_directory
        await asyncio.to_thread(shutil.rmtree, directory, True)
        return final

    def status(self) -> PodStatus:
        """The pod's status now."""
        if self.pod is None:
            init = [life.status() for life in self._containers.values() if life.kind == "init"]
            main = [life.status() for life in self._containers.values() if life.kind == "main"]
            return PodStatus(tuple(main), tuple(init))
        return PodStatus(
            tuple(self._containers[c.name].status() for c in self.pod.containers),
            tuple(self._containers[c.name].status() for c in self.pod.init_containers),
            tuple(ContainerStatus(c.name, _NO_EPHEMERAL, image=c.image) for c in self.pod.ephemeral_containers),
        )

    def life(self, container: str) -> ContainerLife | None:
        return self._containers.get(container)

    def publish(self) -> None:
        """Hand the status on, if it is another one now."""
        status = self.status()
        if status != self._published:
            self._published = status
            self.around.changes.status(self.key, status)

    def event(self, type: Literal["Normal", "Warning"], reason: str, message: str, field: str) -> None:  # noqa: A002
        """Tell the pod's owner of something."""
        self.around.changes.event(PodEvent(self.key, reason, message, type, field))


_NO_EPHEMERAL = Waiting("CreateContainerConfigError", "spec.ephemeralContainers: is not supported by this node yet")


def _file_name(uid: str) -> str:
    """The UID as a file name: itself where it is one, else its digest."""
    return uid if _SAFE.fullmatch(uid) else hashlib.sha256(uid.encode(errors="surrogatepass")).hexdigest()
