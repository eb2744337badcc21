"""A provider that keeps its pods in memory and runs nothing.

It does all that the contract of `wasmlet.provider` asks, and no more. So it shows authors what a provider needs, it
serves tests of the node loop, and benchmarks measure with it what the node loop itself costs. A test says with `finish`
and `log` what the program in a container does. If the container's command is `script`, its arguments are instructions,
which are carried out in order (see `_Guest`). `kubectl exec` can run the commands of `wasmlet.testing.commands`, and
ports send back what comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import attrs

from wasmlet.clock import Backoff
from wasmlet.concurrency import Event
from wasmlet.errors import InvalidInput, NotFound, Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod, PodKey, Raw
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated
from wasmlet.model.times import rfc3339_micro
from wasmlet.provider import (
    Change,
    Channel,
    LogOptions,
    NodeChanged,
    NodeStatus,
    PodRecord,
    Provider,
    StatusChanged,
    Streams,
)
from wasmlet.testing.commands import echo, play
from wasmlet.testing.usage import Usage, summary
from wasmlet.worker import wire

T = TypeVar("T")

SCRIPT = "script"
"""The command of a container whose arguments are instructions."""
BACKOFF = Backoff(initial=0.02, cap=300)
"""The pauses before a script that has ended begins again."""


@attrs.define(eq=False)
class _Held:
    """A pod, what is known of it, and what its containers have written."""

    key: PodKey
    status: PodStatus
    pod: Pod
    logs: dict[str, list[tuple[datetime, bytes]]]
    told: Event = attrs.field(factory=Event)
    """Set, and replaced, whenever the status or a log is another one."""
    guests: list[_Guest] = attrs.field(factory=list)

    def tell(self) -> None:
        self.told.set()
        self.told = Event()


class ReferenceProvider(Provider):
    """Every container of a pod runs from its creation until `finish`, the end of its script, or its deletion."""

    name = "reference"

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.pods: dict[str, _Held] = {}
        self.created: list[PodKey] = []
        """Every pod that was ever started, in order: a key that is here twice has run twice."""
        self.deleted: list[PodKey] = []
        """Every pod that was ended on request, in order."""
        self.updated: list[PodKey] = []
        """Every update, in order."""
        self.inputs: dict[str, Inputs] = {}
        """What each pod that is here was last handed, by UID."""
        self.usage: dict[tuple[str, str], Usage] = {}
        """What a container has used, by the pod's UID and its own name."""
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._touched = asyncio.Event()

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        if pod.spec.get("hostPID"):
            raise Refused("spec.hostPID", "cannot be true: nothing runs here, so there are no processes to see")
        self.inputs[pod.uid] = inputs
        if pod.uid in self.pods:
            return
        now = datetime.now(UTC)
        running = tuple(
            ContainerStatus(c.name, Running(now), image=c.image, container_id=f"reference://{pod.uid}/{c.name}")
            for c in pod.containers
        )
        self.created.append(pod.key)
        logs: dict[str, list[tuple[datetime, bytes]]] = {container.name: [] for container in pod.containers}
        held = _Held(pod.key, PodStatus(containers=running, start_time=now), pod, logs)
        self._set(held)
        held.guests = [_Guest(self, held, c) for c in pod.containers if c.command[:1] == [SCRIPT]]

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        self._held(pod.key).pod = pod
        self.inputs[pod.uid] = inputs
        self.updated.append(pod.key)
        self._touched.set()

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        held = self._held(key)
        try:
            async with asyncio.timeout(grace_seconds):
                while any(guest.stubborn and guest.running for guest in held.guests):
                    await held.told.wait()
        except TimeoutError:
            held.status = _ended(held.status, wire.KILLED_CODE)
        held.status = _ended(held.status, wire.INTERRUPTED_CODE)
        for guest in held.guests:
            guest.end()
        del self.pods[key.uid]
        self.inputs.pop(key.uid, None)
        self.deleted.append(key)
        held.tell()
        self._touched.set()
        return held.status

    async def pod_status(self, key: PodKey) -> PodStatus:
        return self._held(key).status

    async def list_pods(self) -> Sequence[PodRecord]:
        return [PodRecord(held.key, held.status) for held in self.pods.values()]

    async def changes(self) -> AsyncGenerator[Change, None]:
        while True:
            yield await self._changes.get()

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        held = self._held(key)
        if container not in held.logs:
            raise NotFound(f"container {container} in pod {key} is not here")
        if options.previous:
            raise NotFound(f"of container {container} in pod {key} no earlier instance is known by itself")
        log, left = held.logs[container], options.limit_bytes
        since = options.since_time
        begin = next((i for i, (at, _) in enumerate(log) if since is None or at >= since), len(log))
        if options.tail_lines is not None:
            begin = max(begin, len(log) - options.tail_lines)
        while True:
            status = held.status.container(container)
            ended = status is None or isinstance(status.state, Terminated)
            told = held.told
            for at, line in log[begin:]:
                begin += 1
                if since is not None and at < since:
                    continue
                text = rfc3339_micro(at).encode() + b" " + line if options.timestamps else line
                yield text[:left]
                if left is not None and (left := left - len(text)) <= 0:
                    return
            if not options.follow or ended:
                return
            if told is held.told:
                await told.wait()

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        self._running(key, container)
        return await play(command, streams)

    async def attach(self, key: PodKey, container: str, streams: Streams) -> None:
        """Shows what the container writes from now on; what is sent to its stdin it writes to its log."""
        held = self._running(key, container)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(held, container, streams))
            log = held.logs[container]
            begin = len(log)
            while True:
                told, ended = held.told, not self._runs(held, container)
                while begin < len(log):
                    begin += 1
                    await streams.write_stdout(log[begin - 1][1])
                if ended:
                    break
                await told.wait()
            listening.cancel()

    async def port_forward(self, key: PodKey, port: int, channel: Channel) -> None:
        held = self._held(key)
        ports = [port["containerPort"] for c in held.pod.containers for port in c.raw.get("ports") or ()]
        if port not in ports:
            raise InvalidInput(f"expected a port of the pod's containers ({ports}), found {port}")
        await echo(channel)

    async def node_status(self) -> NodeStatus:
        return NodeStatus(capacity={"cpu": "1000", "memory": "1000Gi"})

    async def stats(self) -> Raw:
        return summary(((held.key, held.status) for held in self.pods.values()), self.usage, datetime.now(UTC))

    async def until(self, check: Callable[[], T], seconds: float = 20.0) -> T:
        """What `check` returns once that is true; looked at whenever the node loop has asked for something.

        Raises:
            TimeoutError: it did not become true within that many seconds.
        """
        async with asyncio.timeout(seconds):
            while not (found := check()):
                self._touched.clear()
                await self._touched.wait()
        return found

    # --- what the program in a container does

    def finish(self, key: PodKey, exit_code: int = 0, container: str | None = None) -> None:
        """The pod's containers, or the one of that name, end by themselves."""
        held = self._held(key)
        held.status = _ended(held.status, exit_code, container)
        self._set(held)

    def start_again(self, key: PodKey, container: str) -> None:
        """The container of that name, which has ended, runs again."""
        held, now = self._held(key), datetime.now(UTC)

        def start(status: ContainerStatus) -> ContainerStatus:
            if status.name != container or not isinstance(status.state, Terminated):
                return status
            count = status.restart_count + 1
            return attrs.evolve(status, state=Running(now), last_state=status.state, restart_count=count)

        held.status = attrs.evolve(held.status, containers=tuple(map(start, held.status.containers)))
        self._set(held)

    def node_changed(self) -> None:
        """The node's status is to be looked at again."""
        self._changes.put_nowait(NodeChanged())

    def log(self, key: PodKey, container: str, line: bytes) -> None:
        """The container writes a line."""
        held = self._held(key)
        held.logs[container].append((datetime.now(UTC), line))
        held.tell()

    def _held(self, key: PodKey) -> _Held:
        try:
            return self.pods[key.uid]
        except KeyError:
            raise NotFound(f"pod {key} ({key.uid}) is not here") from None

    def _running(self, key: PodKey, container: str) -> _Held:
        held = self._held(key)
        if not self._runs(held, container):
            raise NotFound(f"container {container} in pod {key} does not run")
        return held

    @staticmethod
    def _runs(held: _Held, container: str) -> bool:
        status = held.status.container(container)
        return status is not None and isinstance(status.state, Running)

    async def _listen(self, held: _Held, container: str, streams: Streams) -> None:
        while data := await streams.read_stdin():
            self.log(held.key, container, data)

    def _set(self, held: _Held) -> None:
        self.pods[held.key.uid] = held
        held.tell()
        self._touched.set()
        self._changes.put_nowait(StatusChanged(held.key, held.status))


