"""How many statuses are written at a time, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from wasmlet.clock import Backoff, Pacing
from wasmlet.kube import errors
from wasmlet.kube.client import Client
from wasmlet.kube.recovery import Recovery
from wasmlet.model.pod import Pod
from wasmlet.node.metrics import Metrics
from wasmlet.node.status_writer import StatusWriter


class Api:
    """Takes patches, and answers each when it is told to."""

    def __init__(self) -> None:
        self.recovery = Recovery()
        self.asked = asyncio.Queue[str]()
        self.answers: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def patch(self, path: str, patch: Any) -> dict[str, Any]:
        name = path.split("/")[-2]
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.answers[name] = answer
        self.asked.put_nowait(name)
        return await answer


def pod(name: str) -> Pod:
    return Pod({"metadata": {"namespace": "default", "name": name, "uid": name}})


def writer_to(api: Api, group: asyncio.TaskGroup, in_flight: int) -> StatusWriter:
    pacing = Pacing(backoff=Backoff(initial=0.01, cap=0.01))
    return StatusWriter(cast(Client, api), group, Metrics("n"), pacing=pacing, in_flight=in_flight)


async def test_so_many_are_written_at_a_time_and_the_rest_in_their_order() -> None:
    api, written = Api(), list[str]()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        writer = writer_to(api, group, 2)
        for name in "abcd":
            writer.put(pod(name), lambda: {"status": {}}, lambda raw: written.append(raw["name"]))
        assert [await api.asked.get(), await api.asked.get()] == ["a", "b"]
        assert (api.asked.qsize(), writer.unwritten, writer.sending("b"), writer.sending("c")) == (0, 4, True, False)
        api.answers["b"].set_result({"name": "b"})
        assert await api.asked.get() == "c"
        api.answers["a"].set_result({"name": "a"})
        assert await api.asked.get() == "d"
        for name in "cd":
            api.answers[name].set_result({"name": name})
    assert (written, writer.unwritten) == (["b", "a", "c", "d"], 0)


async def test_one_that_fails_is_tried_again_and_keeps_no_other_from_being_written() -> None:
    api = Api()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        writer = writer_to(api, group, 1)
        for name in "ab":
            writer.put(pod(name), lambda: {"status": {}}, lambda _: None)
        assert await api.asked.get() == "a"
        api.answers["a"].set_exception(errors.Unreachable("gone"))
        assert await api.asked.get() == "b"
        flushed = group.create_task(writer.flushed("a"))
        api.answers["b"].set_result({})
        assert await api.asked.get() == "a"
        assert not flushed.done()
        api.answers["a"].set_result({})
    assert flushed.done()


async def test_what_is_dropped_before_its_turn_is_not_written() -> None:
    api = Api()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        writer = writer_to(api, group, 1)
        for name in "abc":
            writer.put(pod(name), lambda: {"status": {}}, lambda _: None)
        assert await api.asked.get() == "a"
        flushed = group.create_task(writer.flushed("b"))
        await asyncio.sleep(0)
        writer.drop("b")
        await flushed
        api.answers["a"].set_result({})
        assert await api.asked.get() == "c"
        api.answers["c"].set_result({})
    assert writer.unwritten == 0
