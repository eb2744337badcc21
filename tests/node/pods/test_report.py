"""When the status of a pod is written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from wasmlet.clock import SystemClock
from wasmlet.model.pod import Pod
from wasmlet.model.status import ContainerStatus, PodStatus, Running, Terminated
from wasmlet.node.pods.report import PodReport
from wasmlet.node.services import NodeServices

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def pod(version: int, **metadata: Any) -> Pod:
    names = {"namespace": "default", "name": "p", "uid": "1", "resourceVersion": str(version)}
    return Pod({"metadata": names | metadata, "spec": {"containers": [{"name": "c"}]}, "status": {}})


def status(state: Running | Terminated) -> PodStatus:
    return PodStatus((ContainerStatus("c", state),))


def running(puts: asyncio.Queue[None], *, sending: bool = False, generation: int = 0) -> PodReport:
    """The report of a pod that runs; each write is put into the queue, and the first one has been.

    Args:
        generation: of the pod; 0 for an API server that does not set it.
        sending: the API has not answered that one.
    """
    services = SimpleNamespace(
        writer=SimpleNamespace(put=lambda *_: puts.put_nowait(None), sending=lambda _: sending),
        clock=SystemClock(),
        starting=set(),
        history=SimpleNamespace(seen=lambda _: None),
        metrics=SimpleNamespace(running_after=lambda _: None),
        node_ips=(),
    )
    report = PodReport(cast(NodeServices, services), pod(1, generation=generation), None)
    report.told(status(Running(NOW)))
    assert puts.qsize() == 1
    puts.get_nowait()
    return report


async def test_a_pod_that_ends_as_soon_as_it_is_deleted_is_written_once() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts)
    report.applied(pod(2, deletionTimestamp="2026-05-01T12:00:30Z"), rewound=False)
    assert puts.qsize() == 0
    report.told(status(Terminated(143)))
    assert puts.qsize() == 0
    report.say(status(Terminated(143)))
    assert puts.qsize() == 1
    report.close(drop=False)


async def test_containers_that_have_ended_are_written_soon_though_the_pod_takes_its_time_to_go() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts)
    report.applied(pod(2, deletionTimestamp="2026-05-01T12:00:30Z"), rewound=False)
    report.told(status(Terminated(143)))
    await asyncio.wait_for(puts.get(), 60)
    report.close(drop=False)


def answer(version: int, phase: str = "Running") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version)}, "status": {"phase": phase}}


@pytest.mark.parametrize(("phase", "last", "writes"), [("Failed", 143, 0), ("Failed", 1, 1), ("Running", 143, 1)])
async def test_the_last_status_is_written_only_where_it_is_news(phase: str, last: int, writes: int) -> None:
    puts = asyncio.Queue[None]()
    report = running(puts)
    report.told(status(Terminated(143)))
    puts.get_nowait()
    assert report._compose() is not None
    report._written(answer(2, phase))
    report.ended(status(Terminated(last)))
    report.say(status(Terminated(last)))
    assert puts.qsize() == writes
    report.close(drop=False)


@pytest.mark.parametrize(
    ("heard", "answered", "writes"),
    [((2,), 2, 0), ((2, 3), 2, 1), ((2, 3), 3, 1), ((2,), 3, 1), ((), 2, 0)],
    ids=["ours", "ours, then another's", "another's, then ours", "another's", "the answer first"],
)
async def test_only_a_change_of_somebody_elses_is_answered_while_a_write_is_under_way(
    heard: tuple[int, ...], answered: int, writes: int
) -> None:
    puts = asyncio.Queue[None]()
    report = running(puts, sending=True)
    for version in heard:
        report.applied(pod(version), rewound=False)
    assert puts.qsize() == 0
    report._written(answer(answered))
    assert puts.qsize() == writes
    report.applied(pod(answered), rewound=False)
    assert puts.qsize() == writes
    report.close(drop=False)


def changed(version: int, generation: int, **metadata: Any) -> Pod:
    """The pod with the status that `answer` has."""
    return Pod({**pod(version, generation=generation, **metadata).raw, "status": answer(version)["status"]})


def answered(report: PodReport, version: int, **changes: Any) -> None:
    """A write of the whole status arrives, on top of these changes of somebody else's."""
    patch = report._compose()
    assert patch is not None
    status = {
        key: value for key, value in {**report.current, **changes, **patch["status"]}.items() if value is not None
    }
    report._written({"metadata": {"resourceVersion": str(version)}, "status": status})


