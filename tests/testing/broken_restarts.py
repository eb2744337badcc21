"""Providers with one fault each in how containers are started again and ended; see `tests.testing.broken_providers`."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from tests.testing.found_by import found_by
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey, Raw
from wasmlet.model.status import PodStatus, Terminated
from wasmlet.testing import ReferenceProvider


def _with_policy(pod: Pod, policy: str) -> Pod:
    return Pod({**pod.raw, "spec": {**pod.spec, "restartPolicy": policy}})


@found_by(test_a_container_that_ended_is_started_again="pod_status")
class IgnoresTheRestartPolicy(ReferenceProvider):
    """Leaves every container as it ended."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        await super().create_pod(_with_policy(pod, "Never"), inputs)

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        await super().update_pod(_with_policy(pod, "Never"), inputs)


@found_by(test_a_container_that_succeeded_is_done_on_failure="pod_status")
class NeverHasEnough(ReferenceProvider):
    """Takes OnFailure for Always."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        again = "Always" if pod.restart_policy == "OnFailure" else pod.restart_policy
        await super().create_pod(_with_policy(pod, again), inputs)


@found_by(test_delete_pod_tells_which_signal_ended_a_container="delete_pod")
class TellsTheSignalItself(ReferenceProvider):
    """Reports the number of the signal in place of 128 plus that number."""

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        status = await super().delete_pod(key, grace_seconds)
        return status and _changed(status, lambda code: code - 128 if code in (137, 143) else code)


def _changed(status: PodStatus, change: Callable[[int], int]) -> PodStatus:
    containers = tuple(
        attrs.evolve(each, state=attrs.evolve(each.state, exit_code=change(each.state.exit_code)))
        if isinstance(each.state, Terminated)
        else each
        for each in status.containers
    )
    return attrs.evolve(status, containers=containers)


@found_by(test_stats_are_a_summary="stats")
class MeasuresNonsense(ReferenceProvider):
    """Has stats that nobody can read."""

    async def stats(self) -> Raw:
        return {"nonsense": 1}


@found_by(test_stats_are_a_summary="stats")
class MeasuresInWords(ReferenceProvider):
    """Writes figures as a manifest does."""

    async def stats(self) -> Raw:
        summary = await super().stats()
        for pod in summary["pods"]:
            pod["containers"] = [each | {"memory": {"workingSetBytes": "4Mi"}} for each in pod["containers"]]
        return summary


@found_by(
    test_what_is_left_out_is_unsupported="stats",
    test_stats_are_a_summary="stats",
)
class LosesItsConnection(ReferenceProvider):
    """Lets an error of the system through, for which a caller gets 500."""

    async def stats(self) -> Raw:
        raise ConnectionRefusedError("nobody measures")
