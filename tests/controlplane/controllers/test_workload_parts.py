"""Parts of the controllers by themselves: the queue and its pauses, and the arithmetic of rollouts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from tests.controlplane.client import Object
from tests.controlplane.controllers.workloads import deployment, replica_set
from wasmlet.controlplane.controllers.workloads import revisions, rollout
from wasmlet.controlplane.controllers.workloads.queue import LAST_RETRY, LONG, REST, Key, Queue
from wasmlet.controlplane.storage.status import ApiError
from wasmlet.testing import FakeClock

KEY = ("default", "web")


@contextlib.asynccontextmanager
async def running(queue: Queue) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_refused_write_is_tried_again_after_pauses_that_double() -> None:
    clock, looks = FakeClock(), []

    def settle(key: Key) -> None:
        looks.append(clock.monotonic())
        raise ApiError(403, "Forbidden", "no")

    queue = Queue(clock, settle)
    async with running(queue):
        queue.add(KEY)
        for _ in range(12):
            await turns()
            clock.advance(await clock.next_sleep())
        await turns()
    pauses = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, LAST_RETRY, LAST_RETRY, LAST_RETRY]


async def test_many_changes_are_one_look_and_a_long_look_is_followed_by_a_rest() -> None:
    clock, looks = FakeClock(), []

    def settle(key: Key) -> None:
        looks.append(clock.monotonic())
        clock.advance(2 * LONG)

    queue = Queue(clock, settle)
    async with running(queue):
        for _ in range(100):
            queue.add(KEY)
        await turns()
        assert looks == [0.0]
        for _ in range(100):
            queue.add(KEY)
            await turns(3)
        assert looks == [0.0]
        assert await clock.next_sleep() == pytest.approx(REST * 2 * LONG)
        clock.advance(REST * 2 * LONG)
        await turns()
        assert len(looks) == 2


async def test_what_is_gone_is_not_looked_at() -> None:
    clock, looks = FakeClock(), []

    def settle(key: Key) -> float:
        looks.append(key)
        return 5.0

    queue = Queue(clock, settle)
    async with running(queue):
        queue.add(KEY)
        await turns()
        queue.add(KEY)
        queue.forget(KEY)
        clock.advance(10.0)
        await turns()
    assert looks == [KEY]


def scaled(size: int, before: int) -> Object:
    """A ReplicaSet of a Deployment that might have `before` pods at most."""
    made = replica_set(replicas=size)
    made["metadata"]["annotations"] = {rollout.MOST: str(before)}
    return made


def rolling(replicas: int, surge: int | str, unavailable: int | str) -> Object:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    return deployment(replicas=replicas, strategy=strategy)


@pytest.mark.parametrize(
    ("wanted", "sizes", "before", "expected"),
    [
        (15, [8, 5], 13, [11, 7]),  # the example of the documentation, of a Deployment of ten
        (5, [8, 5], 13, [5, 3]),
        (0, [8, 5], 13, [0, 0]),
        (10, [8, 5], 13, [8, 5]),
        (20, [10], 13, [23]),
    ],
)
def test_a_new_size_is_shared_in_proportion(wanted: int, sizes: list[int], before: int, expected: list[int]) -> None:
    active = [scaled(size, before) for size in sizes]
    assert rollout.proportions(rolling(wanted, 3, 2), active) == expected


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (4, "25%", "25%", (1, 1)),
        (2, "25%", "25%", (1, 0)),
        (10, 3, 2, (3, 2)),
        (3, 0, "10%", (0, 1)),  # rounded down to nothing, which would be no way forward
        (2, 1, 5, (1, 2)),
    ],
)
def test_limits(replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]) -> None:
    assert rollout.limits(rolling(replicas, surge, unavailable)) == expected


def test_a_revision_that_is_used_again_keeps_its_history() -> None:
    made = {"metadata": {"name": "web-1", "annotations": {revisions.REVISION: "1"}}}
    owner = deployment()
    owner["metadata"]["annotations"] = {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    again = revisions.annotated(made, owner, 3)["metadata"]["annotations"]
    assert again == {"note": "x", revisions.REVISION: "3", revisions.HISTORY: "1"}
    again = revisions.annotated({"metadata": {"annotations": again}}, owner, 5)["metadata"]["annotations"]
    assert again[revisions.HISTORY] == "1,3"


def test_templates_are_told_apart_by_what_they_say() -> None:
    one, same, other = deployment(), deployment(replicas=7), deployment(image="img:2")
    same["spec"]["template"]["metadata"]["creationTimestamp"] = None
    same["spec"]["template"]["metadata"]["labels"] = {
        **same["spec"]["template"]["metadata"]["labels"],
        "pod-template-hash": "x",
    }
    assert revisions.same_template(one, same)
    assert revisions.template_hash(one) == revisions.template_hash(same)
    assert not revisions.same_template(one, other)
    one["status"] = {"collisionCount": 1}
    assert revisions.template_hash(one) != revisions.template_hash(same)
