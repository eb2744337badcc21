"""The status of a pod as a provider reports it: the states of its containers, and the phase that follows from them.

A provider fills in `PodStatus` with one `ContainerStatus` per container; the phase is computed from them (see
`phase_of`) unless it sets one itself. `wasmlet.node.pods.status` turns it into the API's form with conditions.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import attrs

from wasmlet.model.pod import Pod, Raw
from wasmlet.model.restart import is_sidecar, restarts
from wasmlet.worker import wire

Phase = Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]

ENDED: tuple[Phase, ...] = ("Succeeded", "Failed")
"""The phases that a pod never leaves."""

LOST_EXIT_CODE = wire.LOST_CODE
"""Exit code of a container whose end nobody saw, as the kubelet reports it with ContainerStatusUnknown."""


@attrs.frozen
class Waiting:
    """The container has not started.

    Attributes:
        reason: a word that kubectl shows as STATUS (`ContainerCreating`, `ErrImagePull`).
        message: why, for people.
    """

    reason: str = "ContainerCreating"
    message: str = ""


@attrs.frozen
class Running:
    """The container has started, and is not known to have ended.

    Attributes:
        started_at: when (aware, UTC).
    """

    started_at: datetime


@attrs.frozen
class Terminated:
    """The container has ended.

    Attributes:
        exit_code: its exit code; 128 plus the signal's number if a signal ended it.
        reason: a kubelet's word (Completed, Error, OOMKilled); see `cause`.
        message: what it has left for people: its termination message, or why it could not run.
        signal: the signal that ended it, or None.
        started_at: when it started (aware, UTC), or None if nobody knows.
        finished_at: when it ended (aware, UTC), or None if nobody knows.
        container_id: the instance that ended, `<runtime>://<id>`.
    """

    exit_code: int
    reason: str = ""
    message: str = ""
    signal: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    container_id: str = ""

    @property
    def cause(self) -> str:
        """The reason, or without one what the exit code says: Completed or Error."""
        return self.reason or ("Completed" if self.exit_code == 0 else "Error")


ContainerState = Waiting | Running | Terminated


@attrs.frozen
class ContainerStatus:
    """The state of one container.

    Attributes:
        name: the container's name.
        state: what it is doing now.
        last_state: how its instance before this one ended, or None.
        ready: None means "ready while it runs". Set it if readiness probes decide. For a pod that this node loop found
            already running, None means that what the API says of this instance stays true.
        started: whether its startup probe has succeeded; None as for `ready`.
        restart_count: how often it was started again.
        image: the image's name.
        image_id: the image's digest.
        container_id: the instance, `<runtime>://<id>`.
        resources: requests and limits that the running container has; None if they are the manifest's (KEP-1287).
        allocated: requests that the node has set aside for it, likewise.
        recursive_read_only: whether its read-only mounts are read-only with all that is mounted below them (KEP-3857).
    """

    name: str
    state: ContainerState = Waiting()
    last_state: Terminated | None = None
    ready: bool | None = None
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = ""
    container_id: str = ""
    resources: Raw | None = None
    allocated: Raw | None = None
    recursive_read_only: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether it is ready, `ready` None taken into account."""
        return isinstance(self.state, Running) if self.ready is None else self.ready

    @property
    def is_started(self) -> bool:
        """Whether it has started, `started` None taken into account."""
        return isinstance(self.state, Running) if self.started is None else self.started


@attrs.frozen
class Condition:
    """A condition of a pod or a node. The node loop keeps the times of its transitions.

    Attributes:
        type: its name (`DiskPressure`).
        status: "True", "False" or "Unknown".
        reason: one word.
        message: a sentence for people.
    """

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""


