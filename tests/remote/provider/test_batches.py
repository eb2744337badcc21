"""What is asked for many pods at once goes in few requests; each is told its own outcome, whatever is on the way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from wasmlet_agent.protocol.codec import decode
from wasmlet_agent.protocol.failures import Stale, Starting
from wasmlet_agent.protocol.messages import BatchedDelete, EndedLine
from wasmlet_remote.batches import NEW_SECONDS, Batches, Order, create, delete
from wasmlet_remote.bodies import Body
from wasmlet_remote.link import Away
from wasmlet_remote.provider import FORGETS_AT_ONCE, RemoteProvider

import wasmlet
from tests.remote.agents import PATIENCE
from tests.remote.beside import Beside, agent_beside
from wasmlet.testing import ReferenceProvider
from wasmlet.testing.fault_proxy import Fault

MANY = 100


def pod(name: str) -> wasmlet.Pod:
    return wasmlet.Pod(
        {
            "metadata": {"namespace": "default", "name": name, "uid": name},
            "spec": {"containers": [{"name": "c", "image": "file:///guest.wasm"}]},
        }
    )


def names() -> list[str]:
    return [f"p{number}" for number in range(MANY)]


async def create_all(provider: wasmlet.Provider) -> list[BaseException | None]:
    async with asyncio.timeout(PATIENCE):
        made = (provider.create_pod(pod(name), wasmlet.Inputs()) for name in names())
        return await asyncio.gather(*made, return_exceptions=True)


async def delete_all(provider: wasmlet.Provider) -> list[int]:
    """End them; their exit codes."""
    async with asyncio.timeout(PATIENCE):
        ended = await asyncio.gather(*(provider.delete_pod(pod(name).key, 0) for name in names()))
    states = [status.containers[0].state for status in ended if status is not None]
    return [state.exit_code for state in states if isinstance(state, wasmlet.Terminated)]


async def test_a_hundred_pods_at_once_take_a_few_requests(beside: Beside, tmp_path: Path) -> None:
    async with beside.started(tmp_path) as provider:
        before = len(beside.proxy.requests)
        assert await create_all(provider) == [None] * MANY
        assert len(beside.proxy.requests) - before <= 8
        assert await delete_all(provider) == [143] * MANY
        assert len(beside.proxy.requests) - before <= 16
    for seen in (beside.there.created, beside.there.deleted):
        assert sorted(key.name for key in seen) == sorted(names())


@pytest.mark.parametrize("batched", [True, False])
async def test_ends_that_the_api_has_are_forgotten(
    beside: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, batched: bool
) -> None:
    """With few requests, and again where one was lost; for each pod by agents of earlier versions."""
    if not batched:
        monkeypatch.setattr("wasmlet_agent.agent.BATCHED_FORGETS", "something-else")
    monkeypatch.setattr("wasmlet_remote.provider.FORGET_SECONDS", 0.8)
    beside.proxy.trap("lose", "POST", "/v1/forgets")
    at_once, most, alone = 0, 0, RemoteProvider.alone

    async def counted(provider: RemoteProvider, order: Order) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await alone(provider, order)
        finally:
            at_once -= 1

    monkeypatch.setattr(RemoteProvider, "alone", counted)
    async with asyncio.timeout(PATIENCE), beside.started(tmp_path) as provider:
        await create_all(provider)
        assert await delete_all(provider) == [143] * MANY
        while any(isinstance(line, EndedLine) for line in beside.agent.changes.newer(0)):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
    asked = [seen.path for seen in beside.proxy.requests if "forget" in seen.path]
    assert ("/v1/forgets" in asked) is batched
    assert len(asked) <= 8 if batched else len(asked) == MANY
    assert batched or 1 < most <= FORGETS_AT_ONCE


@pytest.mark.parametrize("path", ["/v1/pods", "/v1/deletes"])
@pytest.mark.parametrize("fault", ["delay", "drop", "lose", "truncate", "duplicate"])
async def test_what_is_lost_on_the_way_is_asked_again(beside: Beside, tmp_path: Path, fault: Fault, path: str) -> None:
    trap = beside.proxy.trap(fault, "POST", path, seconds=0.1, size=200)
    async with beside.started(tmp_path) as provider:
        assert await create_all(provider) == [None] * MANY
        assert await delete_all(provider) == [143] * MANY
    assert trap.hits == 1
    for seen in (beside.there.created, beside.there.deleted):
        assert sorted(key.name for key in seen) == sorted(names()), "each once"


async def test_deletes_that_are_held_back_end_no_pod_that_came_after_them(
    beside: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the API was restored from a backup, and pods come again."""
    end, refused = beside.agent.pods.delete, asyncio.Event()

    async def ended(*args: Any, **options: Any) -> None:
        try:
            await end(*args, **options)
        except Stale:
            refused.set()
            raise

    async with asyncio.timeout(PATIENCE), beside.started(tmp_path) as provider:
        await create_all(provider)
        held = beside.proxy.trap("hold", "POST", "/v1/deletes")
        ends = [asyncio.create_task(provider.delete_pod(pod(name).key, 0)) for name in names()]
        await held.sprung()
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        for name in names():
            with suppress(wasmlet.NotFound):
                await provider.delete_pod(pod(name).key, 0)
        assert await create_all(provider) == [None] * MANY
        monkeypatch.setattr(beside.agent.pods, "delete", ended)
        held.release()
        await refused.wait()
        assert sorted(beside.there.pods) == sorted(names())


