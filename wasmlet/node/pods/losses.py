"""Lost containers, whose end nobody saw, and the restart counts of the containers that take their place.

A provider may have lost a pod that the API remembers (its machine was restarted, its records are gone). The kubelet
reports such a container as ContainerStatusUnknown with exit code 137; the one that takes its place is a restart, and a
restart count never goes down. Pure functions, used by `wasmlet.node.pods.pod_task`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated, lost
from wasmlet.model.times import parse

_KINDS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def has_run(current: Raw) -> bool:
    """Whether a container of the pod has run, by its status in the API (`current`)."""
    states = [c.get("state") or {} for c in current.get("containerStatuses") or ()]
    return any("running" in state or "terminated" in state for state in states)


def with_losses(pod: Pod, status: PodStatus | None, now: datetime) -> PodStatus:
    """The last status of a pod that is gone: what has no end on record is ContainerStatusUnknown, exit code 137."""
    status = status or PodStatus()
    pairs = (
        (pod.containers, status.containers),
        (pod.init_containers, status.init_containers),
        (pod.ephemeral_containers, status.ephemeral_containers),
    )
    if all(_all_ended(*pair) for pair in pairs):  # mostly so
        return status
    return attrs.evolve(
        status,
        containers=_ended(pod, pod.containers, status.containers, now),
        init_containers=_ended(pod, pod.init_containers, status.init_containers, now),
        ephemeral_containers=_ended(pod, pod.ephemeral_containers, status.ephemeral_containers, now),
    )


@attrs.frozen
class EarlierInstances:
    """What went before the container that the provider now runs: its restarts, and how the last instance ended."""

    restarts: int
    ended: Terminated | None = None


def reported_before(current: Raw, known: PodStatus | None) -> dict[str, EarlierInstances]:
    """By container, the restarts that the API has and the provider does not count. They are added to its count."""
    found = {}
    for entry in _entries(current):
        mine = known.container(entry["name"]) if known is not None else None
        if (missing := int(entry.get("restartCount") or 0) - (mine.restart_count if mine else 0)) > 0:
            found[entry["name"]] = EarlierInstances(missing)
    return found


def lost_before(pod: Pod, current: Raw, now: datetime) -> dict[str, EarlierInstances]:
    """By container, what precedes the next instance: all earlier restarts, one more, and a ContainerStatusUnknown."""
    found = {}
    for entry in _entries(current):
        (status,) = lost(pod, now, [entry["name"]])
        assert isinstance(status.state, Terminated)
        found[entry["name"]] = EarlierInstances(int(entry.get("restartCount") or 0) + 1, status.state)
    return found


def most(one: Mapping[str, EarlierInstances], other: Mapping[str, EarlierInstances]) -> dict[str, EarlierInstances]:
    """By container, the one of the two that counts more restarts."""
    return {**one, **{name: new for name, new in other.items() if name not in one or one[name].restarts < new.restarts}}


def counting(status: PodStatus, earlier: Mapping[str, EarlierInstances]) -> PodStatus:
    """The status with the earlier restarts added, and with the end of the earlier instance."""

    def count(container: ContainerStatus) -> ContainerStatus:
        if (known := earlier.get(container.name)) is None:
            return container
        restarts = container.restart_count + known.restarts
        return attrs.evolve(container, restart_count=restarts, last_state=container.last_state or known.ended)

    return attrs.evolve(
        status,
        containers=tuple(map(count, status.containers)),
        init_containers=tuple(map(count, status.init_containers)),
        ephemeral_containers=tuple(map(count, status.ephemeral_containers)),
    )


def never_fewer(wanted: dict[str, Any], current: Raw) -> None:
    """Raise each restart count in `wanted` to that of the API: a container that has not started again yet has 0."""
    counts = {entry["name"]: int(entry.get("restartCount") or 0) for entry in _entries(current)}
    for kind in _KINDS:
        for entry in wanted.get(kind) or ():
            entry["restartCount"] = max(entry["restartCount"], counts.get(entry["name"], 0))


def ends_in_api(current: Raw) -> PodStatus:
    """The containers that have ended according to the API, as a `PodStatus`."""

    def ends(key: str) -> tuple[ContainerStatus, ...]:
        return tuple(
            ContainerStatus(
                entry["name"],
                _terminated(ended),
                restart_count=int(entry.get("restartCount") or 0),
                image=entry.get("image", ""),
                image_id=entry.get("imageID", ""),
                container_id=entry.get("containerID", ""),
            )
            for entry in current.get(key) or ()
            if (ended := (entry.get("state") or {}).get("terminated"))
        )

    return PodStatus(ends("containerStatuses"), ends("initContainerStatuses"), ends("ephemeralContainerStatuses"))


def _terminated(raw: Raw) -> Terminated:
    return Terminated(
        exit_code=int(raw["exitCode"]),
        reason=str(raw.get("reason") or ""),
        message=str(raw.get("message") or ""),
        signal=raw.get("signal"),
        started_at=parse(raw["startedAt"]) if raw.get("startedAt") else None,
        finished_at=parse(raw["finishedAt"]) if raw.get("finishedAt") else None,
        container_id=str(raw.get("containerID") or ""),
    )


def failed_by_loss(pod: Pod, current: Raw, now: datetime) -> PodStatus | None:
    """The last status of a pod whose containers are lost, if its restart policy forbids to start it again; else None.

    OnFailure forbids it if a container has completed: the API refuses a completed container that runs again, and a
    provider cannot start only some containers of a pod.
    """
    ends = ends_in_api(current)
    completed = any(isinstance(c.state, Terminated) and c.state.exit_code == 0 for c in ends.containers)
    if pod.restart_policy == "Never" or (completed and pod.restart_policy == "OnFailure"):
        return attrs.evolve(with_losses(pod, ends, now), phase="Failed")
    return None


def in_service(status: PodStatus, current: Raw) -> PodStatus:
    """The status of a pod from before this node loop began. If it does not say what is ready, the API's word stays."""
    known = {entry.get("containerID"): entry for entry in _entries(current)}

    def go_on(container: ContainerStatus) -> ContainerStatus:
        entry = known.get(container.container_id)
        if entry is None or not isinstance(container.state, Running):
            return container
        ready = bool(entry.get("ready")) if container.ready is None else container.ready
        started = bool(entry.get("started")) if container.started is None else container.started
        return attrs.evolve(container, ready=ready, started=started)

    return attrs.evolve(
        status,
        containers=tuple(map(go_on, status.containers)),
        init_containers=tuple(map(go_on, status.init_containers)),
    )


def _all_ended(containers: Sequence[Container], statuses: Sequence[ContainerStatus]) -> bool:
    """Whether each of these containers has ended, and nothing else is there."""
    return len(containers) == len(statuses) and all(
        container.name == status.name and isinstance(status.state, Terminated)
        for container, status in zip(containers, statuses, strict=True)
    )


def _entries(current: Raw) -> list[Raw]:
    return [entry for kind in _KINDS for entry in current.get(kind) or ()]


def _ended(
    pod: Pod, containers: Sequence[Container], statuses: Iterable[ContainerStatus], now: datetime
) -> tuple[ContainerStatus, ...]:
    ended = {s.name: s for s in statuses if isinstance(s.state, Terminated)}
    missing = [c.name for c in containers if c.name not in ended]
    filled = {s.name: s for s in lost(pod, now, missing)}
    return tuple((ended | filled)[c.name] for c in containers)
