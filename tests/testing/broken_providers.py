"""Providers with one fault each, and the checks of the contract suite that have to find it.

Each is the reference provider but for what its docstring says. `test_contract_broken` runs the suite over every one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from wasmlet.errors import NotFound
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated
from wasmlet.provider import Change, LogOptions, NodeContext, NodeStatus, PodRecord, StatusChanged, Streams
from wasmlet.testing import ReferenceProvider

FOUND_BY: dict[type[ReferenceProvider], dict[str, str]] = {}
"""Provider to the checks that it fails (without their parameters), each with the method that its message names."""


def found_by(**checks: str) -> Any:
    """Which checks fail, under which name of a method."""

    def mark(provider: type[ReferenceProvider]) -> type[ReferenceProvider]:
        FOUND_BY[provider] = checks
        return provider

    return mark


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


@found_by(
    test_pod_status_of_an_unknown_pod="pod_status",
    test_pods_of_one_name_are_told_apart_by_uid="pod_status",
    test_delete_pod_ends_a_running_pod="pod_status",
    test_delete_pod_of_an_ended_pod_keeps_how_it_ended="pod_status",
    test_delete_pod_ends_by_force_when_the_grace_period_is_over="pod_status",
    test_delete_pod_without_grace_ends_at_once="pod_status",
    test_delete_pod_called_again_with_a_shorter_grace_hurries="pod_status",
    test_delete_pod_may_be_cancelled_and_called_again="pod_status",
    test_delete_pod_while_it_is_created="pod_status",
    test_pods_after_a_restart="pod_status",
)
class RaisesKeyErrorForUnknownPods(ReferenceProvider):
    """pod_status is a look into a dictionary."""

    async def pod_status(self, key: PodKey) -> PodStatus:
        return self.pods[key.uid].status


@found_by(
    test_delete_pod_ends_a_running_pod="delete_pod",
    test_delete_pod_of_an_unknown_pod="delete_pod",
    test_delete_pod_may_be_cancelled_and_called_again="delete_pod",
    test_delete_pod_while_it_is_created="delete_pod",
)
class RaisesKeyErrorForDeletedPods(ReferenceProvider):
    """delete_pod is one, too."""

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        if key.uid not in self.pods:
            raise KeyError(key.uid)
        return await super().delete_pod(key, grace_seconds)


@found_by(
    test_delete_pod_ends_a_running_pod="list_pods",
    test_pods_of_one_name_are_told_apart_by_uid="list_pods",
    test_delete_pod_of_an_ended_pod_keeps_how_it_ended="list_pods",
    test_delete_pod_ends_by_force_when_the_grace_period_is_over="list_pods",
    test_delete_pod_without_grace_ends_at_once="list_pods",
    test_delete_pod_called_again_with_a_shorter_grace_hurries="list_pods",
    test_delete_pod_may_be_cancelled_and_called_again="list_pods",
    test_delete_pod_while_it_is_created="delete_pod",
    test_many_pods_at_once="list_pods",
    test_pods_after_a_restart="list_pods",
)
class ListsDeletedPods(ReferenceProvider):
    """Never forgets."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.graves: dict[str, PodRecord] = {}

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        status = await super().delete_pod(key, grace_seconds)
        if status is not None:
            self.graves[key.uid] = PodRecord(key, status)
        return status

    async def list_pods(self) -> Sequence[PodRecord]:
        return [*await super().list_pods(), *self.graves.values()]


@found_by(
    test_delete_pod_ends_a_running_pod="delete_pod",
    test_delete_pod_ends_by_force_when_the_grace_period_is_over="delete_pod",
    test_delete_pod_without_grace_ends_at_once="delete_pod",
    test_delete_pod_called_again_with_a_shorter_grace_hurries="delete_pod",
)
class DeletesWithTheStatusBefore(ReferenceProvider):
    """Returns what the status was before it ended the pod."""

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        status = await self.pod_status(key)
        await super().delete_pod(key, grace_seconds)
        return status


