"""The status of pods that the agent has on disk and its provider does not know.

That happens when the provider or the machine was restarted.
"""

from __future__ import annotations

from datetime import datetime

import attrs

from wasmlet.errors import Refused, Rejected
from wasmlet.model.pod import Container, Pod
from wasmlet.model.status import (
    ENDED,
    LOST_EXIT_CODE,
    ContainerStatus,
    PodStatus,
    Running,
    Terminated,
    Waiting,
    phase_of,
)

SECRETS_GONE = "WaitingForSecrets"
_SECRETS_GONE = (
    "the machine was started anew, and this agent keeps secrets and tokens in memory only; the pod waits until its "
    "node loop hands it over again (--keep-secrets keeps them)"
)


def verdict(pod: Pod, last: PodStatus | None, complete: bool, now: datetime) -> PodStatus | None:
    """The status of a pod that the agent has kept and its provider does not know; None if it is to be started again.

    A pod that has ended for good keeps its status. A pod that had begun, and may not be started a second time, is lost.

    Args:
        last: the last status that was known; None if there was none.
        complete: whether its secrets and tokens are still there.
    """
    if last is not None and over(pod, last):
        return last
    if last is not None and begun(last) and (pod.deleting or pod.spec.get("restartPolicy") == "Never"):
        return ended(last, now)
    return None if complete else waiting(pod, SECRETS_GONE, _SECRETS_GONE)


def over(pod: Pod, status: PodStatus) -> bool:
    """Whether the pod has ended for good."""
    return phase_of(pod, status) in ENDED


def refused(pod: Pod, error: Refused | Rejected) -> PodStatus:
    """The status of a pod that the provider no longer takes."""
    if isinstance(error, Rejected):
        return PodStatus(phase="Failed", reason=error.reason, message=str(error))
    return waiting(pod, error.reason, str(error), error.container)


def waiting(pod: Pod, reason: str, message: str, container: str | None = None) -> PodStatus:
    """The status of a pod whose containers, or the one of that name, wait for something."""
    state = Waiting(reason, message)

    def statuses(containers: tuple[Container, ...]) -> tuple[ContainerStatus, ...]:
        return tuple(
            ContainerStatus(one.name, state, image=one.image) for one in containers if container in (None, one.name)
        )

    return PodStatus(statuses(tuple(pod.containers)), statuses(tuple(pod.init_containers)))


def begun(status: PodStatus) -> bool:
    """Whether any container was ever started."""
    everything = (*status.containers, *status.init_containers, *status.ephemeral_containers)
    return any(not isinstance(one.state, Waiting) or one.last_state is not None for one in everything)


def ended(status: PodStatus, now: datetime) -> PodStatus:
    """The same status, but each container that was running counts as ended, as a kubelet reports a lost container."""
    message = "The container could not be located when the pod was terminated"

    def end(one: ContainerStatus) -> ContainerStatus:
        if not isinstance(one.state, Running):
            return one
        state = Terminated(
            LOST_EXIT_CODE,
            "ContainerStatusUnknown",
            message,
            started_at=one.state.started_at,
            finished_at=now,
            container_id=one.container_id,
        )
        return attrs.evolve(one, state=state, ready=None, started=None)

    return attrs.evolve(
        status,
        containers=tuple(map(end, status.containers)),
        init_containers=tuple(map(end, status.init_containers)),
        ephemeral_containers=tuple(map(end, status.ephemeral_containers)),
    )
