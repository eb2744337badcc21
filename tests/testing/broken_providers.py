"""Providers with one fault each, and the checks of the contract suite that have to find it.

Each is the reference provider but for what its docstring says. `test_contract_broken` runs the suite over every one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import attrs

from tests.testing.found_by import found_by
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import PodStatus, Running
from wasmlet.provider import Change, PodRecord, StatusChanged
from wasmlet.testing import ReferenceProvider


@found_by(
    test_create_pod_again_does_not_run_the_pod_twice="create_pod",
    test_create_pod_may_be_cancelled_and_called_again="create_pod",
    test_pods_after_a_restart="stop",
    test_what_ended_while_the_provider_was_away="create_pod",
)
class RunsTwice(ReferenceProvider):
    """Starts a pod whenever it is told to."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        before = self.pods.pop(pod.uid, None)
        await super().create_pod(pod, inputs)
        if before is not None:
            for name, lines in before.logs.items():
                self.pods[pod.uid].logs[name][:0] = lines


@found_by(test_create_pod_runs_every_container="create_pod", test_delete_pod_ends_a_running_pod="create_pod")
class WaitsForTheContainers(ReferenceProvider):
    """Returns from create_pod when the containers have ended, where there are several."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        await super().create_pod(pod, inputs)
        if len(pod.containers) > 1:
            while (await self.pod_status(pod.key)).running:  # noqa: ASYNC110 - a provider that waits like this is what is broken here
                await asyncio.sleep(0.01)


@found_by(test_pods_of_one_name_are_told_apart_by_uid="list_pods")
class GoesByName(ReferenceProvider):
    """Takes a pod of a name that it has for the pod that it has."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        for held in list(self.pods.values()):
            if held.key.name == pod.name and held.key != pod.key:
                del self.pods[held.key.uid]
        await super().create_pod(pod, inputs)


@found_by(
    test_what_cannot_be_honoured_is_refused="create_pod",
)
class RefusesWithAValueError(ReferenceProvider):
    """Uses an error that the node loop takes for a fault."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        if pod.spec.get("hostPID"):
            raise ValueError("hostPID is not supported")
        await super().create_pod(pod, inputs)


@found_by(test_what_cannot_be_honoured_is_refused="create_pod")
class RefusesNothing(ReferenceProvider):
    """Ignores what it cannot honour."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        await super().create_pod(Pod({**pod.raw, "spec": {**pod.spec, "hostPID": False}}), inputs)


@found_by(test_what_cannot_be_honoured_is_refused="list_pods")
class HoldsWhatItRefused(ReferenceProvider):
    """Lists a pod that it has refused."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        await super().create_pod(Pod({**pod.raw, "spec": {**pod.spec, "hostPID": False}}), inputs)
        if pod.spec.get("hostPID"):
            await super().create_pod(pod, inputs)


@found_by(test_create_pod_runs_every_container="pod_status")
class KeepsNoTimeZone(ReferenceProvider):
    """Says when a container started in the time of nobody knows where."""

    async def pod_status(self, key: PodKey) -> PodStatus:
        return _naive(await super().pod_status(key))

    async def list_pods(self) -> Sequence[PodRecord]:
        return [attrs.evolve(record, status=_naive(record.status)) for record in await super().list_pods()]

    async def changes(self) -> AsyncGenerator[Change, None]:
        async for change in super().changes():
            yield attrs.evolve(change, status=_naive(change.status)) if isinstance(change, StatusChanged) else change


def _naive(status: PodStatus) -> PodStatus:
    containers = [
        attrs.evolve(c, state=Running(c.state.started_at.replace(tzinfo=None))) if isinstance(c.state, Running) else c
        for c in status.containers
    ]
    return attrs.evolve(status, containers=tuple(containers))


@found_by(test_create_pod_runs_every_container="pod_status", test_delete_pod_ends_a_running_pod="delete_pod")
class KnowsOneContainer(ReferenceProvider):
    """Has a status for the first container only."""

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        spec = {**pod.spec, "containers": pod.spec["containers"][:1]}
        await super().create_pod(Pod({**pod.raw, "spec": spec}), inputs)


@found_by(
    test_exit_codes_are_reported="pod_status",
    test_changes_tell_that_a_pod_runs_and_how_it_ended="changes",
    test_changes_are_about_the_right_pod="changes",
    test_nothing_is_lost_between_two_readers_of_changes="changes",
    test_delete_pod_of_an_ended_pod_keeps_how_it_ended="delete_pod",
    test_many_pods_at_once="pod_status",
    test_what_ended_while_the_provider_was_away="pod_status",
    test_a_container_that_ended_is_started_again="pod_status",
)
class LosesTheExitCode(ReferenceProvider):
    """Knows only that something went wrong, and not even that of 255."""

    def finish(self, key: PodKey, exit_code: int = 0, container: str | None = None) -> None:
        super().finish(key, exit_code % 255 and 1, container)


@found_by(
    test_changes_tell_that_a_pod_runs_and_how_it_ended="changes",
    test_changes_are_about_the_right_pod="changes",
    test_changes_end_with_the_newest="changes",
    test_nothing_is_lost_between_two_readers_of_changes="changes",
)
class ForgetsToTellTheEnd(ReferenceProvider):
    """Its stream says that pods start and never that they end."""

    async def changes(self) -> AsyncGenerator[Change, None]:
        async for change in super().changes():
            if not isinstance(change, StatusChanged) or change.status.running:
                yield change


@found_by(test_changes_are_about_the_right_pod="changes")
class ConfusesTwins(ReferenceProvider):
    """Its stream looks up the UID by the name of the pod, and so has the newer one's for the older."""

    async def changes(self) -> AsyncGenerator[Change, None]:
        async for change in super().changes():
            if isinstance(change, StatusChanged):
                twins = [key for key in self.created if key.name == change.key.name]
                change = attrs.evolve(change, key=twins[-1])
            yield change


@found_by(test_changes_end_with_the_newest="changes", test_an_ended_container_never_runs_again="changes")
class TellsOldNews(ReferenceProvider):
    """Follows the end of a pod with a status from before."""

    async def changes(self) -> AsyncGenerator[Change, None]:
        last: dict[str, Change] = {}
        async for change in super().changes():
            yield change
            if isinstance(change, StatusChanged) and change.key.uid in last:
                yield last[change.key.uid]
            elif isinstance(change, StatusChanged):
                last[change.key.uid] = change


@found_by(test_nothing_is_lost_between_two_readers_of_changes="changes")
class TellsWhoIsThere(ReferenceProvider):
    """A change that nobody was there to read is gone."""

    async def changes(self) -> AsyncGenerator[Change, None]:
        while not self._changes.empty():
            self._changes.get_nowait()
        async for change in super().changes():
            yield change


@found_by(test_changes_are_about_the_right_pod="changes", test_changes_end_with_the_newest="changes")
class StopsTelling(ReferenceProvider):
    """Its stream ends with the first end of a pod."""

    async def changes(self) -> AsyncGenerator[Change, None]:
        async for change in super().changes():
            yield change
            if isinstance(change, StatusChanged) and not change.status.running:
                return