@found_by(test_delete_pod_called_again_with_a_shorter_grace_hurries="delete_pod")
class IgnoresTheShorterGrace(ReferenceProvider):
    """The first delete decides how long a pod may take to end."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.deadlines: dict[str, float] = {}

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        now = asyncio.get_running_loop().time()
        deadline = self.deadlines.setdefault(key.uid, now + grace_seconds)
        return await super().delete_pod(key, max(0.0, deadline - now))


@found_by(
    test_delete_pod_ends_by_force_when_the_grace_period_is_over="delete_pod",
    test_delete_pod_without_grace_ends_at_once="delete_pod",
    test_delete_pod_called_again_with_a_shorter_grace_hurries="delete_pod",
)
class OnlyAsks(ReferenceProvider):
    """Ends nothing by force."""

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        return await super().delete_pod(key, 3600)


@found_by(test_delete_pod_may_be_cancelled_and_called_again="delete_pod")
class DiesOfACancelledDelete(ReferenceProvider):
    """Says of a pod that it is being ended already, although the call that did so was cancelled."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.ending: set[str] = set()

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        if key.uid in self.ending and key.uid in self.pods:
            raise RuntimeError("being ended already")
        if grace_seconds == 30:
            self.ending.add(key.uid)
            await asyncio.sleep(0)
        return await super().delete_pod(key, grace_seconds)


@found_by(
    test_delete_pod_while_it_is_created="delete_pod", test_create_pod_may_be_cancelled_and_called_again="create_pod"
)
class StartsInTheBackground(ReferenceProvider):
    """Starts pods in tasks that nobody cancels, twice where it is told twice."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.tasks: list[asyncio.Task[None]] = []

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        start = super().create_pod

        async def begin() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            before = self.pods.pop(pod.uid, None)
            await start(pod, inputs)
            if before is not None:
                for name, lines in before.logs.items():
                    self.pods[pod.uid].logs[name][:0] = lines

        if pod.uid not in self.pods:
            self.tasks.append(asyncio.create_task(begin()))
            await asyncio.shield(self.tasks[-1])


@found_by(test_pods_do_not_wait_for_each_other="create_pod")
class DoesOneThingAtATime(ReferenceProvider):
    """Has one lock for all pods, and keeps it while a pod ends."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.lock = asyncio.Lock()

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        async with self.lock:
            await super().create_pod(pod, inputs)

    async def delete_pod(self, key: PodKey, grace_seconds: float) -> PodStatus | None:
        async with self.lock:
            return await super().delete_pod(key, grace_seconds)


@found_by(test_pod_status_makes_way_for_other_calls="pod_status")
class KeepsItsLock(ReferenceProvider):
    """Has a lock for each pod, which a call for the pod's status that is cancelled never lets go."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.locks: dict[str, asyncio.Lock] = {}

    async def pod_status(self, key: PodKey) -> PodStatus:
        status = await super().pod_status(key)
        lock = self.locks.setdefault(key.uid, asyncio.Lock())
        await lock.acquire()
        await asyncio.sleep(0)
        lock.release()
        return status


@found_by(test_update_pod_restarts_nothing="update_pod")
class RestartsOnUpdate(ReferenceProvider):
    """Takes every update for a new pod."""

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        self._held(pod.key)
        del self.pods[pod.uid]
        await self.create_pod(pod, inputs)


@found_by(test_update_pod_starts_nothing="update_pod")
class StartsOnUpdate(ReferenceProvider):
    """Creates what it does not know."""

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        await self.create_pod(pod, inputs)


@found_by(test_the_event_loop_is_not_held_up="every method")
class HoldsUpTheLoop(ReferenceProvider):
    """Asks another machine in its update, and waits for the answer."""

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        time.sleep(0.8)  # noqa: ASYNC251 - which is the fault
        await super().update_pod(pod, inputs)


@found_by(
    test_what_is_left_out_is_unsupported="exec",
    test_streams_into_an_unknown_pod="exec",
    test_exec_passes_output_and_the_exit_code="exec",
    test_exec_passes_input_until_its_end="exec",
    test_exec_without_input_has_none="exec",
    test_exec_ends_when_its_caller_leaves="exec",
    test_exec_where_nothing_runs="exec",
)
class DoesNotImplementExec(ReferenceProvider):
    """Says that it has no exec with Python's word for it."""

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        raise NotImplementedError


@found_by(
    test_logs_tail_lines="logs",
)
class GivesAllForATailOfNothing(ReferenceProvider):
    """lines[-0:]"""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        async for piece in super().logs(key, container, attrs.evolve(options, tail_lines=options.tail_lines or None)):
            yield piece


@found_by(test_logs_follow_ends_with_the_container="logs")
class FollowsForEver(ReferenceProvider):
    """Waits for more of a container that has ended."""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        async for piece in super().logs(key, container, options):
            yield piece
        if options.follow:
            await asyncio.Event().wait()


@found_by(test_logs_of_what_is_not_there="logs")
class HasLogsOfAnybody(ReferenceProvider):
    """The log of what it does not know is empty."""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in super().logs(key, container, options):
                yield piece
        except NotFound:
            return


