"""The event recorder: an object tells so much, a node sends so fast, and what repeats is counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.kube.server import serving
from wasmlet.kube.events import BURST, LOOK_SECONDS, MOST_DEFERRED_SECONDS, NODE_BURST, PER_SECOND, QUEUE, EventRecorder
from wasmlet.model.times import rfc3339
from wasmlet.testing import FakeClock


class Api:
    """Takes events, and remembers them by name."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.changed = asyncio.Condition()

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        async with self.changed:
            if request.method == "POST":
                self.events[body["metadata"]["name"]] = body
            else:
                self.events[request.path.rpartition("/")[2]].update(body)
            self.changed.notify_all()
        return web.json_response(body)

    async def has(self, count: int) -> None:
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: len(self.events) >= count)


def pod(number: int) -> dict[str, str]:
    return {"kind": "Pod", "namespace": "default", "name": f"pod-{number}", "uid": f"uid-{number}"}


async def test_a_node_sends_so_many_at_once_and_then_so_many_a_second(tmp_path: Path) -> None:
    api, clock = Api(), FakeClock()
    clock.advance(1000)
    async with serving(api.answer, tmp_path) as client, asyncio.timeout(60):
        recorder = EventRecorder(client, "node", clock=clock)
        sending = asyncio.create_task(recorder.run())
        for number in range(NODE_BURST + 2 * PER_SECOND):
            recorder.record(pod(number), "Started", "x")
        await api.has(NODE_BURST)
        for sent in range(2 * PER_SECOND):
            assert 0 < await clock.next_sleep() <= 1.001 / PER_SECOND
            assert len(api.events) == NODE_BURST + sent
            clock.advance(1 / PER_SECOND)
            await api.has(NODE_BURST + sent + 1)
        clock.advance(1)  # which makes up for so many as a second has
        for number in range(1000, 1000 + PER_SECOND + 1):
            recorder.record(pod(number), "Started", "x")
        await api.has(NODE_BURST + 3 * PER_SECOND)
        assert await clock.next_sleep() > 0
        sending.cancel()


async def test_events_wait_while_much_else_is_to_be_written_but_not_for_long(tmp_path: Path) -> None:
    api, clock, busy = Api(), FakeClock(), True
    async with serving(api.answer, tmp_path) as client, asyncio.timeout(60):
        recorder = EventRecorder(client, "node", clock=clock, busy=lambda: busy)
        sending = asyncio.create_task(recorder.run())
        recorder.record(pod(1), "Started", "x")
        while clock.monotonic() < MOST_DEFERRED_SECONDS:
            assert await clock.next_sleep() == pytest.approx(LOOK_SECONDS)
            assert not api.events
            clock.advance(LOOK_SECONDS)
        await api.has(1)
        for number in (2, 3):
            recorder.record(pod(number), "Started", "x")
        assert await clock.next_sleep() == pytest.approx(LOOK_SECONDS)
        busy = False
        clock.advance(LOOK_SECONDS)
        await api.has(3)
        sending.cancel()


async def test_an_event_that_is_not_unicode_is_sent_and_ends_nothing(tmp_path: Path) -> None:
    api = Api()
    async with serving(api.answer, tmp_path) as client, asyncio.timeout(60):
        recorder = EventRecorder(client, "node")
        sending = asyncio.create_task(recorder.run())
        recorder.record(pod(1), "Fail\udcff", "file a\udcff is bad")
        recorder.record(pod(1), "Started", "x")
        await api.has(2)
        sending.cancel()
    assert {(event["reason"], event["message"]) for event in api.events.values()} == {
        ("Fail?", "file a? is bad"),
        ("Started", "x"),
    }


@pytest.mark.parametrize("paced", [False, True])
async def test_what_waits_may_be_flushed_while_it_is_deferred_or_paced(tmp_path: Path, paced: bool) -> None:
    api, clock = Api(), FakeClock()
    async with serving(api.answer, tmp_path) as client, asyncio.timeout(60):
        recorder = EventRecorder(client, "node", clock=clock, busy=lambda: not paced)
        sending = asyncio.create_task(recorder.run())
        for number in range(NODE_BURST + 1 if paced else 1):
            recorder.record(pod(number), "Killing", "x")
        assert await clock.next_sleep() > 0
        await recorder.flush(30)
        assert len(api.events) == (NODE_BURST + 1 if paced else 1)
        clock.advance(MOST_DEFERRED_SECONDS)
        for _ in range(10):
            await asyncio.sleep(0)  # it finds that nothing is left
        recorder.record(pod(1000), "Killing", "x")
        if not paced:
            assert await clock.next_sleep() > 0
            clock.advance(MOST_DEFERRED_SECONDS)
        await api.has(NODE_BURST + 2 if paced else 2)  # it goes on
        assert not sending.done()
        sending.cancel()


async def test_a_flush_waits_for_what_is_being_sent(tmp_path: Path) -> None:
    api, asked, go_on = Api(), asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        asked.set()
        await go_on.wait()
        return await api.answer(request)

    async with serving(answer, tmp_path) as client, asyncio.timeout(60):
        recorder = EventRecorder(client, "node")
        sending = asyncio.create_task(recorder.run())
        recorder.record(pod(1), "Killing", "x")
        await asked.wait()
        flushing = asyncio.create_task(recorder.flush(30))
        await asyncio.sleep(0)
        assert not flushing.done()
        go_on.set()
        await flushing
        sending.cancel()
        assert len(api.events) == 1