@attrs.frozen
class PodStatus:
    """Everything that a provider knows of a pod.

    Attributes:
        containers: their states. One that is left out is shown as waiting: ContainerCreating, or PodInitializing while
            an init container has still to run.
        init_containers: likewise.
        ephemeral_containers: likewise.
        phase: None means that the node loop computes it from the states, as a kubelet does.
        reason: one word for the whole pod (`Evicted`), if there is one.
        message: a sentence about it.
        pod_ips: the pod's addresses; empty if it has none of its own.
        conditions: conditions beside those that the node loop sets.
        start_time: when the pod was accepted (aware, UTC), or None.
    """

    containers: tuple[ContainerStatus, ...] = ()
    init_containers: tuple[ContainerStatus, ...] = ()
    ephemeral_containers: tuple[ContainerStatus, ...] = ()
    phase: Phase | None = None
    reason: str = ""
    message: str = ""
    pod_ips: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    start_time: datetime | None = None

    def container(self, name: str) -> ContainerStatus | None:
        """The status of the container, init container or ephemeral container of that name, or None."""
        for status in (*self.containers, *self.init_containers, *self.ephemeral_containers):
            if status.name == name:
                return status
        return None

    @property
    def running(self) -> bool:
        """Whether any container runs now."""
        everything = (*self.containers, *self.init_containers, *self.ephemeral_containers)
        return any(isinstance(status.state, Running) for status in everything)


def restartable_init(pod: Pod) -> frozenset[str]:
    """Names of the init containers that are native sidecars (KEP-753: `restartPolicy: Always` on the container)."""
    return frozenset(c.name for c in pod.init_containers if is_sidecar(c))


def phase_of(pod: Pod, status: PodStatus, *, final: bool = False) -> Phase:
    """The phase that container states and restart policies give, by the kubelet's rules (`getPhase`).

    Pending until every regular init container has succeeded, every sidecar has started, and every main container has
    been started once. Then Running while anything runs or will be restarted. Succeeded when all main containers have
    ended with 0 and none is to be restarted. Failed when all have ended, and at least one not with 0. The exit code of
    a sidecar that is ended after the main containers does not count.

    `final` says that nothing will be started again (the pod is being deleted and has ended): then the phase is always
    a terminal one.
    """
    if status.phase is not None:
        return status.phase
    known = {c.name: c for c in (*status.init_containers, *status.containers)}
    if final:
        return "Succeeded" if all(_succeeded(known.get(c.name)) for c in pod.containers) else "Failed"
    begun = [_begun(known.get(c.name)) for c in pod.containers]
    for container in pod.init_containers:
        found = known.get(container.name)
        if is_sidecar(container):
            if not any(begun) and not _sidecar_started(found):
                return "Pending"
        elif not _succeeded(found):
            ended = found.state if found is not None else None
            lasting = isinstance(ended, Terminated) and not restarts(pod, container, ended.exit_code)
            return "Failed" if lasting else "Pending"
    if not all(begun):
        return "Pending"
    if any(isinstance(c.state, Running) for c in known.values()):
        return "Running"
    for container in pod.containers:
        state = known[container.name].state
        # A container that waits after it has run (back-off) will run again.
        if not isinstance(state, Terminated) or restarts(pod, container, state.exit_code):
            return "Running"
    return "Succeeded" if all(_succeeded(known[c.name]) for c in pod.containers) else "Failed"


def _begun(status: ContainerStatus | None) -> bool:
    """Whether the container was ever started."""
    return status is not None and (not isinstance(status.state, Waiting) or status.last_state is not None)


def _sidecar_started(status: ContainerStatus | None) -> bool:
    """Whether the containers after this sidecar may start. One that has ended had started, and is started again."""
    return status is not None and _begun(status) and (not isinstance(status.state, Running) or status.is_started)


def _succeeded(status: ContainerStatus | None) -> bool:
    return status is not None and isinstance(status.state, Terminated) and status.state.exit_code == 0


def lost(pod: Pod, finished_at: datetime | None, names: Iterable[str]) -> tuple[ContainerStatus, ...]:
    """Statuses for containers whose end nobody saw: ContainerStatusUnknown, exit code 137, as the kubelet reports."""
    message = "The container could not be located when the pod was terminated"
    ended = Terminated(LOST_EXIT_CODE, "ContainerStatusUnknown", message, finished_at=finished_at)
    images = {c.name: c.image for c in (*pod.containers, *pod.init_containers, *pod.ephemeral_containers)}
    return tuple(ContainerStatus(name, ended, image=images.get(name, "")) for name in names)
