"""The life of a pod, from the first time that it is accepted until it is deleted or fails.

One task per pod runs it; records from the shim arrive through `saw`. `order` decides in which order its containers
run, and `container` holds the state of each.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

import structlog

from wasmlet.concurrency import let_go
from wasmlet.errors import Refused
from wasmlet.failures import described, text_of
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod, PodKey, Raw
from wasmlet.model.status import Condition, PodStatus, Terminated
from wasmlet.model.times import parse
from wasmlet.provider import PodEvent
from wasmlet.runtime import resizing
from wasmlet.runtime.failing import Failing, PodFailure
from wasmlet.runtime.files.volumes import PodVolumes
from wasmlet.runtime.handlers import Handler
from wasmlet.runtime.logs import files as log_files
from wasmlet.runtime.network.network import NetworkError
from wasmlet.runtime.pods import eviction, pod_status
from wasmlet.runtime.pods.container import ContainerLife
from wasmlet.runtime.pods.container_runner import ContainerRunner
from wasmlet.runtime.pods.order import Order
from wasmlet.runtime.pods.probes import Probe
from wasmlet.runtime.pods.restarts import POD_BACKOFF
from wasmlet.runtime.pods.sandbox import Sandbox
from wasmlet.runtime.services import RuntimeServices
from wasmlet.runtime.shim.instances import Labels, kinds_of
from wasmlet.runtime.shim.records import ContainerRecord

log = structlog.get_logger(__name__)


class PodLife:
    """One pod UID, from the first `accept` (or what the shim had of it before) to the end of `end`."""

    def __init__(self, services: RuntimeServices, key: PodKey) -> None:
        self.services = services
        self.key = key
        self._manifest: Pod | None = None
        self.inputs = Inputs()
        self.containers: dict[str, ContainerLife] = {}
        self._order: Order | None = None
        """There while containers are run: it refers to the pod, as the containers do. What does is let go at the latest
        when the pod has ended, so that its memory is free at once, without the garbage collector."""
        self.start_time: datetime | None = None
        tell = services.changes.teller
        self._failing = Failing(services.clock, services.background, tell(key, "Normal", "DeadlineExceeded"))
        self._failed = False
        self._resizing: Condition | None = None
        self._records: dict[str, ContainerRecord] = {}
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self.stopped = False
        """Whether `stop` has ended it for good."""
        self._published: PodStatus | None = None
        self._last: PodStatus | None = None
        """Its status when `end` was over; None before."""
        self.logs = log_files.of_pod(key.uid)
        self.volumes = PodVolumes(services.storage, services.clock, key.uid, tell(key, "Warning", "FailedMount"))
        self.sandbox = Sandbox(services, key, tell(key, "Warning", "FailedCreatePodSandBox"))

    @property
    def handler(self) -> Handler:
        """What runs the pod: the handler that it began with, else that of its RuntimeClass.

        Raises:
            Refused: the node does not offer it, or the RuntimeClass does not exist any more.
        """
        for record in self._records.values():
            labels = Labels.of(record.labels)
            if labels is not None and labels.handler:
                return self.services.handlers.of(labels.handler)
        if self.inputs.runtime_handler is None:
            name = self.manifest.spec.get("runtimeClassName")
            raise Refused("spec.runtimeClassName", f'RuntimeClass "{name}" does not exist')
        return self.services.handlers.of(self.inputs.runtime_handler)

    @property
    def accepted(self) -> bool:
        """Whether the pod's manifest is here; before that only what the shim says of it is known."""
        return self._manifest is not None

    @property
    def manifest(self) -> Pod:
        """The pod as it was accepted last."""
        assert self._manifest is not None
        return self._manifest

    def now(self) -> tuple[Pod, Inputs]:
        """The pod and its inputs as they are."""
        return self.manifest, self.inputs

    @property
    def ips(self) -> Sequence[str]:
        """Its own addresses, the main one first; empty where it has none (yet)."""
        return self.sandbox.ips

    @property
    def ports(self) -> Collection[int] | None:
        """See `wasmlet.runtime.network.dialing.Place`."""
        network = self.sandbox.network
        if network is not None and network.namespace:
            return None
        return {port for life in self.containers.values() for port in life.ports}

    def accept(self, pod: Pod, inputs: Inputs) -> None:
        """Run this pod, or go on with it; another time: it has changed."""
        first, self._manifest, self.inputs = self._manifest is None, pod, inputs
        waiting = "PodInitializing" if pod.init_containers else "ContainerCreating"
        for kind, container in kinds_of(pod):
            if container.name not in self.containers:
                shown = waiting if kind != "ephemeral" else "ContainerCreating"
                self.containers[container.name] = ContainerLife(self, container.name, kind, shown)
        if first:
            self._go_on(pod)
        self.resize()
        for life in self.containers.values():
            life.manifest_changed()
        if self._order is not None:
            self._order.grow()
        self._failing.pod_changed()
        self.volumes.changed.set()
        if self._task is None and not self._ending and not pod.deleting:
            self._task = self.services.background(self._drive())
        self.publish()

    def saw(self, record: ContainerRecord, labels: Labels) -> None:
        """The shim says this of one of the pod's containers."""
        before = self._records.get(record.id)
        self._records[record.id] = record
        if not self.accepted:
            self.volumes.adopt()
        if labels.user and self.services.users is not None:
            self.services.users.take(self.key.uid, labels.user)
        life = self.containers.get(labels.container)
        if life is None:
            life = self.containers[labels.container] = ContainerLife(
                self, labels.container, labels.kind, "ContainerCreating"
            )
        life.saw(record, labels)
        if record.ended and not record.made:
            self.volumes.unstaged(labels.container, labels.attempt, leaving=bool(record.leaving))
        if not record.ended:
            self.sandbox.listens(labels.container, labels.ports)
        elif life.record is record and (before is None or not before.ended):
            self.sandbox.closes(labels.container)  # once: later they may be open for the next instance already
        if self.accepted:
            self.sandbox.sync_ports(self.now)
        self.publish()

    def _go_on(self, pod: Pod) -> None:
        """Take over what the API and the records know from the time before this process."""
        begun = [datetime.fromtimestamp(record.created, UTC) for record in self._records.values()]
        started = pod.status.get("startTime")
        self.start_time = parse(started) if started else min(begun, default=self.services.clock.now())
        statuses = [*(pod.status.get("initContainerStatuses") or ()), *(pod.status.get("containerStatuses") or ())]
        for life in self.containers.values():
            life.adopt(statuses)

    def resize(self) -> None:
        """Take over changed resources, if that is possible now; called again when room may have been made."""
        lasting = [*self.manifest.init_containers, *self.manifest.containers]
        lives = {c.name: self.containers[c.name] for c in lasting if self.containers[c.name].allocated is not None}
        before = {name: life.applied_resources if life.lives else life.allocated or {} for name, life in lives.items()}
        resized = [c for c in lasting if c.name in lives and resizing.changed(before[c.name], c.resources)]
        self._resizing = None
        if resized:
            asked = self._with_overhead(container.resources for _, container in self._reserved())
            used = self.services.used(self.key)
            changes = [(container, before[container.name]) for container in resized]
            live = [name for name, life in lives.items() if self._resizes_memory(life)]
            self._resizing = resizing.verdict(changes, asked, used, self.services.capacity, live)
        if self._resizing is not None and self._resizing.reason == "Deferred":
            self.services.deferred.add(self.key.uid)
        else:
            self.services.deferred.discard(self.key.uid)
        for container in lasting if self._resizing is None else ():
            life = lives.get(container.name)
            if life is None:
                continue
            life.set_aside(container.resources)

    def _resizes_memory(self, life: ContainerLife) -> bool:
        """Whether a new limit of memory needs no restart: the kernel holds it, or nothing runs just now."""
        return not life.lives or (life.record is not None and self.services.client.holds_memory(life.record))

    def room_made(self) -> None:
        """Called when another pod has gone, which may make room for the resize that waits for it."""
        self.resize()
        self.publish()

    def requests(self) -> resizing.Amounts:
        """The resources that are reserved for the pod; empty once it has ended."""
        done = self._task is None or self._task.done()
        return {} if done else self._with_overhead(life.resources for life, _ in self._reserved())

    def _with_overhead(self, resources: Iterable[Raw]) -> resizing.Amounts:
        """The sum of these requests and of what the pod's RuntimeClass adds."""
        return resizing.total((*resources, {"requests": self.manifest.spec.get("overhead") or {}}))

    def _reserved(self) -> Sequence[tuple[ContainerLife, Container]]:
        """The containers that run side by side."""
        return [(self.containers[c.name], c) for kind, c in kinds_of(self.manifest) if kind in ("main", "sidecar")]

    def fail(self, reason: str, message: str, grace: float) -> None:
        """End the pod's containers and let it be Failed for this reason (`Evicted`), unless it is on its way already.

        Args:
            grace: how long its containers have, in seconds.
        """
        self._failing.fail(PodFailure(reason, message, grace))

    async def _drive(self) -> None:
        """Run the pod; an error of our own is reported and tried again, since nobody else would."""
        pauses, first = None, True
        while True:
            try:
                await self._run()
                return
            except Exception as error:
                pauses = pauses or POD_BACKOFF.pauses()
                log.warning("pod: running it failed, trying again", pod=str(self.key), **described(error, first=first))
                first = False
                text = f"error determining status: {type(error).__name__}: {text_of(error)}"
                self.event("Warning", "FailedSync", text, "")
                await self.services.clock.sleep(next(pauses))

    async def _run(self) -> None:
        """Run every container as the manifest says, to the end. Cancelled when the pod is deleted."""
        failing = self._failing
        if failing.failure is None:
            await failing.unless(self._run_containers(), lambda: (self.manifest, self.start_time))
        if failing.failure is not None and not self._failed:
            await self.stop_containers(failing.failure.grace)
            self._failed = True
            self.publish()
        # As at a kubelet, a pod that is done keeps its logs, and none of its volumes: no secret, no memory, no disk.
        try:
            await self.volumes.remove()
            await self.sandbox.leave()
        except (NetworkError, OSError) as error:  # the pod's deletion is another try
            log.warning("what a pod had that is done cannot be removed", pod=str(self.key), error=str(error))

    async def _run_containers(self) -> None:
        dense = self._dense()
        if not dense:
            self.volumes.user = await self.sandbox.user(self.manifest, self._records.values())
        runs = any(life.lives for life in self.containers.values())
        before = self.sandbox.ips
        await self.sandbox.join(self.now, dense=dense, runs=runs)
        if self.sandbox.ips != before:
            self.publish()
        await self.volumes.set_up(self.now)
        logs = self.services.state_dir / self.logs
        eviction_watch = eviction.watched(self.manifest, self.volumes, logs, self.services.clock, self._evict)
        async with self.volumes.kept(self.now), eviction_watch:
            order = self._order = Order(lambda: self.manifest, self.containers, self._keep)
            try:
                await order.run()
            finally:
                self._order = None
            await self.stop_containers(self.manifest.termination_grace_seconds)

    async def _keep(self, container: str) -> Terminated:
        ended = await ContainerRunner(self.containers[container]).run()
        self.sandbox.gives_up(container)
        return ended

    def _evict(self, message: str) -> None:
        self.event("Warning", "Evicted", message, "")
        self.fail("Evicted", message, 0)

    def _dense(self) -> bool:
        """Whether the pod shares its process, and so cannot have a user of its own."""
        try:
            return self.handler.dense
        except Refused:
            return False

    async def stop_containers(self, grace: float) -> None:
        """End whatever runs, sidecars last and in reverse, and return when it has ended. It ends even if cancelled."""
        await self.services.client.settled()  # what was just being started runs, too
        living = [life for life in self.containers.values() if life.lives]
        mains = [life.record.id for life in living if life.kind == "main" and life.record]
        created = {life.name: life.record.created for life in living if life.record}
        ends, later = [], mains
        for life in sorted(living, key=lambda life: created[life.name], reverse=True):
            after = later if life.kind == "sidecar" else ()
            ends.append(life.stop(grace, f"Stopping container {life.name}", after))
            if life.kind == "sidecar" and life.record:
                later = [*later, life.record.id]
        if len(ends) == 1:
            await ends[0]
            return
        for result in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    @contextlib.asynccontextmanager
    async def _read_on(self) -> AsyncGenerator[None, None]:
        """Continue the readiness probes while containers end, as a kubelet does."""
        living = [life for life in self.containers.values() if life.lives and self.accepted]
        readers = [asyncio.ensure_future(life.prober().read()) for life in living if Probe.of(life.spec, "Readiness")]
        try:
            yield
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def stop(self, grace: float) -> PodStatus:
        """End whatever runs, free all but the logs, and return the last status; a cancelled call is gone on with."""
        self._ending = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            let_go(self._task)
            self._task = None
        await self.services.client.settled()
        async with self._read_on():
            await self.stop_containers(grace)
        final = self.status()
        # The files go first, so that secrets are removed even if removing the network hangs.
        await self.volumes.remove()
        await self.sandbox.leave()
        self.stopped = True
        return final

    async def end(self, grace: float) -> PodStatus:
        """End whatever runs, free everything, and return the last status; a cancelled call is gone on with."""
        final = await self.stop(grace)
        left = await self.services.client.forget(list(self._records))
        if left or not self._records:
            self._records.clear()
            # Not before the shim has let go of them: it may still rename and compress some.
            await self.services.log_removals.of(self.services.state_dir / self.logs)
        self._records.clear()
        self.services.deferred.discard(self.key.uid)
        self.services.probe_counts.forget(self.key)
        if self.services.users is not None:
            self.services.users.free(self.key.uid)
        self._last = final
        self.containers.clear()
        return final

    def status(self) -> PodStatus:
        """The pod's status now."""
        if self._last is not None:
            return self._last
        if not self.accepted:
            return pod_status.of_containers(self.containers.values(), self.sandbox.ips)
        return pod_status.of_manifest(
            self.manifest,
            self.containers,
            self.sandbox.ips,
            pod_status.Verdict(self._failing.failure, self._resizing, failed=self._failed),
        )

    def life(self, container: str) -> ContainerLife | None:
        return self.containers.get(container)

    def publish(self) -> None:
        """Hand the status on, if it is another one now. What changes together is handed on once."""
        self.services.changes.status(self.key, self._news)

    def _news(self) -> PodStatus | None:
        status = self.status()
        if status == self._published:
            return None
        self._published = status
        return status

    def say(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Tell the pod's owner of something that is about the pod as a whole."""
        self.event(type, reason, message, "")

    def event(self, type: Literal["Normal", "Warning"], reason: str, message: str, field: str) -> None:  # noqa: A002
        """Tell the pod's owner of something."""
        self.services.changes.event(PodEvent(self.key, reason, message, type, field))
