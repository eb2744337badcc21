"""One container of a pod across all its instances: start, end, restart, as the kubelet does it.

The shim knows the instances (`wasmlet.worker.records`); what has to survive this process is in their labels, so a
node loop that comes back finds `restartCount`, the state before and the back-off again. `pod` decides which container
is to run; this module keeps one running under its policy.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import attrs
import structlog

from wasmlet.errors import Refused, WasmletError
from wasmlet.model.environment import environment
from wasmlet.model.expansion import command_and_args
from wasmlet.model.pod import Container, PodKey
from wasmlet.model.quantity import Quantity
from wasmlet.model.status import ContainerState, ContainerStatus, Running, Terminated, Waiting
from wasmlet.runtime import manifest
from wasmlet.runtime.compile import CompileError
from wasmlet.runtime.images import ImageError, Module
from wasmlet.runtime.waiting import first_of
from wasmlet.runtime.worker import ContainerRecord, spec_of
from wasmlet.worker import wire

if TYPE_CHECKING:
    from wasmlet.runtime.pod import PodLife

log = structlog.get_logger(__name__)

Kind = Literal["init", "main"]

BACKOFF_SECONDS = 10.0
BACKOFF_CAP_SECONDS = 300.0
"""The kubelet's back-off between restarts, and its cap."""

BACKOFF_RESET_SECONDS = 600.0
"""A container that has run this long starts over with the shortest back-off."""

PULL_SHOWN_SECONDS = 5.0
"""How long an image error is shown as itself before it is shown as the back-off that follows it."""


