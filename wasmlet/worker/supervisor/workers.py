"""The shim's side of dense workers, and of the containers in them.

A worker is a process that a zygote forks. It runs the containers of one group (a namespace), each on a thread
(`dense`). Such a container has a record, a log and streams like any other (`containers`), but begins and ends in
another way. A single thread cannot be killed. So if a container is still there some time after it was killed, the
whole worker is killed, with all other containers in it.

The directories that a worker may open are fixed before it has a container (`confine`): those that contain pods' files,
and others that its first container needs. A container that needs more gets another worker (`may_open`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .. import wire
from ..fields import Resources
from ..log import log_problem
from ..loop import Loop, Timer
from .children import Child
from .containers import Container, Settings
from .groups import Group, shares_of
from .processes import Hooks, Process, number_of, text_of
from .records import Record
from .stages import Event, Stage

MOST_CONTAINERS = 1000
"""The most containers of one worker. More would get close to the system's limits for threads and mappings."""

IDLE_SECONDS = 30.0
"""After how long a worker that has no container ends."""

KILL_SECONDS = 10.0
"""How long a container that was killed may take to end before its worker is killed, with all that is in it."""

MESSAGES_PER_TURN = 64

_IN_MEMORY = "/memfd:"
_NOWHERE = (-1, -1)

SHARES_SECONDS = 0.05
"""How long a worker waits before it adapts its CPU weight to its containers: many come at once."""


class Directory(NamedTuple):
    """One that a worker may open, or a container has to.

    Attributes:
        written: whether files in it may be written.
        identity: its device and inode.
    """

    written: bool
    identity: tuple[int, int]

    @classmethod
    def named(cls, path: str) -> Directory:
        """One to write, as it is now."""
        return cls(True, _identity(path))


