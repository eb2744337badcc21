"""Pods that are handed over at once go in few requests; each is told its own outcome, whatever the way there does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

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


async def test_a_hundred_pods_at_once_take_a_few_requests(beside: Beside, tmp_path: Path) -> None:
    async with beside.started(tmp_path) as provider:
        before = len(beside.proxy.requests)
        assert await create_all(provider) == [None] * MANY
        assert len(beside.proxy.requests) - before <= 8
    assert sorted(key.name for key in beside.there.created) == sorted(names())


@pytest.mark.parametrize("fault", ["delay", "drop", "lose", "truncate", "duplicate"])
async def test_what_is_lost_on_the_way_is_handed_over_again(beside: Beside, tmp_path: Path, fault: Fault) -> None:
    trap = beside.proxy.trap(fault, "POST", "/v1/pods", seconds=0.1, size=200)
    async with beside.started(tmp_path) as provider:
        assert await create_all(provider) == [None] * MANY
    assert trap.hits == 1
    assert sorted(key.name for key in beside.there.created) == sorted(names()), "each is created once"


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


async def test_an_agent_that_takes_one_at_a_time_gets_one_at_a_time(
    beside: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As agents of earlier versions do."""
    monkeypatch.setattr("wasmlet_agent.agent.BATCHES", "something-else")
    async with beside.started(tmp_path) as provider:
        assert await create_all(provider) == [None] * MANY
    assert {seen.method for seen in beside.proxy.requests if seen.path.startswith("/v1/pods")} == {"PUT"}