@attrs.frozen
class Labels:
    """What the shim keeps of a container for us.

    Attributes:
        attempt: counts instances from 0; the present one's is `restartCount`.
        backoff: seconds to wait after this instance has ended.
    """

    pod: PodKey
    container: str
    kind: Kind
    attempt: int
    image: str
    image_id: str
    backoff: float

    def as_message(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def of(cls, labels: Mapping[str, Any]) -> Labels | None:
        """From a record; None where they are not of this form."""
        try:
            known = {field.name: labels[field.name] for field in attrs.fields(cls)}
            return cls(**{**known, "pod": PodKey(**known["pod"])})
        except (KeyError, TypeError):
            return None


def state_of(record: ContainerRecord) -> ContainerState:
    """The container state that a record shows."""
    if record.state == wire.STARTING:
        return Waiting("ContainerCreating")
    if record.state == wire.RUNNING:
        return Running(_time(record.started))
    return Terminated(
        record.exit_code,
        record.reason or ("Completed" if record.exit_code == 0 else "Error"),
        record.message,
        record.signal or None,
        _time(record.started) if record.started else None,
        _time(record.finished) if record.finished else None,
        f"wasm://{record.id}",
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class ContainerLife:
    """One container of one pod. Its state changes through `saw` (the shim) and `run` (its owner, the pod)."""

    def __init__(self, pod: PodLife, name: str, kind: Kind, waiting: str) -> None:
        self._pod = pod
        self.name = name
        self.kind = kind
        self.state: ContainerState = Waiting(waiting)
        self.record: ContainerRecord | None = None
        self._labels: Labels | None = None
        self._earlier: dict[int, ContainerRecord] = {}
        self._backoff = 0.0
        self._ended_at: float | None = None
        """When we saw the present instance end, on the monotonic clock; None if it had ended before we looked."""
        self.updated = asyncio.Event()

    @property
    def attempt(self) -> int:
        return self._labels.attempt if self._labels else 0

    @property
    def done(self) -> bool:
        """Whether it has ended well, as an init container has to."""
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    def status(self) -> ContainerStatus:
        before = self._before()
        spec = self._pod.pod and self._pod.pod.container(self.name)
        ready = self.done if self.kind == "init" else None
        return ContainerStatus(
            self.name,
            self.state,
            before,
            ready,
            restart_count=self.attempt,
            image=spec.image if spec else self._labels.image if self._labels else "",
            image_id=self._labels.image_id if self._labels else "",
            container_id=f"wasm://{self.record.id}" if self.record else "",
        )

    def _before(self) -> Terminated | None:
        """The end before the present state: of this instance if it has ended and is to be run again, or of the last."""
        record = self.record
        if record is None or not record.ended or isinstance(self.state, Terminated):
            record = self._earlier.get(self.attempt - 1)
        state = state_of(record) if record else None
        return state if isinstance(state, Terminated) else None

    def saw(self, record: ContainerRecord, labels: Labels) -> None:
        """The shim says this of an instance."""
        if self._labels is None or labels.attempt > self._labels.attempt:
            if self.record is not None and self._labels is not None:
                self._earlier[self._labels.attempt] = self.record
            self._labels, self.record, self._backoff, self._ended_at = labels, record, labels.backoff, None
        elif labels.attempt == self._labels.attempt:
            if record.ended and self.record is not None and not self.record.ended:
                self._ended_at = self._pod.around.clock.monotonic()
            self.record = record
        else:
            self._earlier[labels.attempt] = record
            return
        self.state = state_of(record)

    def log_of(self, *, previous: bool) -> ContainerRecord | None:
        """The instance whose log is meant; None where there is no such instance."""
        if not previous:
            return self.record
        if self.record is not None and self.record.ended and not isinstance(self.state, Terminated):
            return self.record  # it waits to be run again, so the last one to run is the one before
        return self._earlier.get(self.attempt - 1)

    async def run(self) -> Terminated:
        """Keep the container running under its policy; return how it ended, once it is not to run again."""
        while True:
            if self.record is None:
                await self._start()
            ended = await self._end_or_change()
            if ended is None:
                self._backoff = 0.0  # the manifest has changed, and what failed before says nothing of what comes
            elif not self._restarts(ended):
                return ended
            else:
                await self._back_off(ended)
            await self._start()

    def _restarts(self, ended: Terminated) -> bool:
        policy = self._pod.spec.restart_policy
        if policy == "Always" and self.kind == "main":
            return True
        return policy != "Never" and ended.exit_code != 0

    async def _end_or_change(self) -> Terminated | None:
        """Wait for the end of the present instance; None if it was ended because its image has changed."""
        record = self.record
        assert record is not None
        client = self._pod.around.client
        while True:
            self.updated.clear()
            if self._image_changed() and not record.ended:
                self._say("Normal", "Killing", f"Container {self.name} definition changed, will be restarted")
                await client.stop(record.id, self._pod.spec.termination_grace_seconds)
                await client.wait(record.id, wire.ENDED)
                return None
            await first_of(client.wait(record.id, wire.ENDED), self.updated.wait())
            record = client.records.get(record.id, record)
            if record.ended:
                state = state_of(record)
                assert isinstance(state, Terminated)
                if record.fault == wire.BAD_ARTIFACT and self._labels is not None:
                    self._pod.around.compiler.discard(self._labels.image_id.removeprefix("sha256:"))
                return state

    def _image_changed(self) -> bool:
        return self._labels is not None and self._spec().image != self._labels.image

    async def _back_off(self, ended: Terminated) -> None:
        """Wait as long as the kubelet does before the next restart: not at all, then 10 s, doubling to 300 s."""
        clock = self._pod.around.clock
        ran = (ended.finished_at - ended.started_at).total_seconds() if ended.started_at and ended.finished_at else 0.0
        pause, self._backoff = pauses(self._backoff, ran)
        if self._ended_at is not None:
            since = clock.monotonic() - self._ended_at
        else:
            since = (clock.now() - ended.finished_at).total_seconds() if ended.finished_at else 0.0
        if since >= pause:
            return
        who = _full_name(self._pod.key)
        self._say("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {who}")
        message = f"back-off {_duration(pause)} restarting failed container={self.name} pod={who}"
        self._show(Waiting("CrashLoopBackOff", message))
        until = clock.monotonic() + pause - max(0.0, since)
        while (left := until - clock.monotonic()) > 0 and not self._image_changed():
            self.updated.clear()
            await first_of(clock.sleep(left), self.updated.wait())

    async def _start(self) -> None:
        """Start the next instance, however often that has to be tried."""
        pause = BACKOFF_SECONDS
        while True:
            self.updated.clear()
            spec = self._spec()
            try:
                await self._launch(spec)
                return
            except ImageError as error:
                await self._image_failed(spec, error, pause)
            except Refused as error:
                await self._failed(error.reason, str(error), pause)
            except CompileError as error:
                await self._failed("CreateContainerError", str(error), pause)
            except (WasmletError, OSError) as error:
                await self._failed("RunContainerError", str(error), pause)
            except Exception as error:
                log.exception("container: starting it failed", pod=str(self._pod.key), container=self.name)
                await self._failed("CreateContainerError", f"{type(error).__name__}: {error}", pause)
            pause = min(pause * 2, BACKOFF_CAP_SECONDS)

    async def _launch(self, spec: Container) -> None:
        around, attempt = self._pod.around, self.attempt + 1 if self.record else 0
        module = await around.images.find(spec.image)
        self._say("Normal", "Pulled", f'Container image "{spec.image}" already present on machine')
        content = self._content(spec, module)
        labels = Labels(self._pod.key, self.name, self.kind, attempt, spec.image, module.image_id, self._backoff)
        async with around.compiler.artifact(module) as artifact:
            await self._forget_before(attempt - 1)
            record = await around.client.run(
                secrets.token_hex(16),
                labels=labels.as_message(),
                log_path=f"{self._pod.log_directory}/{self.name}/{attempt}.log",
                zygote=around.zygote,
                spec=content,
                module=artifact,
            )
        self._say("Normal", "Created", f"Created container: {self.name}")
        record = await around.client.wait(record.id, wire.RUNNING, wire.ENDED)
        if record.reason == wire.START_ERROR:
            self._say("Warning", "Failed", f"Error: {record.message}")
        else:
            self._say("Normal", "Started", f"Started container {self.name}")

    def _content(self, spec: Container, module: Module) -> bytes:
        """What the guest is given, made anew for each instance. This is where secrets are, and they go nowhere else."""
        pod = self._pod.spec
        manifest.check_container(spec)
        result = environment(pod, spec, self._pod.inputs)
        if result.binary:
            names = ", ".join(result.binary)
            raise Refused(
                f"{spec.field}.env", f"the value of {names} is not UTF-8, which a guest needs", container=self.name
            )
        for message in result.skipped:
            self._say("Warning", "InvalidEnvironmentVariableNames", message)
        command, args = command_and_args(spec, result.variables)
        # Without a command the module is the entry point and its file's name is argv[0]; with one the command is all
        # of argv, as in an image without an entry point: there is no other program that it could name.
        argv = [*command, *args] if command else [module.path.name, *args]
        if any("\0" in word for word in argv):
            raise Refused(
                f"{spec.field}.args", "an argument has a NUL byte, which ends an argument", container=self.name
            )
        limit = (spec.resources.get("limits") or {}).get("memory")
        memory = Quantity.parse(limit).units() if limit is not None else None
        return spec_of(argv, result.variables, memory or None)

    async def _forget_before(self, attempt: int) -> None:
        """Keep the last two instances, as the kubelet does; the log and record of older ones go."""
        old = {number: record for number, record in self._earlier.items() if number < attempt}
        if old:
            await self._pod.around.client.forget([record.id for record in old.values()])
            await asyncio.to_thread(self._pod.around.remove_logs, [record.log for record in old.values()])
            for number in old:
                self._earlier.pop(number, None)

    async def _image_failed(self, spec: Container, error: ImageError, pause: float) -> None:
        if error.reason == "InvalidImageName":
            self._say("Warning", "InspectFailed", f'Failed to apply default image tag "{spec.image}": {error}')
            await self._failed(error.reason, str(error), pause)
            return
        clock = self._pod.around.clock
        self._say("Warning", "Failed", f'Failed to pull image "{spec.image}": {error}')
        self._say("Warning", "Failed", f"Error: {error.reason}")
        self._show(Waiting(error.reason, str(error)))
        shown = min(PULL_SHOWN_SECONDS, pause)
        await first_of(clock.sleep(shown), self.updated.wait())
        if self.updated.is_set():
            return
        self._say("Normal", "BackOff", f'Back-off pulling image "{spec.image}"')
        self._say("Warning", "Failed", "Error: ImagePullBackOff")
        message = f'Back-off pulling image "{spec.image}": {error.reason}: {error}'
        self._show(Waiting("ImagePullBackOff", message))
        await first_of(clock.sleep(pause - shown), self.updated.wait())

    async def _failed(self, reason: str, message: str, pause: float) -> None:
        """Show why the container cannot be started, and wait; a change of the pod ends the wait."""
        waiting = Waiting(reason, message)
        if self.state != waiting:
            self._say("Warning", "Failed", f"Error: {message}")
        self._show(waiting)
        await first_of(self._pod.around.clock.sleep(pause), self.updated.wait())

    def _spec(self) -> Container:
        spec = self._pod.spec.container(self.name)
        assert spec is not None
        return spec

    def _show(self, state: ContainerState) -> None:
        self.state = state
        self._pod.publish()

    def _say(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        where = "initContainers" if self.kind == "init" else "containers"
        self._pod.event(type, reason, message, f"spec.{where}{{{self.name}}}")


def pauses(backoff: float, ran: float) -> tuple[float, float]:
    """How long to wait before a restart, and what to remember as the back-off of the next instance, in seconds.

    Args:
        backoff: what was remembered for the instance that has ended; 0 for the first.
        ran: how long that instance ran.
    """
    pause = 0.0 if ran >= BACKOFF_RESET_SECONDS else backoff
    return pause, min(pause * 2, BACKOFF_CAP_SECONDS) if pause else BACKOFF_SECONDS


def _full_name(key: PodKey) -> str:
    """A pod as the kubelet's messages name it."""
    return f"{key.name}_{key.namespace}({key.uid})"


def _duration(seconds: float) -> str:
    """As Go prints a duration: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
