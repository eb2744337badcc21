"""One container of a pod, over all its instances: its state, what its status shows, and how an instance is ended.

An instance is one run of the container; a restart makes a new one. The present instance is the newest one. The shim
knows the instances (`wasmlet.runtime.shim`), `phases` has the states of a container, and `container_runner` keeps it
running by its restart policy. `order` decides which containers are to run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from wasmlet.concurrency import Event, in_thread
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.model.status import ContainerState, ContainerStatus, Running, Terminated, Waiting
from wasmlet.runtime.network import requests
from wasmlet.runtime.pods import hooks
from wasmlet.runtime.pods.actions import Asked
from wasmlet.runtime.pods.denials import Denials
from wasmlet.runtime.pods.ending import Endings
from wasmlet.runtime.pods.hooks import HookServices
from wasmlet.runtime.pods.instance_history import InstanceHistory, Seen
from wasmlet.runtime.pods.phases import Phase, PhaseEvent, after
from wasmlet.runtime.pods.pod_of_container import PodOfContainer
from wasmlet.runtime.pods.probes import Probe, Prober, ProbeResults, ProbeServices
from wasmlet.runtime.pods.resizer import Resize, Resizer
from wasmlet.runtime.resizing import changed, needs_restart
from wasmlet.runtime.shim.instances import WHERE, Kind, Labels, Target, state_of
from wasmlet.runtime.shim.records import ContainerRecord
from wasmlet.worker import wire


class ContainerLife:
    """One container of one pod. Its state changes through `saw` (the shim) and `run` (its owner, the pod).

    Attributes:
        state: the container state that its status shows.
        phase: its phase, see `phases`.
        instances: its instances that the shim knows. There is a present instance if and only if the phase is not
            WAITING, nor STARTING for the first time.
        backoff: seconds to wait after the present instance, or after the one that is being started.
        hook_error: why the postStart hook of the present instance failed, which ends it; "" where it has not.
        applied_resources: the resources of the present instance; empty before there is one.
        allocated: the resources that are reserved for the container; None until it was started once.
        tried: set once the first start was tried, whether it succeeded or not.
        updated: set when the manifest has changed, or the resources that are set aside, or an instance has ended.
        up: set once it has started, so that what comes after a sidecar may begin.
    """

    def __init__(self, pod_life: PodOfContainer, name: str, kind: Kind, waiting: str) -> None:
        self.pod_life = pod_life
        self.name = name
        self.kind = kind
        services = pod_life.services
        self.instances = InstanceHistory(services.clock)
        self.creating = Waiting(waiting)
        """Its state while nothing has gone wrong and an instance is on its way."""
        self.state: ContainerState = self.creating
        self.phase = Phase.WAITING
        self.backoff = 0.0
        self.hook_error = ""
        self.applied_resources: Raw = {}
        self.allocated: Raw | None = None
        self.start_sent = False
        """The shim was asked for an instance, and what has become of that is not known yet."""
        self.tried = Event()
        self.up = Event()
        self._post_start: Raw = {}
        """The postStart hook of the instance that is being started; empty where it has none, and once it is over."""
        self._probed = ProbeResults()
        self.updated = Event()
        self._resizer: Resizer | None = None
        """There from the first resize on: few containers have one."""
        self._resizing: asyncio.Task[None] | None = None
        self._endings = Endings(services.client, services.clock, services.background)
        self._denials = Denials()

    # What is known

    @property
    def target(self) -> Target:
        """The present instance, for commands in it."""
        return Target(self.pod_life.key, self.name)

    @property
    def record(self) -> ContainerRecord | None:
        """The present instance; None where there was none."""
        return self.instances.record

    @property
    def begun(self) -> bool:
        """Whether there is or was an instance of it."""
        return self.record is not None

    @property
    def resize_error(self) -> str:
        """Why the present instance cannot have the resources that are set aside for it; "" where it can."""
        return self._resizer.error if self._resizer is not None else ""

    @property
    def _manifest(self) -> Pod:
        return self.pod_life.manifest

    @property
    def spec(self) -> Container:
        """The container as the manifest has it now."""
        spec = self._manifest.container(self.name)
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
    def started(self) -> bool:
        """Whether its startup probe has succeeded, or a node loop before this one has seen it start."""
        return self._probed.started

    @property
    def lives(self) -> bool:
        """Whether there is a process of it."""
        return self.instances.lives

    @property
    def ports(self) -> tuple[int, ...]:
        """Of TCP, at which it may listen now."""
        labels, record = self.instances.labels, self.record
        if labels is None or record is None or record.state != wire.RUNNING:
            return ()
        if labels.ports is not None:
            return labels.ports
        spec = self._manifest.container(self.name) if self.pod_life.accepted else None
        return requests.declared(spec) if spec is not None else ()

    def status(self) -> ContainerStatus:
        instances, labels = self.instances, self.instances.labels
        spec = self._manifest.container(self.name) if self.pod_life.accepted else None
        ready, started = self._service(spec)
        runs = isinstance(self.state, Running)
        return ContainerStatus(
            self.name,
            self.state,
            instances.last_end(next_waits=isinstance(self.state, Waiting)),
            ready=ready,
            started=started,
            restart_count=instances.attempt,
            image=spec.image if spec else labels.image if labels else "",
            image_id=labels.image_id if labels else "",
            container_id=instances.container_id,
            resources=self.applied_resources if spec and runs else None,
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
        started = runs and (self._probed.started or (spec is not None and Probe.of(spec, "Startup") is None))
        ready = started and (self._probed.ready or (spec is not None and Probe.of(spec, "Readiness") is None))
        return ready, started

    def saw(self, record: ContainerRecord, labels: Labels) -> None:
        """The shim says this of an instance."""
        ours, self.start_sent = self.start_sent, False
        self._denials.saw(record, self.say, ours=ours)
        seen = self.instances.saw(record, labels)
        if seen is Seen.NEW_INSTANCE:
            self.backoff = labels.backoff
            self._probed = ProbeResults()
            self._happened(PhaseEvent.BEGIN)
        if seen is not Seen.NOTHING:
            self._shim_says(record)

    def _shim_says(self, record: ContainerRecord) -> None:
        """The present instance is in another state than before."""
        if record.ended:
            self._happened(PhaseEvent.END)
            self.updated.set()
        elif record.state == wire.RUNNING:
            self._happened(PhaseEvent.HOOK if self._post_start else PhaseEvent.RUN)
        if self.phase not in (Phase.REPLACING, Phase.POST_START):
            self.state = state_of(record)

    def _happened(self, event: PhaseEvent) -> None:
        self.phase = after(self.phase, event)

    def adopt(self, statuses: Sequence[Raw]) -> None:
        """Take over what the API server was told of an instance: a restarted node loop makes nothing unready."""
        if self.lives:
            self.applied_resources = self.allocated = self.spec.resources
        for status in statuses:
            if (
                self.lives
                and status.get("name") == self.name
                and status.get("containerID") == self.instances.container_id
            ):
                self.applied_resources = self.allocated = status.get("resources") or self.spec.resources
                self.probed(started=bool(status.get("started")), ready=bool(status.get("ready")))

    def probed(self, *, started: bool | None = None, ready: bool | None = None) -> None:
        """This is what probes say of the present instance; None: what they said before."""
        said = self._probed
        spec = self._manifest.container(self.name) if self.pod_life.accepted else None
        before = self._service(spec)
        self._probed = ProbeResults(
            said.started if started is None else started, said.ready if ready is None else ready
        )
        if self._probed.started:
            self.up.set()
        if self._service(spec) != before:
            self.pod_life.publish()

    def manifest_changed(self) -> None:
        """The pod was accepted anew: see whether that asks for anything."""
        self.updated.set()

    def set_aside(self, resources: Raw) -> None:
        """Have these resources from now on: at the next start, or now where that is possible."""
        before, self.allocated = self.applied_resources, resources
        if self.lives and changed(before, resources):
            if not needs_restart(self.spec, before, resources):
                self._resize()
            self.updated.set()

    def log_of(self, *, previous: bool) -> ContainerRecord | None:
        """The instance whose log is meant; None where there is no such instance."""
        record = self.record
        if not previous:
            return record
        if record is not None and record.ended and not isinstance(self.state, Terminated):
            return record  # it waits to be run again, so the last one to run is the one before
        return self.instances.earlier.get(self.instances.attempt - 1)

    # What is done

    def starts(self, post_start: Raw) -> None:
        """The next instance is tried.

        Args:
            post_start: its postStart hook; empty where it has none.
        """
        self.hook_error, self._post_start = "", post_start
        self._happened(PhaseEvent.START)

    def given(self, resources: Raw) -> None:
        """The next instance has been given these resources."""
        self.applied_resources = self.allocated = resources

    def hook_over(self, error: str) -> None:
        """The postStart hook of the present instance is over; `error` is why it failed, "" where it has not."""
        self.hook_error, self._post_start = error, {}
        self._happened(PhaseEvent.HOOK_OVER)
        if not error and self.record is not None:
            self.show(state_of(self.record))

    def is_replaced(self) -> None:
        """The present instance is ended for another one to take its place."""
        # Without a restart policy the API takes no container back that has ended, so it is not shown to.
        self._happened(PhaseEvent.REPLACE)

    def is_not_replaced(self) -> None:
        """Nobody starts another instance any more, if somebody was about to."""
        if self.phase is Phase.REPLACING:
            self._happened(PhaseEvent.GIVE_UP)
            if self.record is not None and self.record.ended:
                self._happened(PhaseEvent.END)
                self.show(state_of(self.record))

    def backs_off(self, waiting: Waiting) -> None:
        """The next instance has to wait, and this is shown meanwhile."""
        self._happened(PhaseEvent.BACK_OFF)
        self.show(waiting)

    def set_backoff(self, seconds: float) -> None:
        """How long to wait after the instance that is started next."""
        self.backoff = seconds

    async def forget_before(self, attempt: int) -> None:
        """Keep the last two instances, as the kubelet does; the log and record of older ones go."""
        if old := self.instances.before(attempt):
            services = self.pod_life.services
            left = await services.client.forget([record.id for record in old.values()])
            if left:
                await in_thread(services.remove_logs, [record.log for record in old.values()])
            self.instances.drop(old)

    async def stop(self, grace: float, message: str, after: Sequence[str] = ()) -> None:
        """End the present instance, and return when it has ended; see `ending`. Cancelled: it ends all the same.

        Args:
            grace: its grace period in seconds. One that is under way may be shortened, and gets no longer.
            message: of the Killing event.
            after: ids of the containers that have to end first.
        """
        record = self.record
        if record is None or record.ended:
            return
        if self._endings.under_way(record.id):
            self._endings.hurry(grace)
        else:
            self.say("Normal", "Killing", message)
            self._endings.begin(record.id, grace, pre_stop=self._pre_stop(record), after=after)
        await self._endings.ended()

    def _pre_stop(self, record: ContainerRecord) -> Callable[[], Awaitable[None]] | None:
        """What runs the preStop hook of this instance; None where there is none to run."""
        known = self.pod_life.accepted and record.state == wire.RUNNING
        hook = hooks.hook_of(self.spec, "preStop") if known else {}
        if not hook:
            return None

        async def run() -> None:
            services = self.pod_life.services
            ended = services.client.wait(record.id, wire.ENDED)
            try:
                await hooks.run(hook, self.spec, self.hook_services(), ended)
            except (WasmletError, OSError):
                # What a command has written may be secret: the kubelet does not tell it either.
                self.say("Warning", "FailedPreStopHook", "PreStopHook failed")

        return run

    def _resize(self) -> None:
        """Have the present instance's limits become those that are set aside for the container."""
        services = self.pod_life.services
        if self._resizer is None:
            self._resizer = Resizer(services.client, services.clock)
        self._resizer.try_again()
        if self._resizing is None or self._resizing.done():
            run = self._resizer.run(wanted=self._resize_wanted, resized=self._resized, published=self.pod_life.publish)
            self._resizing = services.background(run)

    def _resize_wanted(self) -> Resize | None:
        if self.record is None or self.record.ended or not changed(self.applied_resources, self.resources):
            return None
        if needs_restart(self.spec, self.applied_resources, self.resources):
            return None
        return Resize(self.record.id, self.resources)

    def _resized(self, resize: Resize) -> None:
        if self.record is not None and self.record.id == resize.container_id:
            self.applied_resources = resize.resources

    @property
    def asked(self) -> Asked:
        """The present instance as probes and hooks ask it."""
        pod = self.pod_life
        return Asked(self.target, pod.services.commands, lambda: pod.ips, lambda: pod.ports)

    def hook_services(self) -> HookServices:
        """What hooks of the present instance need."""
        return HookServices(self.asked, self.pod_life.services.clock, self.say)

    def prober(self) -> Prober:
        """Probes the present instance as the manifest says now."""
        node = self.pod_life.services
        services = ProbeServices(node.probe_counts, node.clock)
        return Prober(self.spec, self.asked, services, age=self.instances.age, probed=self.probed, say=self.say)

    def image_changed(self) -> bool:
        labels = self.instances.labels
        return labels is not None and self.spec.image != labels.image

    def show(self, state: ContainerState) -> None:
        """The container's state is this, whatever the shim says of the last instance."""
        self.state = state
        if not isinstance(state, Waiting) or state.reason != self.creating.reason:  # else it is on its way still
            self.tried.set()
        self.pod_life.publish()

    def say(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Tell the pod's owner of something that is about this container."""
        self.pod_life.event(type, reason, message, f"spec.{WHERE[self.kind]}{{{self.name}}}")
