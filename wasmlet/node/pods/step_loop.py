"""Decides when the next step for a pod is taken; `pod_task` decides which step that is, and takes it.

A step is taken at once when something has changed (`wake`). If it fails, it is taken again after a pause that grows; a
change ends the pause. Between steps the pod's status may be asked for (`ask`). Only one of these happens at a time.

While nothing is to be done for a pod, there is no asyncio task for it: a node may have 1000 pods that only run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from wasmlet.concurrency import Event
from wasmlet.kube.recovery import Pauses


class Work(Protocol):
    """What the loop calls, one method at a time: a `PodTask`."""

    async def step(self) -> bool:
        """Take the next step; True when there will never be another one."""
        ...

    async def look(self) -> bool:
        """Ask for the pod's status; False where it has to be asked again."""
        ...

    def step_failed(self, error: Exception) -> None:
        """The step raised this, and will be repeated."""
        ...

    def over(self) -> None:
        """There will never be another step."""
        ...


class StepLoop:
    """The loop of one pod. Its methods but `until_idle` return at once; called on the event loop.

    It is handed its work with each call, and does not keep it while there is nothing to do: a pod's task, which has the
    loop, would be in a circle of references, and its memory would stay until the garbage collector finds it.

    - `_working` is true if and only if a task of the group does the work, or nothing will ever be due again.
    - `_changed` is true if and only if a step is to be taken: it was asked for, or the last one has failed and its
      pause is over.
    - `_asked` is true if and only if the status is to be asked for.
    - `looking` is true if and only if `Work.look` is under way.

    Args:
        group: owns the task.
        pauses: makes the pauses between the tries of a step.
    """

    __slots__ = (
        "_asked",
        "_changed",
        "_group",
        "_idle",
        "_pauses",
        "_stirred",
        "_stopped",
        "_working",
        "looking",
    )

    def __init__(self, group: asyncio.TaskGroup, pauses: Callable[[], Pauses]) -> None:
        self._group = group
        self._pauses = pauses
        self._working = False
        self._changed = False
        self._asked = False
        self._stopped = False
        self._stirred = Event()
        self._idle: asyncio.Event | None = None
        self.looking = False

    @property
    def working(self) -> bool:
        """Whether something is being done, or waits for its next try."""
        return self._working

    def wake(self, work: Work) -> None:
        """Have a step taken now, or after the one that is under way."""
        self._changed = True
        self._begin(work)

    def ask(self, work: Work) -> None:
        """Have the status asked for, as soon as no step is under way; nothing where it is being asked for already."""
        if not self.looking:
            self._asked = True
            self._begin(work)

    def stop(self) -> None:
        """Begin nothing new; what is under way goes on."""
        self._stopped = True

    async def until_idle(self) -> None:
        """Return when nothing is due any more. Only one caller waits at a time."""
        self._idle = Event()
        await self._idle.wait()

    def _begin(self, work: Work) -> None:
        self._stirred.set()
        if not self._working and not self._stopped:
            self._working = True
            self._group.create_task(self._run(work))

    async def _run(self, work: Work) -> None:
        pauses = self._pauses()
        while self._changed or self._asked:
            if not self._changed:
                await self._look(work)
                continue
            self._changed = False
            try:
                if await work.step():
                    work.over()
                    break
            except Exception as error:  # whatever a provider raises must not end the node
                work.step_failed(error)
                await self._pause(pauses, work)
                self._changed = True
            else:
                pauses.start_over()
        else:
            self._working = False
        if self._idle is not None:
            self._idle.set()

    async def _pause(self, pauses: Pauses, work: Work) -> None:
        """Wait before the next try.

        A change of the pod ends the pause early, and so does the end of an outage of the API server. A question for the
        pod's status is asked meanwhile, and does not end it.
        """
        over = asyncio.ensure_future(pauses.wait())
        try:
            while not (self._changed or over.done()):
                if self._asked:
                    await self._look(work)
                    continue
                self._stirred.clear()
                stirred = asyncio.ensure_future(self._stirred.wait())
                await asyncio.wait([over, stirred], return_when=asyncio.FIRST_COMPLETED)
                stirred.cancel()
        finally:
            over.cancel()

    async def _look(self, work: Work) -> None:
        self._asked = False
        self.looking = True
        try:
            self._asked = not await work.look()
        finally:
            self.looking = False
