"""The order in which a pod's containers run: init containers and sidecars one by one, then the main containers.

A sidecar (KEP-753) delays what comes after it until it has started, then runs beside it, and ends after it. Main
containers are started in the manifest's order, each after the first try to start the one before. Ephemeral containers
are started when they are added. When no main container is to run again, what still runs is ended.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from wasmlet.concurrency import Event
from wasmlet.model.pod import Pod
from wasmlet.model.status import Terminated
from wasmlet.runtime.shim.instances import Kind


class Ordered(Protocol):
    """One container, as what comes before and after it sees it.

    Attributes:
        tried: set once its first start has been tried, well or not.
        up: set once it has started, so that what comes after a sidecar may begin.
    """

    kind: Kind
    tried: Event
    up: Event

    @property
    def begun(self) -> bool:
        """Whether there is or was an instance of it."""
        ...

    @property
    def done(self) -> bool:
        """Whether it has ended well, as an init container has to."""
        ...


class Order:
    """The containers of one pod.

    Args:
        manifest: the pod as it was accepted last.
        containers: by name; those of the manifest are there before `run`, and those that `grow` tells of.
        keep: keeps the container of this name running under its policy; returns how it ended, once it is not to run
            again.
    """

    def __init__(
        self,
        manifest: Callable[[], Pod],
        containers: Mapping[str, Ordered],
        keep: Callable[[str], Awaitable[Terminated]],
    ) -> None:
        self._manifest = manifest
        self._containers = containers
        self._keep = keep
        self._group: asyncio.TaskGroup | None = None
        self._beside: list[asyncio.Task[None]] = []
        """Sidecars and ephemeral containers: they end when no main container is to run again."""
        self._ephemeral: set[str] = set()

    async def run(self) -> None:
        """Run every container as the manifest says; return when none is to run again. Sidecars may still run."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group, self._beside, self._ephemeral = group, [], set()
                try:
                    self.grow()
                    if await self._initialize():
                        await self._run_mains(group)
                finally:
                    self._group = None
                for task in self._beside:
                    task.cancel()
        except BaseException as error:
            # The group's frame refers to the error that it passes on, and the error to the frame: with both, all that
            # the pod had would stay until the garbage collector finds it.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            self._beside.clear()  # the tasks, and with them what has cancelled them

    def grow(self) -> None:
        """Run the ephemeral containers that have been added; does nothing unless the pod's containers are run."""
        for spec in self._manifest().ephemeral_containers if self._group is not None else ():
            if spec.name not in self._ephemeral:
                self._ephemeral.add(spec.name)
                self._keep_beside(spec.name)

    def _keep_beside(self, name: str) -> None:
        assert self._group is not None
        self._beside.append(self._group.create_task(self._run_one(name)))

    async def _run_mains(self, group: asyncio.TaskGroup) -> None:
        """Run the main containers; return when none is to run again. The last one needs no task of its own."""
        *others, last = self._manifest().containers
        mains = []
        for spec in others:
            mains.append(group.create_task(self._run_one(spec.name)))
            await self._containers[spec.name].tried.wait()
        await self._run_one(last.name)
        if mains:
            await asyncio.wait(mains)

    async def _initialize(self) -> bool:
        """Run init containers and start sidecars; False where an init container has failed for good."""
        # Main containers run only after every init container is done, so where one has run the init containers are.
        begun = any(self._containers[spec.name].begun for spec in self._manifest().containers)
        for spec in self._manifest().init_containers:
            container = self._containers[spec.name]
            if container.kind == "sidecar":
                self._keep_beside(spec.name)
                if not begun:
                    await container.up.wait()
            elif not begun and not container.done:
                ended = await self._keep(spec.name)
                if ended.exit_code != 0:
                    return False
        return True

    async def _run_one(self, name: str) -> None:
        await self._keep(name)