@found_by(test_logs_limit_bytes="logs")
class LimitsNothing(ReferenceProvider):
    """Leaves limit_bytes to others."""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        async for piece in super().logs(key, container, attrs.evolve(options, limit_bytes=None)):
            yield piece


@found_by(test_node_status_is_valid="node_status")
class MeasuresInWords(ReferenceProvider):
    """Has a capacity that no scheduler can read."""

    async def node_status(self) -> NodeStatus:
        return NodeStatus(capacity={"cpu": "2 cores"})


@found_by(test_ping_returns="ping", test_the_event_loop_is_not_held_up="ping")
class IsNotWell(ReferenceProvider):
    """Never answers a ping."""

    async def ping(self) -> None:
        await asyncio.Event().wait()


@found_by(test_stop_may_follow_a_start_that_failed="stop")
class StopsOnlyWhatStarted(ReferenceProvider):
    """Expects in stop what start has made."""

    async def start(self, context: NodeContext) -> None:
        await asyncio.sleep(0)
        self.directory = context.state_dir

    async def stop(self) -> None:
        del self.directory


class Restarts(ReferenceProvider):
    """Starts a container again when it has ended, of a pod whose manifest it has and whose restartPolicy is Always."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.manifests: dict[str, Pod] = {}

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        self.manifests[pod.uid] = pod
        await super().create_pod(pod, inputs)

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        self.manifests[pod.uid] = pod
        await super().update_pod(pod, inputs)

    async def pod_status(self, key: PodKey) -> PodStatus:
        status, manifest = await super().pod_status(key), self.manifests.get(key.uid)
        if manifest is None or manifest.restart_policy != "Always":
            return status
        containers = tuple(_started_again(container) for container in status.containers)
        self.pods[key.uid].status = attrs.evolve(status, containers=containers)
        return self.pods[key.uid].status


def _started_again(container: ContainerStatus) -> ContainerStatus:
    if not isinstance(ended := container.state, Terminated):
        return container
    state, count = Running(datetime.now(UTC)), container.restart_count + 1
    return attrs.evolve(container, state=state, last_state=ended, restart_count=count)


@found_by(test_a_container_that_ends_after_a_restart_is_started_again="pod_status")
class ForgetsManifests(Restarts):
    """Finds its pods again after a restart, and has no use for what it is told of them then."""

    async def start(self, context: NodeContext) -> None:
        await super().start(context)
        self.manifests.clear()

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        await ReferenceProvider.update_pod(self, pod, inputs)


@found_by(test_pods_after_a_restart="list_pods", test_what_ended_while_the_provider_was_away="list_pods")
class ForgetsWithItsProcess(ReferenceProvider):
    """Does not survive, although it is said to."""

    async def stop(self) -> None:
        self.pods.clear()


@found_by(test_nothing_is_there_at_first="list_pods")
class ListsAStranger(ReferenceProvider):
    """Has a pod that nobody created, until somebody does."""

    async def list_pods(self) -> Sequence[PodRecord]:
        ended = Terminated(0, finished_at=datetime.now(UTC))
        stranger = PodRecord(PodKey("default", "stranger", "0"), PodStatus((ContainerStatus("c", ended),)))
        return [stranger] if not self.created else await super().list_pods()


@found_by(
    test_the_status_of_an_ended_pod_stays="pod_status",
    test_create_pod_again_does_not_run_the_pod_twice="create_pod",
    test_pod_status_and_list_pods_agree="list_pods",
    test_changes_end_with_the_newest="changes",
    test_what_ended_while_the_provider_was_away="create_pod",
)
class EndsNow(ReferenceProvider):
    """A pod that has ended has always ended just now; without a stream of changes, each poll finds another status."""

    async def pod_status(self, key: PodKey) -> PodStatus:
        status = await super().pod_status(key)
        return attrs.evolve(status, containers=tuple(map(self._now, status.containers)))

    async def list_pods(self) -> Sequence[PodRecord]:
        return [PodRecord(record.key, await self.pod_status(record.key)) for record in await super().list_pods()]

    def changes(self) -> Any:
        return None

    @staticmethod
    def _now(container: ContainerStatus) -> ContainerStatus:
        if not isinstance(container.state, Terminated):
            return container
        return attrs.evolve(container, state=attrs.evolve(container.state, finished_at=datetime.now(UTC)))


@found_by(test_name_and_config="name")
class HasAFineName(ReferenceProvider):
    """Is called what no label may be."""

    name = "My Provider"


@found_by(test_name_and_config="Config")
class ExplainsNothing(ReferenceProvider):
    """Has a setting without a help text."""

    @attrs.frozen
    class Config:
        endpoint: str = "http://127.0.0.1"
