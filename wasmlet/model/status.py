"""What a provider says of a pod: container states, and what follows from them.

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
    """Not started: `reason` is a word that kubectl shows as STATUS (`ContainerCreating`, `ErrImagePull`)."""

    reason: str = "ContainerCreating"
    message: str = ""


@attrs.frozen
class Running:
    """Started at `started_at` (aware, UTC) and not known to have ended."""

    started_at: datetime


@attrs.frozen
class Terminated:
    """Ended. `signal` is set where a signal ended it; `reason` is a kubelet's word (Completed, Error, OOMKilled)."""

    exit_code: int
    reason: str = ""
    message: str = ""
    signal: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    container_id: str = ""

    @property
    def cause(self) -> str:
        """`reason`, or what the exit code alone says."""
        return self.reason or ("Completed" if self.exit_code == 0 else "Error")


ContainerState = Waiting | Running | Terminated


@attrs.frozen
class ContainerStatus:
    """The state of one container.

    `ready` left None means "ready while running"; set it where readiness probes decide. `started` likewise; of a pod
    that is adopted, None means for both that what the API says of this very container goes on. `container_id` has the
    form `<runtime>://<id>`. `resources` (requests and limits) are those that the running container has been given and
    `allocated` the requests that the node has set aside for it, where they may differ from the manifest's (KEP-1287);
    None means that they do not. `recursive_read_only` says that its
    read-only mounts are so with all that is mounted below them (KEP-3857).
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
        return isinstance(self.state, Running) if self.ready is None else self.ready

    @property
    def is_started(self) -> bool:
        return isinstance(self.state, Running) if self.started is None else self.started


@attrs.frozen
class Condition:
    """A pod or node condition; `status` is "True", "False" or "Unknown". Transition times are kept by the node loop."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""


@attrs.frozen
class PodStatus:
    """Everything a provider knows of a pod.

    Containers that it leaves out are shown as waiting (ContainerCreating; PodInitializing while an init container
    has still to run). `phase` None means: compute it. `pod_ips` empty means that the pod has no address of its own.
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
        """The status of the container of that name among all three kinds, or None."""
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

    Pending until every regular init container has succeeded, every sidecar has started and every main container has
    been; then Running while anything runs or will be restarted; Succeeded when all main containers ended with 0 and
    none is to be restarted; Failed when all ended, at least one not with 0. A sidecar that is ended after the main
    containers does not count.

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
    """Whether a sidecar does not hold up what comes after it; one that has ended did, and is started again."""
    return status is not None and _begun(status) and (not isinstance(status.state, Running) or status.is_started)


def _succeeded(status: ContainerStatus | None) -> bool:
    return status is not None and isinstance(status.state, Terminated) and status.state.exit_code == 0


def lost(pod: Pod, finished_at: datetime | None, names: Iterable[str]) -> tuple[ContainerStatus, ...]:
    """Statuses for containers whose end nobody saw: ContainerStatusUnknown, exit code 137, as the kubelet reports."""
    message = "The container could not be located when the pod was terminated"
    ended = Terminated(LOST_EXIT_CODE, "ContainerStatusUnknown", message, finished_at=finished_at)
    images = {c.name: c.image for c in (*pod.containers, *pod.init_containers, *pod.ephemeral_containers)}
    return tuple(ContainerStatus(name, ended, image=images.get(name, "")) for name in names)