class Choosy(ReferenceProvider):
    """Refuses some pods, and takes its time with another until it is told to go on."""

    slow = "p7"

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def create_pod(self, pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> None:
        if pod.name.endswith("5"):
            raise wasmlet.Rejected("Full", f"there is no room for {pod.name}")
        if pod.name == self.slow:
            await self.go_on.wait()
        await super().create_pod(pod, inputs)


async def test_each_is_told_its_own_outcome_when_it_is_there(tmp_path: Path) -> None:
    choosy = Choosy()
    async with agent_beside(tmp_path / "agent", choosy) as beside, beside.started(tmp_path) as provider:
        async with asyncio.timeout(PATIENCE):
            tasks = {name: asyncio.create_task(provider.create_pod(pod(name), wasmlet.Inputs())) for name in names()}
            others = [task for name, task in tasks.items() if name != choosy.slow]
            outcomes = await asyncio.gather(*others, return_exceptions=True)
            assert not tasks[choosy.slow].done(), "nobody waits for a pod that takes long"
            choosy.go_on.set()
            await tasks[choosy.slow]
    refused = [str(outcome) for outcome in outcomes if outcome is not None]
    assert all(isinstance(outcome, wasmlet.Rejected) for outcome in outcomes if outcome is not None)
    assert [text.rpartition(" ")[2] for text in refused] == [name for name in names() if name.endswith("5")]


class Answers:
    """Stands in for the requests to an agent: what a batch is answered, and what is asked for one pod at a time."""

    def __init__(self, *lines: bytes, error: Exception | None = None, forever: bool = False) -> None:
        self.told = lines
        self.error = error
        self.forever = forever
        self.begun = asyncio.Event()
        self.one_by_one: list[str] = []
        self.left = asyncio.Event()

    async def alone(self, order: Order) -> None:
        self.one_by_one.append(order.uid)
        if order.uid == "refused":
            raise wasmlet.Rejected("Full", "no room")

    async def lines(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        self.begun.set()
        if self.error is not None:
            raise self.error
        for line in self.told:
            yield line
        try:
            while self.forever:
                yield b'{"uid":"unknown"}'
                await asyncio.sleep(0)
        finally:
            self.left.set()


BODY = Body(b"{}", {}, "digest")


@asynccontextmanager
async def creating(agent: Answers) -> AsyncIterator[Batches]:
    creates = Batches(agent, "/pods", itertools.count(1))
    task = asyncio.create_task(creates.run())
    try:
        async with asyncio.timeout(PATIENCE):
            yield creates
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def put(creates: Batches, *uids: str) -> list[BaseException | None]:
    return await asyncio.gather(*(creates.put(create(uid, BODY)) for uid in uids), return_exceptions=True)


async def test_a_request_that_is_refused_as_a_whole_is_made_for_each_pod() -> None:
    """As by an agent that was put back to an earlier version, or for one pod that no agent takes."""
    agent = Answers(error=wasmlet.InvalidInput("Method Not Allowed"))
    async with creating(agent) as creates:
        first, refused, last = await put(creates, "a", "refused", "b")
    assert (first, last) == (None, None)
    assert isinstance(refused, wasmlet.Rejected)
    assert agent.one_by_one == ["a", "refused", "b"]


async def test_a_request_to_an_agent_that_starts_is_made_for_none_alone() -> None:
    """Each asks again at its own pace, with others."""
    agent = Answers(error=Starting("the agent's provider is starting"))
    async with creating(agent) as creates:
        outcomes = await put(creates, "a", "b")
    assert [type(outcome) for outcome in outcomes] == [Away, Away]
    assert agent.one_by_one == []


async def test_an_end_is_told_though_the_request_for_it_has_no_answer(
    beside: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = beside.agent.pods.delete

    async def endless(*args: Any, **options: Any) -> None:
        await end(*args, **options)
        await asyncio.Event().wait()

    async with asyncio.timeout(PATIENCE), beside.started(tmp_path) as provider:
        await provider.create_pod(pod("a"), wasmlet.Inputs())
        monkeypatch.setattr(beside.agent.pods, "delete", endless)
        last = await provider.delete_pod(pod("a").key, 0)
    assert last is not None


async def test_lines_that_make_no_sense_answer_for_no_pod() -> None:
    lines = b"", b"rubbish", b"[]", b'{"uid":"other"}', b'{"uid":"a"}', b'{"uid":"a","failure":{"error":"Stale"}}'
    async with creating(Answers(*lines)) as creates:
        told, untold = await put(creates, "a", "b")
    assert told is None
    assert isinstance(untold, Away)


async def test_an_answer_of_nonsense_alone_is_not_read_to_its_end() -> None:
    agent = Answers(*[b'{"uid":7}'] * 1000)
    async with creating(agent) as creates:
        outcomes = await put(creates, "a", "b")
    assert [str(outcome) for outcome in outcomes] == ["the agent's answer makes no sense"] * 2


async def test_an_answer_without_an_end_holds_nobody_up() -> None:
    """Neither those who have been told, nor those who come later, nor one who leaves."""
    agent = Answers(b'{"uid":"a"}', b'{"uid":"b"}', forever=True)
    async with creating(agent) as creates:
        assert await put(creates, "a", "b") == [None, None]
        await agent.left.wait()
        waits = [asyncio.create_task(creates.put(create(uid, BODY))) for uid in ("c", "d", "e", "f", "g", "h")]
        more = [asyncio.create_task(put(creates, f"{turn}", f"{turn}x")) for turn in range(3)]
        await asyncio.sleep(NEW_SECONDS)  # the requests that came to nothing are not new any more
        assert await put(creates, "alone") == [None]
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    outcomes = [outcome for found in await asyncio.gather(*more) for outcome in found]
    assert all(isinstance(outcome, wasmlet.WasmletError) for outcome in outcomes), "they are told that it has stopped"


async def test_nobody_waits_for_ever_when_it_stops_nor_after() -> None:
    agent = Answers(forever=True)
    async with creating(agent) as creates:
        waits = asyncio.create_task(put(creates, "a", "b", "a"))
        await agent.begun.wait()
    one, other, again = await waits
    assert (type(one), type(other)) == (wasmlet.WasmletError, wasmlet.WasmletError)
    assert again is None, "the same pod is in another request"
    with pytest.raises(wasmlet.WasmletError):
        await creates.put(create("late", BODY))


async def test_an_agent_that_takes_one_at_a_time_gets_one_at_a_time(
    beside: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As agents of earlier versions do."""
    monkeypatch.setattr("wasmlet_agent.agent.BATCHES", "something-else")
    monkeypatch.setattr("wasmlet_agent.agent.BATCHED_DELETES", "something-else")
    async with beside.started(tmp_path) as provider:
        assert await create_all(provider) == [None] * MANY
        assert await delete_all(provider) == [143] * MANY
    methods = {seen.method for seen in beside.proxy.requests if seen.path.startswith(("/v1/pods", "/v1/deletes"))}
    assert methods == {"PUT", "DELETE"}


def test_an_order_says_the_same_alone_and_with_others() -> None:
    order = delete(wasmlet.PodKey("default", "p", "u"), 2.5, keep=True)
    assert order.params == {"namespace": "default", "name": "p", "grace": "2.5", "keep": "true"}
    line = decode(BatchedDelete, order.lines(7))
    assert line == BatchedDelete("u", 7, 2.5, "default", "p", keep=True)