async def test_a_status_of_somebody_elses_is_answered_though_only_the_answer_to_a_write_tells_of_it() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts, generation=1)
    answered(report, 2)
    assert puts.qsize() == 0
    again = PodStatus((ContainerStatus("c", Running(NOW), restart_count=1),))
    report.told(again)
    puts.get_nowait()
    unready = [{**c, "status": "False"} for c in report.current["conditions"]]
    answered(report, 4, conditions=unready)  # whose event, of version 3, comes late
    assert puts.qsize() == 1
    patch = report._compose()
    assert patch is not None
    assert list(patch["status"]) == ["conditions"]
    report.close(drop=False)


async def test_an_api_server_that_drops_what_it_is_told_is_not_told_again() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts, generation=1)
    answered(report, 2)
    report.told(PodStatus((ContainerStatus("c", Running(NOW), restart_count=1),)))
    puts.get_nowait()
    assert report._compose() is not None
    report._written({"metadata": {"resourceVersion": "3"}, "status": report.current})
    assert puts.qsize() == 0
    report.close(drop=False)


@pytest.mark.parametrize("generation", [0, 1])
async def test_a_change_that_leaves_the_status_as_it_was_written_is_not_answered(generation: int) -> None:
    puts = asyncio.Queue[None]()
    report = running(puts, generation=generation)
    report._written(answer(2))
    report.applied(changed(3, generation, labels={"a": "b"}), rewound=False)
    assert puts.qsize() == (generation == 0)  # without generations, its spec may be another one
    report.close(drop=False)


async def test_a_change_is_answered_while_the_status_is_not_written() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts, generation=1)
    report._written(answer(2))
    report.say(status(Terminated(143)))
    assert puts.get_nowait() is None
    report.applied(changed(3, 1, labels={"a": "b"}), rewound=False)  # the API had no such pod, as it said, and has it
    assert puts.qsize() == 1
    report.close(drop=False)


async def test_a_status_of_somebody_elses_is_answered() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts, generation=1)
    report._written(answer(2))
    report.applied(pod(3, generation=1), rewound=False)
    assert puts.qsize() == 1
    report.close(drop=False)


async def test_what_was_heard_while_a_write_failed_is_taken_in_by_the_next_try() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts, sending=True)
    report.applied(pod(2), rewound=False)
    assert report._compose() is not None  # the write has failed, and is tried again
    report._written(answer(3))
    assert puts.qsize() == 0
    report.close(drop=False)


async def test_a_pod_that_takes_its_time_is_written_soon_after_it_was_deleted() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts)
    report.applied(pod(2, deletionTimestamp="2026-05-01T12:00:30Z"), rewound=False)
    await asyncio.wait_for(puts.get(), 60)
    report.applied(pod(3, deletionTimestamp="2026-05-01T12:00:30Z"), rewound=False)
    assert puts.qsize() == 1  # another change of it is written at once
    report.close(drop=False)


async def test_a_deletion_is_reported_though_the_answer_to_a_write_came_before_it() -> None:
    puts = asyncio.Queue[None]()
    report = running(puts)
    report._written({"metadata": {"resourceVersion": "3"}, "status": {"phase": "Running"}})
    report.applied(pod(2, generation=2, deletionTimestamp="2026-05-01T12:00:30Z"), rewound=False)
    await asyncio.wait_for(puts.get(), 60)
    report.applied(pod(3, generation=2, deletionTimestamp="2026-05-01T12:00:30Z"), rewound=False)
    assert puts.qsize() == 0  # nothing new
    report.close(drop=False)


def test_a_write_that_is_due_at_once_may_be_asked_for_twice_under_uvloop() -> None:
    async def ask_twice() -> None:
        puts = asyncio.Queue[None]()
        report = running(puts)
        report._pace = 0.1
        report._sent_at = asyncio.get_running_loop().time() - report._pace + 1e-4
        report.send()
        report.send()
        await asyncio.wait_for(puts.get(), 60)
        assert puts.qsize() == 0
        report.close(drop=False)

    uvloop.run(ask_twice())