async def test_an_object_tells_so_much_and_no_more(tmp_path: Path) -> None:
    api, clock = Api(), FakeClock()
    async with serving(api.answer, tmp_path) as client:
        recorder = EventRecorder(client, "node", clock=clock)
        for number in range(BURST + 10):
            recorder.record(pod(1), "Failed", f"for the {number}th time")
        recorder.record(pod(2), "Started", "x")
        await recorder.flush(30)
    assert Counter(event["involvedObject"]["name"] for event in api.events.values()) == {"pod-1": BURST, "pod-2": 1}


async def test_what_repeats_is_counted(tmp_path: Path) -> None:
    api, clock = Api(), FakeClock()
    async with serving(api.answer, tmp_path) as client:
        recorder = EventRecorder(client, "node", clock=clock)
        for _ in range(3):
            recorder.record(pod(1), "BackOff", "again")
            clock.advance(10)
        await recorder.flush(30)
    (event,) = api.events.values()
    assert event["count"] == 3
    assert event["firstTimestamp"] <= event["lastTimestamp"]


async def test_names_are_in_the_order_of_what_happened(tmp_path: Path) -> None:
    api, clock = Api(), FakeClock()
    reasons = ["Scheduled", "Pulling", "Pulled", "Created", "Started", "Killing"]
    long_one = {**pod(2), "name": "a" * 250 + ".b1"}
    async with serving(api.answer, tmp_path) as client, asyncio.timeout(30):
        recorder = EventRecorder(client, "node", clock=clock)
        for reason in reasons:  # while the clock stands still
            recorder.record(pod(1), reason, "x")
            recorder.record(long_one, reason, "x")
        happened = clock.now()
        clock.advance(2)
        recorder.record(pod(1), "Late", "x")
        await recorder.flush(20)
    for involved in (pod(1), long_one):
        mine = {name: event for name, event in api.events.items() if event["involvedObject"] == involved}
        assert [mine[name]["reason"] for name in sorted(mine)][: len(reasons)] == reasons
        assert all(len(name) <= 253 for name in mine)
    first = min(name for name in api.events if name.startswith("pod-1."))
    assert int(first.rpartition(".")[2], 16) // 10**9 == int(happened.timestamp())
    assert api.events[first]["firstTimestamp"] == rfc3339(happened)


@pytest.mark.parametrize(("code", "cause"), [(403, "NamespaceTerminating"), (404, ""), (403, "")])
async def test_a_namespace_that_goes_takes_its_events_along(tmp_path: Path, code: int, cause: str) -> None:
    """One is refused; those that wait for the same namespace are not tried. Another refusal says nothing of others."""
    taken: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        name = (await request.json())["involvedObject"]["name"]
        taken.append(name)
        if "/namespaces/going/" not in request.path:
            return web.json_response({})
        details = {"causes": [{"reason": cause, "field": "metadata.namespace"}]}
        return web.json_response({"kind": "Status", "message": "no", "details": details}, status=code)

    async with serving(answer, tmp_path) as client:
        recorder = EventRecorder(client, "node")
        for number in range(5):
            recorder.record({**pod(number), "namespace": "going"}, "Killing", "x")
            recorder.record(pod(number + 10), "Killing", "x")
        await recorder.flush(30)
        dropped = bool(cause) or code == 404
        assert [name for name in taken if len(name) == 5] == [f"pod-{number}" for number in range(1 if dropped else 5)]
        assert [name for name in taken if len(name) > 5] == [f"pod-{number}" for number in range(10, 15)]
        recorder.record({**pod(99), "namespace": "going"}, "Started", "x")  # it may be there again
        await recorder.flush(30)
    assert taken[-1] == "pod-99"


async def test_of_an_object_that_is_gone_nothing_is_remembered_once_all_is_sent(tmp_path: Path) -> None:
    api, clock = Api(), FakeClock()
    async with serving(api.answer, tmp_path) as client:
        recorder = EventRecorder(client, "node", clock=clock)
        for number in range(3):
            recorder.record(pod(number), "BackOff", "again")
        await recorder.flush(30)
        recorder.record(pod(1), "BackOff", "again")
        for number in (1, 2):
            recorder.forget(f"uid-{number}")
        assert list(recorder._known) == ["uid-0", "uid-1"]
        await recorder.flush(30)
        assert list(recorder._known) == ["uid-0"]
        counts = {event["involvedObject"]["name"]: event["count"] for event in api.events.values()}
        assert counts == {"pod-0": 1, "pod-1": 2, "pod-2": 1}


async def test_of_an_object_that_is_gone_what_cannot_be_sent_is_forgotten_too(tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "message": "no"}, status=404)

    async with serving(refuse, tmp_path) as client:
        recorder = EventRecorder(client, "node")
        for number in range(QUEUE + 2):  # the first two find no place
            recorder.record(pod(number), "Killing", "x")
            recorder.forget(f"uid-{number}")
        assert len(recorder._known) == QUEUE
        await recorder.flush(30)
        assert not recorder._known
