"""One container of a pod across all its instances: start, end, restart, as the kubelet does it.

The shim knows the instances (`wasmlet.worker.records`, `instances`). `order` decides which container is to run; this
module keeps one running under its policy, with `starting` for its starts, `probes` while it runs, `ending` for its
end and `restarts` for the pauses between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import attrs

from wasmlet.errors import WasmletError
from wasmlet.model.pod import Container, Raw
from wasmlet.model.restart import restarts
from wasmlet.model.status import ContainerState, ContainerStatus, Running, Terminated, Waiting
from wasmlet.runtime import hooks
from wasmlet.runtime.ending import GracePeriod, end
from wasmlet.runtime.instances import WHERE, Kind, Labels, Target, state_of
from wasmlet.runtime.probes import Probe, Prober, ProbeServices
from wasmlet.runtime.resizer import Resize, Resizer
from wasmlet.runtime.resizing import changed, needs_restart
from wasmlet.runtime.restarts import duration, full_name, pauses
from wasmlet.runtime.starting import ERROR_SHOWN_SECONDS, start
from wasmlet.runtime.waiting import first_of
from wasmlet.runtime.worker import ContainerRecord
from wasmlet.worker import wire

if TYPE_CHECKING:
    from wasmlet.runtime.pod import PodLife


INTERRUPTED = 143
"""Exit code of a guest that was interrupted."""


@attrs.frozen
class Kill:
    """Why an instance is ended before its time: what is told, and how long it has.

    Attributes:
        restart: that the container runs again, whatever code the instance ends with.
        anew: its manifest has changed: what failed before says nothing of what comes.
    """

    message: str
    grace: float
    restart: bool
    anew: bool = False


@attrs.frozen
class Ending:
    """The end of one instance, which is under way; it goes on when nobody waits for `task` any more."""

    container_id: str
    grace: GracePeriod
    task: asyncio.Task[None]


class ContainerLife:
    """One container of one pod. Its state changes through `saw` (the shim) and `run` (its owner, the pod)."""

    def __init__(self, pod: PodLife, name: str, kind: Kind, waiting: str) -> None:
        self.pod = pod
        self.name = name
        self.kind = kind
        self.creating = Waiting(waiting)
        """Its state while nothing has gone wrong and an instance is on its way."""
        self.state: ContainerState = self.creating
        self.record: ContainerRecord | None = None
        self.labels: Labels | None = None
        self.earlier: dict[int, ContainerRecord] = {}
        self.backoff = 0.0
        self.hook_failed = ""
        """Why the present instance's postStart hook failed; it is on its way out then."""
        self.replaced = False
        """The present instance makes way for another: until that is there, the container is shown to run."""
        self.in_hook = False
        """A new instance is shown to run once its postStart hook is over."""
        self.updated = asyncio.Event()
        self.tried = asyncio.Event()
        """The first start has been tried, well or not."""
        self.up = asyncio.Event()
        """It has started once, so that what comes after a sidecar may begin."""
        self.started = self._ready = False
        self.given: Raw = {}
        """The resources that the present instance has been given, and those that are set aside for the container."""
        self.allocated: Raw | None = None
        around = pod.around
        self._resizer = Resizer(
            around.client, around.clock, wanted=self._resize_wanted, resized=self._resized, published=pod.publish
        )
        self._resizing: asyncio.Task[None] | None = None
        self._ended_at: float | None = None
        """When we saw the present instance end, on the monotonic clock; None if it had ended before we looked."""
        self._ending: Ending | None = None

    # What is known

    @property
    def target(self) -> Target:
        """The present instance, for commands in it."""
        return Target(self.pod.key, self.name)

    @property
    def begun(self) -> bool:
        """Whether there is or was an instance of it."""
        return self.record is not None

    @property
    def resize_error(self) -> str:
        """Why the present instance cannot have the resources that are set aside for it; "" where it can."""
        return self._resizer.error

    @property
    def attempt(self) -> int:
        return self.labels.attempt if self.labels else 0

    @property
    def spec(self) -> Container:
        """The container as the manifest has it now."""
        spec = self.pod.spec.container(self.name)
        assert spec is not None
        return spec

    @property
    def resources(self) -> Raw:
        """What an instance is to be given: the manifest's, but for a resize that is not possible (yet)."""
        return self.spec.resources if self.allocated is None else self.allocated

    @property
    def done(self) -> bool:
        """Whether it has ended well, as an init container has to."""
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    @property
    def lives(self) -> bool:
        """Whether there is a process of it."""
        return self.record is not None and not self.record.ended

    def age(self) -> float:
        """Seconds since the present instance began."""
        now = self.pod.around.clock.now().timestamp()
        return max(0.0, now - self.record.started) if self.record is not None else 0.0

    def status(self) -> ContainerStatus:
        before = self._before()
        spec = self.pod.pod.container(self.name) if self.pod.pod else None
        ready, started = self._service(spec)
        runs = isinstance(self.state, Running)
        return ContainerStatus(
            self.name,
            self.state,
            before,
            ready=ready,
            started=started,
            restart_count=self.attempt,
            image=spec.image if spec else self.labels.image if self.labels else "",
            image_id=self.labels.image_id if self.labels else "",
            container_id=self.container_id,
            resources=self.given if spec and runs else None,
            allocated=self.resources.get("requests") or {} if spec and runs else None,
            recursive_read_only=True,  # an engine's doing, whatever is mounted where
        )

    def _service(self, spec: Container | None) -> tuple[bool | None, bool | None]:
        """Whether it is ready and has started; None where the manifest, which says what is asked, is not there yet."""
        runs = isinstance(self.state, Running)
        if self.kind == "ephemeral":
            return False, runs
        if self.kind == "init":
            return self.done, runs
        if spec is None and runs:
            return None, None
        started = runs and (self.started or (spec is not None and Probe.of(spec, "Startup") is None))
        ready = started and (self._ready or (spec is not None and Probe.of(spec, "Readiness") is None))
        return ready, started

    def _before(self) -> Terminated | None:
        """The end before the present state: of this instance if it has ended and is to be run again, or of the last."""
        record = self.record
        if record is None or not record.ended or not isinstance(self.state, Waiting):
            record = self.earlier.get(self.attempt - 1)
        state = state_of(record) if record else None
        return state if isinstance(state, Terminated) else None

    def saw(self, record: ContainerRecord, labels: Labels) -> None:
        """The shim says this of an instance."""
        if self.labels is None or labels.attempt > self.labels.attempt:
            if self.record is not None and self.labels is not None:
                self.earlier[self.labels.attempt] = self.record
            self.labels, self.record, self.backoff, self._ended_at = labels, record, labels.backoff, None
            self.started = self._ready = self.replaced = False
        elif labels.attempt == self.labels.attempt:
            if record.ended and self.record is not None and not self.record.ended:
                self._ended_at = self.pod.around.clock.monotonic()
            self.record = record
        else:
            self.earlier[labels.attempt] = record
            return
        if not self.replaced and (record.ended or not self.in_hook):
            self.state = state_of(record)

    def adopt(self, statuses: Sequence[Raw]) -> None:
        """What the API has heard of an instance goes on: a node loop that comes back unreadies nobody."""
        if self.lives:
            self.given = self.allocated = self.spec.resources
        for status in statuses:
            if self.lives and status.get("name") == self.name and status.get("containerID") == self.container_id:
                self.given = self.allocated = status.get("resources") or self.spec.resources
                self.probed(started=bool(status.get("started")), ready=bool(status.get("ready")))

    @property
    def container_id(self) -> str:
        return f"wasm://{self.record.id}" if self.record else ""

    def probed(self, *, started: bool | None = None, ready: bool | None = None) -> None:
        """This is what probes say of the present instance."""
        self.started = self.started if started is None else started
        self._ready = self._ready if ready is None else ready
        if self.started:
            self.up.set()
        self.pod.publish()

    def log_of(self, *, previous: bool) -> ContainerRecord | None:
        """The instance whose log is meant; None where there is no such instance."""
        if not previous:
            return self.record
        if self.record is not None and self.record.ended and not isinstance(self.state, Terminated):
            return self.record  # it waits to be run again, so the last one to run is the one before
        return self.earlier.get(self.attempt - 1)

    # What is done

    async def run(self) -> Terminated:
        """Keep the container running under its policy; return how it ended, once it is not to run again."""
        if self.record is None:
            await start(self)
        self.tried.set()
        try:
            while True:
                ended, kill = await self._to_its_end()
                if kill is not None and kill.anew:
                    self.backoff = 0.0
                elif (kill is not None and kill.restart) or restarts(self.pod.spec, self.spec, ended.exit_code):
                    await self._back_off(ended, killed=kill is not None)
                else:
                    return ended
                await start(self)
        finally:
            # Cancelled before another instance was there.
            if self.replaced and self.record is not None and self.record.ended:
                self.replaced = False
                self.show(state_of(self.record))

    async def stop(self, grace: float, message: str, after: Sequence[str] = ()) -> None:
        """End the present instance, and return when it has ended; see `ending`. Cancelled: it ends all the same.

        Args:
            grace: its grace period in seconds. One that is under way may be shortened, and gets no longer.
            message: of the Killing event.
            after: ids of the containers that have to end first.
        """
        record, around = self.record, self.pod.around
        if record is None or record.ended:
            return
        ending = self._ending
        if ending is None or ending.container_id != record.id or ending.task.done():
            self.say("Normal", "Killing", message)
            period = GracePeriod(around.clock, grace)
            work = end(record.id, period, around.client, pre_stop=self._pre_stop(record), after=after)
            ending = self._ending = Ending(record.id, period, around.background(work))
        else:
            ending.grace.shorten(grace)
        await asyncio.shield(ending.task)

    def _pre_stop(self, record: ContainerRecord) -> Callable[[], Awaitable[None]] | None:
        """What runs the preStop hook of this instance; None where there is none to run."""
        known = self.pod.pod is not None and record.state == wire.RUNNING
        hook = hooks.hook_of(self.spec, "preStop") if known else {}
        if not hook:
            return None

        async def run() -> None:
            around = self.pod.around
            ended = around.client.wait(record.id, wire.ENDED)
            try:
                await hooks.run(hook, self.target, around.commands, around.clock, ended)
            except (WasmletError, OSError):
                # What a command has written may be secret: the kubelet does not tell it either.
                self.say("Warning", "FailedPreStopHook", "PreStopHook failed")

        return run

    def resize(self) -> None:
        """Have the present instance's limits become those that are set aside for the container."""
        self._resizer.try_again()
        if self._resizing is None or self._resizing.done():
            self._resizing = self.pod.around.background(self._resizer.run())

    def _resize_wanted(self) -> Resize | None:
        if self.record is None or self.record.ended or not changed(self.given, self.resources):
            return None
        if needs_restart(self.spec, self.given, self.resources):
            return None
        return Resize(self.record.id, self.resources)

    def _resized(self, resize: Resize) -> None:
        if self.record is not None and self.record.id == resize.container_id:
            self.given = resize.resources

    def prober(self) -> Prober:
        """Probes the present instance as the manifest says now."""
        around = self.pod.around
        services = ProbeServices(around.commands, around.probe_counts, around.clock)
        return Prober(self.spec, self.target, services, age=self.age, probed=self.probed, say=self.say)

    async def _to_its_end(self) -> tuple[Terminated, Kill | None]:
        """Wait for the end of the present instance, and bring it about where there is a reason to."""
        client, record = self.pod.around.client, self.record
        assert record is not None
        kill: Kill | None = None

        async def watch() -> None:
            nonlocal kill
            kill = await self._reason_to_end()

        while True:
            await first_of(client.wait(record.id, wire.ENDED), watch())
            record = client.records.get(record.id, record)
            if record.ended:
                kill = None  # it was quicker
            if kill is not None:
                # The API takes no container back that has ended for good, which it would have without a restart policy.
                self.replaced = kill.anew
                await self.stop(kill.grace, kill.message)
                record = client.records.get(record.id, record)
            if record.ended:
                state = state_of(record)
                assert isinstance(state, Terminated)
                if record.fault == wire.BAD_ARTIFACT and self.labels is not None:
                    self.pod.handler.compiler.discard(self.labels.image_id.removeprefix("sha256:"))
                return state, kill

    async def _reason_to_end(self) -> Kill:
        """Watch the present instance until there is a reason to end it."""
        failed: Probe | None = None

        async def probe() -> None:
            nonlocal failed
            failed = await prober.run(started=self.started)

        prober = self.prober()
        if not self.hook_failed and prober.idle:
            self.probed(started=True)
            await self._changed()
        elif not self.hook_failed:
            await first_of(probe(), self._changed())
        grace = float(self.pod.spec.termination_grace_seconds)
        if self.hook_failed:
            return Kill("FailedPostStartHook", grace, restart=False)
        again = restarts(self.pod.spec, self.spec, INTERRUPTED)
        if failed is None and self.image_changed():
            message = f"Container {self.name} definition changed, will be restarted"
            return Kill(message, grace, restart=True, anew=True)
        if failed is None:
            return Kill(f"Container {self.name} resize requires restart", grace, restart=True, anew=True)
        word = ", will be restarted" if again else ""
        message = f"Container {self.name} failed {failed.kind.lower()} probe{word}"
        return Kill(message, grace if failed.grace is None else failed.grace, restart=again)

    async def _changed(self) -> None:
        """Return when the manifest asks for another instance than the present one."""
        while not self.image_changed() and not needs_restart(self.spec, self.given, self.resources):
            self.updated.clear()
            await self.updated.wait()

    def image_changed(self) -> bool:
        return self.labels is not None and self.spec.image != self.labels.image

    async def _back_off(self, ended: Terminated, *, killed: bool) -> None:
        """Wait as long as the kubelet does before the next restart: not at all, then 10 s, doubling to the cap."""
        clock = self.pod.around.clock
        ran = (ended.finished_at - ended.started_at).total_seconds() if ended.started_at and ended.finished_at else 0.0
        pause, self.backoff = pauses(self.backoff, ran, self.pod.around.restart_cap)
        since = self._since(ended.finished_at)
        if killed and not self.hook_failed:
            # The kubelet ends and starts it in one go, and counts the pause from the end before this one.
            before = self.earlier.get(self.attempt - 1)
            since = pause if before is None else max(since, clock.now().timestamp() - before.finished)
        if self.hook_failed:
            self.show(Waiting("PostStartHookError", self.hook_failed))
            shown = min(ERROR_SHOWN_SECONDS, pause - since)
            await clock.sleep(shown)
            since += max(0.0, shown)
        if since >= pause:
            return
        who = full_name(self.pod.key)
        self.say("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {who}")
        message = f"back-off {duration(pause)} restarting failed container={self.name} pod={who}"
        self.show(Waiting("CrashLoopBackOff", message))
        until = clock.monotonic() + pause - max(0.0, since)
        while (left := until - clock.monotonic()) > 0 and not self.image_changed():
            self.updated.clear()
            await first_of(clock.sleep(left), self.updated.wait())

    def _since(self, finished: datetime | None) -> float:
        """Seconds since the present instance ended."""
        clock = self.pod.around.clock
        if self._ended_at is not None:
            return clock.monotonic() - self._ended_at
        return (clock.now() - finished).total_seconds() if finished else 0.0

    def show(self, state: ContainerState) -> None:
        """The container's state is this, whatever the shim says of the last instance."""
        self.state = state
        self.tried.set()
        self.pod.publish()

    def say(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Tell the pod's owner of something that is about this container."""
        self.pod.event(type, reason, message, f"spec.{WHERE[self.kind]}{{{self.name}}}")
