"""How a pod ends: its grace period, its last status, and the calls that end it. `pod_task` decides when."""

from __future__ import annotations

import contextlib
from datetime import datetime

import attrs

from wasmlet.clock import Clock
from wasmlet.errors import NotFound, Refused
from wasmlet.kube import errors, paths
from wasmlet.kube.client import Client
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.model.status import Condition, PodStatus, phase_of
from wasmlet.model.times import parse
from wasmlet.node.pods import losses
from wasmlet.node.provider_calls import ProviderCalls
from wasmlet.node.services import NodeServices

LEAST_GRACE_SECONDS = 2.0
"""How long a pod has to end even if its grace period is over already, as with a kubelet."""
DRAIN_SLACK_SECONDS = 5.0
"""How long a drain waits for a pod beyond the time that the pod has to end."""
SHUTDOWN_MESSAGE = "Pod was terminated in response to imminent node shutdown."


def grace_seconds(pod: Pod, clock: Clock, *, began_before: bool, drain_by: float | None) -> float:
    """How many seconds the pod has to end.

    Args:
        began_before: its deletion began while no node loop was there: it has what is left of its grace period, and at
            least `LEAST_GRACE_SECONDS` of it.
        drain_by: when it has to have ended because the node ends, by the monotonic clock; None where the node goes on.
    """
    grace: float = pod.deletion_grace_seconds if pod.deleting else pod.termination_grace_seconds
    if began_before and grace > LEAST_GRACE_SECONDS:
        with contextlib.suppress(ValueError):  # a time beyond the year 9999
            left = (parse(pod.metadata["deletionTimestamp"]) - clock.now()).total_seconds()
            grace = max(LEAST_GRACE_SECONDS, min(grace, left))
    return grace if drain_by is None else min(grace, max(0.0, drain_by - clock.monotonic()))


def shut_down_status(pod: Pod, status: PodStatus | None, now: datetime) -> PodStatus:
    """The last status of a pod that ended because the node does: Failed, unless it has succeeded (KEP-2000)."""
    last = losses.with_losses(pod, status, now)
    if phase_of(pod, last, final=True) == "Succeeded":
        return last
    disrupted = Condition("DisruptionTarget", "True", "TerminationByKubelet", SHUTDOWN_MESSAGE)
    return attrs.evolve(
        last,
        phase="Failed",
        reason="Terminated",
        message=SHUTDOWN_MESSAGE,
        conditions=(*last.conditions, disrupted),
    )


async def tell_before_end(services: NodeServices, calls: ProviderCalls, pod: Pod) -> None:
    """Give the provider the manifest of a pod that it has run since before this node loop began.

    The manifest may ask for something to be done before the end (preStop).

    Raises:
        Interrupted: something else is due now.
    """
    with contextlib.suppress(NotFound, Refused):
        await calls.run(services.provider.update_pod(pod, Inputs()), services.call_seconds)


async def end(services: NodeServices, calls: ProviderCalls, pod: Pod, grace: float, *, keep: bool) -> PodStatus | None:
    """Have the provider end the pod; its last status, None where the provider has none to tell.

    Args:
        keep: the pod stays in the API, so its logs must still be readable.

    Raises:
        Interrupted: something else is due now, such as an end with a shorter grace period.
    """
    provider = services.provider
    call = provider.end_pod(pod.key, grace) if keep else provider.delete_pod(pod.key, grace)
    try:
        with services.metrics.provider_call("end_pod" if keep else "delete_pod"):
            return await calls.run(call, grace + services.call_seconds)
    except NotFound:
        return None


async def have_forgotten(client: Client, pod: Pod) -> None:
    """Delete the pod's object from the API. An object with finalizers stays until they are removed.

    Raises:
        ApiError: it was not deleted. Also if the API server says that there is no such pod: then either the watch will
            say so, too, or the API server does not know the pod yet (its admission plugin NodeRestriction learns of
            pods from a watch), and another try is needed.
    """
    options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
    try:
        await client.delete(paths.pod(pod.key), options)
    except errors.Conflict:
        with contextlib.suppress(errors.ObjectNotFound):
            found = await client.get(paths.pod(pod.key))
            if found["metadata"]["uid"] == pod.uid:
                raise
        # Another pod has its name, so this one is gone.
