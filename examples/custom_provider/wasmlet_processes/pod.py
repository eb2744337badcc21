"""A pod's life: its containers side by side, each a process that is started, followed, and started again if need be.

Every `PodLife` owns one task, which ends when all its containers have; `ContainerLife` is one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from wasmlet import (
    Backoff,
    Change,
    Clock,
    Container,
    ContainerStatus,
    Inputs,
    InvalidInput,
    NotFound,
    Pod,
    PodEvent,
    PodKey,
    PodStatus,
    Refused,
    Running,
    StatusChanged,
    Streams,
    Terminated,
    Waiting,
    command_and_args,
    environment,
)
from wasmlet_processes.log import Log
from wasmlet_processes.process import ProcessGroup
from wasmlet_processes.streams import CHUNK, LAST_OUTPUT, connect, exit_code, feed

CANNOT_START = 128
"""Exit code of a container whose program cannot be started, as a kubelet reports it."""
LONG_RUN = 600.0
"""After a run of so many seconds the next pause is the first one again, as with a kubelet."""
ATTACHED_CHUNKS = 64
"""How much output waits for a caller that is attached."""


@attrs.frozen
class ProcessServices:
    """What all pods share.

    Attributes:
        directory: where logs are kept.
        mark: a variable that each process gets, by which it can be found later.
        tell: hands a change to whoever reads the provider's changes.
    """

    directory: Path
    mark: tuple[str, str]
    max_log_bytes: int
    clock: Clock
    tell: Callable[[Change], None]


class PodLife:
    """One pod UID, from its creation until `end` has returned."""

    def __init__(self, services: ProcessServices, pod: Pod, inputs: Inputs) -> None:
        self.services = services
        self.pod = pod
        self.inputs = inputs
        self.changed = asyncio.Event()
        """Set, and replaced, when the pod or its inputs are other ones."""
        self.ending = asyncio.Event()
        """The pod is to end: nothing is started any more."""
        self.directory = services.directory / pod.uid
        self._started = services.clock.now()
        self._containers = [ContainerLife(self, i) for i in range(len(pod.containers))]
        self._task = asyncio.create_task(self._run(), name=f"pod {pod.key}")
        self.publish()

    @property
    def key(self) -> PodKey:
        return self.pod.key

    def update(self, pod: Pod, inputs: Inputs) -> None:
        """A process that runs keeps what it was started with; one that waits for an input may find it now."""
        self.pod, self.inputs = pod, inputs
        self.changed.set()
        self.changed = asyncio.Event()

    def status(self) -> PodStatus:
        return PodStatus(tuple(c.status for c in self._containers), start_time=self._started)

    def publish(self) -> None:
        self.services.tell(StatusChanged(self.key, self.status()))

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str, container: str) -> None:
        self.services.tell(PodEvent(self.key, reason, message, kind, f"spec.containers{{{container}}}"))

    def container(self, name: str) -> ContainerLife:
        """The container of that name.

        Raises:
            NotFound: the pod has none.
        """
        for container in self._containers:
            if container.name == name:
                return container
        raise NotFound(f"container {name} is not in pod {self.key}")

    def sessions(self) -> set[int]:
        """The ids of the operating system's sessions of this pod, one for each container that runs.

        They show which processes of the machine belong to the pod.
        """
        return {session for container in self._containers if (session := container.session) is not None}

    async def end(self, grace_seconds: float) -> None:
        """Return when every process has ended; those that take longer than the grace period are ended by force.

        A cancelled call leaves the pod ending, and the next one goes on from there.
        """
        if not self.ending.is_set():
            self.ending.set()
            for container in self._containers:
                container.stop()
        # wait() leaves the task alone when it is cancelled or out of time, unlike wait_for().
        _, late = await asyncio.wait([self._task], timeout=grace_seconds)
        if late:
            for container in self._containers:
                container.signal(signal.SIGKILL)
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for container in self._containers:
                group.create_task(container.run())


class ContainerLife:
    """One container of a pod. It runs one process at a time."""

    def __init__(self, life: PodLife, index: int) -> None:
        self._life = life
        self._index = index
        self.name = self._spec.name
        self.status = ContainerStatus(self.name, image=self._spec.image)
        self._process: ProcessGroup | None = None
        self._variables: Mapping[str, str] = {}
        self._log: Log | None = None
        self._log_before: Log | None = None
        self._attached: set[asyncio.Queue[bytes]] = set()

    @property
    def _spec(self) -> Container:
        return self._life.pod.containers[self._index]

    async def run(self) -> None:
        """Run the container, again and again where the pod's restartPolicy says so, until the pod ends."""
        clock, backoff = self._life.services.clock, Backoff(initial=10.0, cap=300.0, jitter=0.0)
        pauses = backoff.pauses()
        while not self._life.ending.is_set():
            before = clock.monotonic()
            ended = await self._run_once()
            if ended is None or not self._again(ended):
                return
            if clock.monotonic() - before >= LONG_RUN:
                pauses = backoff.pauses()
            pause = next(pauses)
            message = f"back-off {pause:.0f}s restarting failed container={self.name} pod={self._life.key}"
            self._life.event("Warning", "BackOff", message, self.name)
            self._set(Waiting("CrashLoopBackOff", message), last_state=ended)
            await _first(self._life.ending.wait(), clock.sleep(pause))
            if self._life.ending.is_set():
                self._set(ended)  # that is how it ended, as nothing comes after it
                return
            self.status = attrs.evolve(self.status, restart_count=self.status.restart_count + 1)

    def _again(self, ended: Terminated) -> bool:
        policy = self._life.pod.restart_policy
        wanted = policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0)
        return wanted and not self._life.ending.is_set()

    async def _run_once(self) -> Terminated | None:
        """Run one process to its end; None where the pod ended before one could be started."""
        command = await self._prepared()
        if command is None:
            return None
        clock, spec = self._life.services.clock, self._spec
        if self._log_before is not None:
            await asyncio.to_thread(self._log_before.remove)
        self._log_before, self._log = self._log, self._new_log()
        started = clock.now()
        stdin = PIPE if spec.raw.get("stdin") else DEVNULL
        try:
            self._process = group = await self._spawn(command, stdin=stdin, stdout=PIPE, stderr=STDOUT)
        except (OSError, ValueError) as error:  # ValueError: a NUL byte
            self._life.event("Warning", "Failed", f"Error: {error}", self.name)
            self._log.close()
            return self._end(Terminated(CANNOT_START, "StartError", str(error), finished_at=clock.now()))
        if self._life.ending.is_set():
            self.signal(signal.SIGKILL)  # the pod was ended while the process was started
        self._life.event("Normal", "Started", f"Started container {self.name}", self.name)
        identity = f"process://{group.process.pid}-{started.timestamp():.0f}"
        self._set(Running(started), container_id=identity, image_id=spec.image)
        code = await self._follow(group, self._log)
        return self._end(
            Terminated(
                exit_code(code),
                signal=-code if code < 0 else None,
                started_at=started,
                finished_at=clock.now(),
                container_id=identity,
            )
        )

    async def _prepared(self) -> list[str] | None:
        """Wait until all objects that the container refers to are there, and return its command line.

        Returns:
            The command line, or None if the pod ends before.
        """
        life = self._life
        while not life.ending.is_set():
            changed = life.changed
            try:
                env = environment(life.pod, self._spec, life.inputs)
            except Refused as error:  # a config map that is missing, for one: not the pod's end, but until it is there
                if self.status.state != Waiting(error.reason, str(error)):
                    life.event("Warning", "Failed", f"Error: {error}", self.name)
                    self._set(Waiting(error.reason, str(error)))
                await _first(life.ending.wait(), changed.wait())
                continue
            for message in env.skipped:
                life.event("Warning", "InvalidEnvironmentVariableNames", message, self.name)
            name, value = life.services.mark
            self._variables = {"PATH": os.defpath} | env.variables | {name: value}
            command, args = command_and_args(self._spec, env.variables)
            return command + args
        return None

    async def _spawn(self, command: Sequence[str], **streams: int) -> ProcessGroup:
        """Start a process in the directory, and with the variables, of the container."""
        directory = self._spec.raw.get("workingDir") or "/"
        return await ProcessGroup.start(command, directory=directory, variables=self._variables, **streams)

    async def _follow(self, group: ProcessGroup, log: Log) -> int:
        """Write the process's output to the log until it has ended; its exit code, negative for a signal."""
        copying = asyncio.create_task(self._copy(group, log))
        try:
            code = await group.wait()
            await asyncio.wait([copying], timeout=LAST_OUTPUT)
        finally:
            copying.cancel()
            group.close()
            log.close()
            for queue in self._attached:
                queue.put_nowait(b"")
        return code

    async def _copy(self, group: ProcessGroup, log: Log) -> None:
        assert group.process.stdout is not None
        while data := await group.process.stdout.read(CHUNK):
            with contextlib.suppress(OSError):  # a full disk costs output, not the pod
                await log.write(data, self._life.services.clock.now())
            for queue in self._attached:
                if queue.qsize() < ATTACHED_CHUNKS:  # who reads too slowly has the log
                    queue.put_nowait(data)

    def _new_log(self) -> Log:
        path = self._life.directory / f"{self.name}.{self.status.restart_count}.log"
        return Log(path, self._life.services.max_log_bytes)

    def _end(self, ended: Terminated) -> Terminated:
        self._process = None
        self._set(ended)
        return ended

    def _set(self, state: Waiting | Running | Terminated, **fields: Any) -> None:
        self.status = attrs.evolve(self.status, state=state, **fields)
        self._life.publish()

    # --- what others ask

    def stop(self) -> None:
        """Ask the process to end."""
        if self._process is not None:
            self._life.event("Normal", "Killing", f"Stopping container {self.name}", self.name)
            self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it has started."""
        if self._process is not None:
            self._process.signal(number)

    def log(self, *, previous: bool) -> Log:
        """The log of this run of the container, or the one before.

        Raises:
            NotFound: there was none before.
            InvalidInput: it has not been started yet.
        """
        log = self._log_before if previous else self._log
        if log is None and previous:
            raise NotFound(f"container {self.name} in pod {self._life.key} was not started before")
        if log is None:
            raise InvalidInput(f"container {self.name} in pod {self._life.key} has not been started yet")
        return log

    @property
    def session(self) -> int | None:
        """The id of the session of the container's processes: the id of its first process. None if it does not run."""
        return None if self._process is None else self._process.process.pid

    def _running(self) -> ProcessGroup:
        if self._process is None or not isinstance(self.status.state, Running):
            raise NotFound(f"container {self.name} in pod {self._life.key} does not run")
        return self._process

    async def attach(self, streams: Streams) -> None:
        """Connect the caller's streams to the container: its stdin, and what it writes from now on, until it ends.

        Raises:
            NotFound: the container does not run.
        """
        group, queue = self._running(), asyncio.Queue[bytes]()
        self._attached.add(queue)
        try:
            async with asyncio.TaskGroup() as tasks:
                once = bool(self._spec.raw.get("stdinOnce"))
                feeding = tasks.create_task(feed(group.process.stdin, streams, close=once))
                while data := await queue.get():
                    await streams.write_stdout(data)
                feeding.cancel()
        finally:
            self._attached.discard(queue)

    async def exec(self, command: Sequence[str], streams: Streams) -> int:
        """Run another process with the container's variables; its exit code, as a shell has it.

        Raises:
            NotFound: the container does not run.
            InvalidInput: the program cannot be started, or a terminal is asked for.
        """
        self._running()
        if streams.tty:
            raise InvalidInput(
                "expected a command without a terminal, which this provider does not have: leave out --tty"
            )
        try:
            group = await self._spawn(command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{command[0]!r} cannot be run: {error}") from None
        try:
            return exit_code(await connect(group, streams))
        finally:
            group.close()  # also where the caller has left


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Return when one of them does; the others are ended."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