class DenseContainer(Container):
    """Runs once, on a thread of a worker. Takes over the descriptors: spec, compiled module, mounts."""

    def __init__(
        self,
        loop: Loop,
        record: Record,
        descriptors: Sequence[int],
        hooks: Hooks,
        settings: Settings,
        compress: Any = lambda name: None,
    ) -> None:
        if settings.stdin or settings.tty:
            raise wire.WireError("a dense container has neither stdin nor a terminal")
        super().__init__(loop, record, descriptors, hooks, settings, compress)
        self.worker: Worker | None = None

    def prepare(self) -> None:
        self._child_streams = stdout, stderr = self._make_outputs()
        if self.network is not None:
            try:
                self._child_streams = (stdout, stderr, self.network.connect())
            except OSError:
                self._close_child_streams()
                raise
        self._advance(Event.PREPARE)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the worker needs, while `waits`: stdout, stderr, spec, compiled module, mounts, control socket."""
        return (*self._child_streams[:2], *self._inherited, *self._child_streams[2:])

    @property
    def directories(self) -> dict[str, Directory]:
        """Where its files are: its mounts, and where its compiled module is."""
        module, *mounts = ((os.readlink(f"/proc/self/fd/{number}"), number) for number in self._inherited[1:])
        found = {path: Directory(True, _identity(number)) for path, number in mounts}
        if not module[0].startswith(_IN_MEMORY):
            path = os.path.dirname(module[0])
            found[path] = Directory(False, _identity(path))
        return found

    @property
    def cpu_shares(self) -> int:
        """Its CPU weight, which is added to that of its worker."""
        return shares_of(self._resources)

    def resize(self, resources: Resources) -> None:
        super().resize(resources)
        if self.worker is not None:
            self.worker.set_cpu_shares_soon()

    def heard(self, message: dict[str, Any]) -> None:
        """The worker has sent this message about it."""
        record = self.record
        if self.worker is None or self.stage not in (Stage.STARTING, Stage.RUNNING):
            return
        if "started" in message and self.stage is Stage.STARTING:
            record.pid = self.worker.record.pid
            record.thread, record.memory = number_of(message["started"]), number_of(message.get("memory"))
            self._begun()
        elif "failed" in message and self.stage is Stage.STARTING:
            self.fail(*self._failed(message))
        elif "failed" in message:  # the engine itself has failed with a guest that had begun
            self._leave_worker()
            self._failure = self._failed(message)
            self.reaped(wire.START_ERROR_CODE << 8)
        elif "over" in message:
            record.message = text_of(message.get("message", ""))
            self._leave_worker()
            self.reaped(self._wait_status(message))

    def worker_ended(self, status: int | None) -> None:
        """The worker has ended, with this wait status; None where there was no process of it."""
        self.worker = None
        if self.stage is Stage.RUNNING:
            self.record.message = "the worker process that it shared with other containers ended"
            self.reaped(status if status is not None and os.WIFSIGNALED(status) else int(signal.SIGKILL))
            return
        self._advance(Event.START_OVER)
        self._hang_up_all()  # the streams were on their way to the worker; for another worker it gets new ones
        if self.record.requested:
            self._give_up()
        else:
            self.zygote_died()

    def _wait_status(self, message: dict[str, Any]) -> int:
        """The wait status of a process that ended in the same way."""
        if message.get("interrupted"):
            return int(signal.SIGKILL if self.record.requested == "kill" else signal.SIGTERM)
        return (number_of(message.get("code")) & 0xFF) << 8

    def _leave_worker(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.container_ended(self)

    def _finish_if_complete(self) -> None:
        if self.worker is None:  # a worker that lives says more of the end
            super()._finish_if_complete()

    def _interrupt_process(self) -> None:
        if self.worker is not None:
            self.worker.interrupt(self)

    def _kill_process(self) -> None:
        self._interrupt_process()
        self._loop.later(KILL_SECONDS, self._kill_worker)

    def _give_up(self) -> None:
        self._leave_worker()
        super()._give_up()

    def _kill_worker(self) -> None:
        if self.worker is not None:
            log_problem(f"container {self.record.id} does not end: its worker {self.worker.record.pid} is killed")
            self.worker.stop(0)


class Worker(Process):
    """A process for many containers. Its control group has the sum of their CPU weights, and none of their limits.

    Args:
        directories: all that its containers may open, by absolute path, with what is below.
        ended: called when there is no process any more.
    """

    messages_per_turn = MESSAGES_PER_TURN

    def __init__(
        self, loop: Loop, name: str, directories: Mapping[str, Directory], ended: Callable[[Worker], None]
    ) -> None:
        hooks = Hooks(lambda _: None, lambda _: "the engine's process died before the worker was there")
        super().__init__(loop, Record(name, {}, "", created=time.time()), (), hooks)
        self._ended = ended
        self._directories = dict(directories)
        self._containers: dict[str, DenseContainer] = {}
        self._queue: deque[tuple[bytes, DenseContainer | None]] = deque()
        self._idle: Timer | None = None
        self._shares_timer: Timer | None = None
        self._retired = False

    @property
    def has_room(self) -> bool:
        """Whether it takes another container."""
        ends = self._retired or self.stage.over or self.record.requested
        return not ends and len(self._containers) < MOST_CONTAINERS

    def may_open(self, directories: Mapping[str, Directory]) -> bool:
        """Whether it may open these directories. If one was replaced by another of the same name, it may not."""
        return all(
            any(
                (path == own or path.startswith(f"{own}/"))
                and known.written >= wanted.written
                and _identity(own) == known.identity != _NOWHERE
                for own, known in self._directories.items()
            )
            for path, wanted in directories.items()
        )

    def run(self, container: DenseContainer) -> None:
        """Have it run this container, whose streams have been made."""
        if self.stage is Stage.ENDED:
            container.fail(self.record.message or "the worker has ended")
            return
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._containers[container.record.id] = container
        container.worker = self
        self.set_cpu_shares_soon()
        sockets = {} if container.network is None else {"sockets": True}
        self._queue.append((wire.pack({"run": container.record.id, **sockets}), container))
        self._flush()

    def interrupt(self, container: DenseContainer) -> None:
        """Have this container interrupted."""
        self._queue.append((wire.pack({"stop": container.record.id}), None))
        self._flush()

    def container_ended(self, container: DenseContainer) -> None:
        """This container has left it."""
        self._containers.pop(container.record.id, None)
        self.set_cpu_shares_soon()
        if not self._containers and self._idle is None:
            self._idle = self._loop.later(IDLE_SECONDS, self.retire)

    def set_cpu_shares_soon(self) -> None:
        """A container has come, has gone, or has another weight."""
        if self._shares_timer is None:
            self._shares_timer = self._loop.later(SHARES_SECONDS, self._set_cpu_shares)

    def _set_cpu_shares(self) -> None:
        self._shares_timer = None
        if self.group is not None and not self.stage.over:
            with contextlib.suppress(OSError):  # its weight stays as it was
                self.group.set_cpu_shares(sum(container.cpu_shares for container in self._containers.values()))

    def retire(self) -> None:
        """Take no more containers, and end."""
        self._retired = True
        if self._child is not None:
            self._child.close()
            self._child = None

    def _make_streams(self) -> tuple[int, int, int]:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        return nothing, os.dup(nothing), os.dup(nothing)

    def _instructions(self, group: Group | None) -> tuple[wire.Message, tuple[int, ...]]:
        self.group = group
        if group is not None:
            group.set_task_limit(MOST_CONTAINERS)
            self.set_cpu_shares_soon()
        opened: dict[bool, list[int]] = {True: [], False: []}
        for path, directory in self._directories.items():
            with contextlib.suppress(OSError):  # it is gone, with the files of the container that wanted it
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
                # A guest may have put a link in its place a moment ago, so we look at what was opened.
                if _identity(descriptor) == directory.identity:
                    opened[directory.written].append(descriptor)
                else:
                    os.close(descriptor)
        return {"dense": True, "readable": len(opened[False])}, (*opened[True], *opened[False])

    def run_in(self, child: Child) -> bool:
        given = super().run_in(child)
        self._flush()
        return given

    def writable(self) -> None:
        self._flush()

    def heard(self, message: dict[str, Any]) -> None:
        container = self._containers.get(str(message.get("id")))
        if container is not None:
            container.heard(message)

    def _flush(self) -> None:
        while self._queue and self._child is not None:
            data, container = self._queue[0]
            if container is None or container.waits:  # one that does not wait was stopped while it was queued
                try:
                    self._child.give(data, container.descriptors if container is not None else ())
                except BlockingIOError:
                    break
                except OSError as error:
                    log_problem(f"worker {self.record.pid} cannot be told anything: {error}")
                    self.stop(0)
                    return
                if container is not None:
                    container.handed_over()
            self._queue.popleft()
        if self._child is not None:
            self._child.wait_for_room(bool(self._queue))

    def _conclude(self) -> None:
        for timer in (self._idle, self._shares_timer):
            if timer is not None:
                timer.cancel()
        containers, self._containers = self._containers, {}
        for container in containers.values():
            container.worker_ended(self._status)
        self._ended(self)


def _identity(place: str | int) -> tuple[int, int]:
    """What tells a directory, named or open, from another one of its name; of one that is not there, no other's."""
    try:
        found = os.stat(place)
    except OSError:
        return _NOWHERE
    return found.st_dev, found.st_ino