class _Guest:
    """Carries out a container's instructions: `print TEXT` writes a line, `sleep SECONDS` waits, `exit CODE` ends it.

    `ignore` makes it one that does not end when asked to: it uses its grace period up and is ended by force. A script
    without `exit` runs on. One that has ended begins again, after a growing pause, if the pod's restartPolicy says so.
    """

    def __init__(self, provider: ReferenceProvider, held: _Held, container: Container) -> None:
        self._provider = provider
        self._held = held
        self._name = container.name
        self._script = container.args
        self._words = iter(self._script)
        self._pauses = BACKOFF.pauses()
        self._timer: asyncio.TimerHandle | None = None
        self.stubborn = False
        self._step()

    @property
    def running(self) -> bool:
        status = self._held.status.container(self._name)
        return status is not None and isinstance(status.state, Running)

    def end(self) -> None:
        """Do nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _step(self) -> None:
        for word in self._words:
            match word:
                case "print":
                    self._provider.log(self._held.key, self._name, next(self._words).encode() + b"\n")
                case "sleep":
                    seconds = float(next(self._words))
                    self._timer = asyncio.get_running_loop().call_later(seconds, self._step)
                    return
                case "ignore":
                    self.stubborn = True
                case "exit":
                    self._exit(int(next(self._words)))
                    return

    def _exit(self, code: int) -> None:
        self._provider.finish(self._held.key, code, self._name)
        policy = self._held.pod.restart_policy
        if policy == "Always" or (policy == "OnFailure" and code):
            self._timer = asyncio.get_running_loop().call_later(next(self._pauses), self._again)

    def _again(self) -> None:
        self._provider.start_again(self._held.key, self._name)
        self._words = iter(self._script)
        self._step()


def _ended(status: PodStatus, exit_code: int, name: str | None = None) -> PodStatus:
    """The same with every container that runs, or the one of that name, ended."""
    now = datetime.now(UTC)

    def end(container: ContainerStatus) -> ContainerStatus:
        if not isinstance(container.state, Running) or name not in (None, container.name):
            return container

        state = Terminated(exit_code, started_at=container.state.started_at, finished_at=now)
        return attrs.evolve(container, state=state)

    return attrs.evolve(status, containers=tuple(map(end, status.containers)))
