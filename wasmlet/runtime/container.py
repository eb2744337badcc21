"""One container of a pod across all its instances: start, end, restart, as the kubelet does it.

The shim knows the instances (`wasmlet.worker.records`, `instances`). `pod` decides which container is to run; this
module keeps one running under its policy, with `starting` for its starts and `restarts` for the rules.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from wasmlet.model.pod import Container
from wasmlet.model.status import ContainerState, ContainerStatus, Terminated, Waiting
from wasmlet.runtime.instances import Kind, Labels, state_of
from wasmlet.runtime.restarts import duration, full_name, pauses
from wasmlet.runtime.starting import start
from wasmlet.runtime.waiting import first_of
from wasmlet.runtime.worker import ContainerRecord
from wasmlet.worker import wire

if TYPE_CHECKING:
    from wasmlet.runtime.pod import PodLife


class ContainerLife:
    """One container of one pod. Its state changes through `saw` (the shim) and `run` (its owner, the pod)."""

    def __init__(self, pod: PodLife, name: str, kind: Kind, waiting: str) -> None:
        self.pod = pod
        self.name = name
        self.kind = kind
        self.state: ContainerState = Waiting(waiting)
        self.record: ContainerRecord | None = None
        self.labels: Labels | None = None
        self.earlier: dict[int, ContainerRecord] = {}
        self.backoff = 0.0
        self._ended_at: float | None = None
        """When we saw the present instance end, on the monotonic clock; None if it had ended before we looked."""
        self.updated = asyncio.Event()

    @property
    def attempt(self) -> int:
        return self.labels.attempt if self.labels else 0

    @property
    def done(self) -> bool:
        """Whether it has ended well, as an init container has to."""
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    def status(self) -> ContainerStatus:
        before = self._before()
        spec = self.pod.pod and self.pod.pod.container(self.name)
        ready = self.done if self.kind == "init" else None
        return ContainerStatus(
            self.name,
            self.state,
            before,
            ready,
            restart_count=self.attempt,
            image=spec.image if spec else self.labels.image if self.labels else "",
            image_id=self.labels.image_id if self.labels else "",
            container_id=f"wasm://{self.record.id}" if self.record else "",
        )

    def _before(self) -> Terminated | None:
        """The end before the present state: of this instance if it has ended and is to be run again, or of the last."""
        record = self.record
        if record is None or not record.ended or isinstance(self.state, Terminated):
            record = self.earlier.get(self.attempt - 1)
        state = state_of(record) if record else None
        return state if isinstance(state, Terminated) else None

    def saw(self, record: ContainerRecord, labels: Labels) -> None:
        """The shim says this of an instance."""
        if self.labels is None or labels.attempt > self.labels.attempt:
            if self.record is not None and self.labels is not None:
                self.earlier[self.labels.attempt] = self.record
            self.labels, self.record, self.backoff, self._ended_at = labels, record, labels.backoff, None
        elif labels.attempt == self.labels.attempt:
            if record.ended and self.record is not None and not self.record.ended:
                self._ended_at = self.pod.around.clock.monotonic()
            self.record = record
        else:
            self.earlier[labels.attempt] = record
            return
        self.state = state_of(record)

    def log_of(self, *, previous: bool) -> ContainerRecord | None:
        """The instance whose log is meant; None where there is no such instance."""
        if not previous:
            return self.record
        if self.record is not None and self.record.ended and not isinstance(self.state, Terminated):
            return self.record  # it waits to be run again, so the last one to run is the one before
        return self.earlier.get(self.attempt - 1)

    async def run(self) -> Terminated:
        """Keep the container running under its policy; return how it ended, once it is not to run again."""
        while True:
            if self.record is None:
                await start(self)
            ended = await self._end_or_change()
            if ended is None:
                self.backoff = 0.0  # the manifest has changed, and what failed before says nothing of what comes
            elif not self._restarts(ended):
                return ended
            else:
                await self._back_off(ended)
            await start(self)

    def _restarts(self, ended: Terminated) -> bool:
        policy = self.pod.spec.restart_policy
        if policy == "Always" and self.kind == "main":
            return True
        return policy != "Never" and ended.exit_code != 0

    async def _end_or_change(self) -> Terminated | None:
        """Wait for the end of the present instance; None if it was ended because its image has changed."""
        record = self.record
        assert record is not None
        client = self.pod.around.client
        while True:
            self.updated.clear()
            if self._image_changed() and not record.ended:
                self.say("Normal", "Killing", f"Container {self.name} definition changed, will be restarted")
                await client.stop(record.id, self.pod.spec.termination_grace_seconds)
                await client.wait(record.id, wire.ENDED)
                return None
            await first_of(client.wait(record.id, wire.ENDED), self.updated.wait())
            record = client.records.get(record.id, record)
            if record.ended:
                state = state_of(record)
                assert isinstance(state, Terminated)
                if record.fault == wire.BAD_ARTIFACT and self.labels is not None:
                    self.pod.around.compiler.discard(self.labels.image_id.removeprefix("sha256:"))
                return state

    def _image_changed(self) -> bool:
        return self.labels is not None and self.spec.image != self.labels.image

    async def _back_off(self, ended: Terminated) -> None:
        """Wait as long as the kubelet does before the next restart: not at all, then 10 s, doubling to 300 s."""
        clock = self.pod.around.clock
        ran = (ended.finished_at - ended.started_at).total_seconds() if ended.started_at and ended.finished_at else 0.0
        pause, self.backoff = pauses(self.backoff, ran)
        if self._ended_at is not None:
            since = clock.monotonic() - self._ended_at
        else:
            since = (clock.now() - ended.finished_at).total_seconds() if ended.finished_at else 0.0
        if since >= pause:
            return
        who = full_name(self.pod.key)
        self.say("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {who}")
        message = f"back-off {duration(pause)} restarting failed container={self.name} pod={who}"
        self.show(Waiting("CrashLoopBackOff", message))
        until = clock.monotonic() + pause - max(0.0, since)
        while (left := until - clock.monotonic()) > 0 and not self._image_changed():
            self.updated.clear()
            await first_of(clock.sleep(left), self.updated.wait())

    @property
    def spec(self) -> Container:
        """The container as the manifest has it now."""
        spec = self.pod.spec.container(self.name)
        assert spec is not None
        return spec

    def show(self, state: ContainerState) -> None:
        """The container's state is this, whatever the shim says of the last instance."""
        self.state = state
        self.pod.publish()

    def say(self, type: Literal["Normal", "Warning"], reason: str, message: str) -> None:  # noqa: A002
        """Tell the pod's owner of something that is about this container."""
        where = "initContainers" if self.kind == "init" else "containers"
        self.pod.event(type, reason, message, f"spec.{where}{{{self.name}}}")
