"""Providers with one fault each in deleting and updating; see `tests.testing.broken_providers`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.testing.broken_providers import RunsTwice
from tests.testing.found_by import found_by
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import PodStatus
from wasmlet.provider import PodRecord
from wasmlet.testing import ReferenceProvider


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
    test_delete_pod_tells_which_signal_ended_a_container="delete_pod",
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
    test_delete_pod_tells_which_signal_ended_a_container="delete_pod",
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
class StartsInTheBackground(RunsTwice):
    """Starts pods in tasks that nobody cancels, twice where it is told twice."""

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.tasks: list[asyncio.Task[None]] = []

    async def create_pod(self, pod: Pod, inputs: Inputs) -> None:
        start = super().create_pod

        async def begin() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            await start(pod, inputs)

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
