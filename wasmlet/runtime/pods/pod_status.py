"""The status of a pod, made of those of its containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from wasmlet.model.pod import Pod
from wasmlet.model.status import Condition, ContainerStatus, PodStatus
from wasmlet.runtime import resizing
from wasmlet.runtime.failing import PodFailure
from wasmlet.runtime.pods.container import ContainerLife
from wasmlet.runtime.shim.instances import WHERE


@attrs.frozen
class Verdict:
    """What is known of the pod as a whole.

    Attributes:
        failure: why it is to fail; None where it is not.
        resizing: why its resources cannot be changed (now); None where they can.
        failed: its containers have ended because of the failure.
    """

    failure: PodFailure | None
    resizing: Condition | None
    failed: bool


def of_containers(containers: Iterable[ContainerLife], ips: tuple[str, ...]) -> PodStatus:
    """The status of a pod whose manifest is not here (yet): only what the shim says of its containers is known."""
    groups: dict[str, list[ContainerStatus]] = {where: [] for where in WHERE.values()}
    for life in containers:
        groups[WHERE[life.kind]].append(life.status())
    return PodStatus(
        tuple(groups["containers"]),
        tuple(groups["initContainers"]),
        tuple(groups["ephemeralContainers"]),
        pod_ips=ips,
    )


def of_manifest(
    manifest: Pod, containers: Mapping[str, ContainerLife], ips: tuple[str, ...], verdict: Verdict
) -> PodStatus:
    """The status of a pod, with its containers in the order of its manifest."""
    # Not before its containers have ended, and not after: the phase that they give is final, and has no reason.
    lives = any(life.lives or life.start_sent for life in containers.values())
    failure = verdict.failure if verdict.failed or not lives else None
    return PodStatus(
        tuple(containers[c.name].status() for c in manifest.containers),
        tuple(containers[c.name].status() for c in manifest.init_containers),
        tuple(containers[c.name].status() for c in manifest.ephemeral_containers),
        phase="Failed" if failure else None,
        reason=failure.reason if failure else "",
        message=failure.message if failure else "",
        pod_ips=ips,
        conditions=_conditions(containers.values(), verdict),
    )


def _conditions(containers: Iterable[ContainerLife], verdict: Verdict) -> tuple[Condition, ...]:
    failure = verdict.failure
    if failure is not None and failure.reason == "Evicted":
        return (Condition("DisruptionTarget", "True", "TerminationByKubelet", failure.message),)
    if verdict.resizing is not None:
        return (verdict.resizing,)
    lives = [life for life in containers if life.lives and life.allocated is not None]
    if any(resizing.changed(life.applied_resources, life.resources) for life in lives):
        error = "; ".join(f"container {life.name}: {life.resize_error}" for life in lives if life.resize_error)
        return (Condition("PodResizeInProgress", "True", "Error" if error else "", error),)
    return ()
