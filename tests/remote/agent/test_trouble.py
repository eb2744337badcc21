"""A provider in trouble: what the agent says of it, how often, and what it does again."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.protocol.failures import LateDuplicate
from wasmlet_agent.protocol.messages import NodeDescription, PodRequest, SessionRequest

import wasmlet
from tests.node.trouble import FastClock
from tests.remote.agents import NODE, PATIENCE, pod
from tests.remote.beside import agent_beside, claimed
from wasmlet import Inputs, NodeContext, NodeStatus
from wasmlet.testing import ReferenceProvider
from wasmlet.testing.contract.streams import Client

Log = list[Any]


def said(log: Log, event: str) -> Log:
    return [line for line in log if line["event"] == event]


class Asked(ReferenceProvider):
    """Counts how often it is asked how the node is, and fails as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.failure: Exception | None = RuntimeError("no disk")
        self.came = asyncio.Event()

    async def node_status(self) -> NodeStatus:
        self.asked += 1
        self.came.set()
        if self.failure is not None:
            raise self.failure
        return await super().node_status()

    async def until_asked(self, times: int) -> None:
        wanted = self.asked + times
        while self.asked < wanted:
            self.came.clear()
            await self.came.wait()


async def test_a_node_status_that_fails_is_told_once_until_it_fails_otherwise(tmp_path: Path) -> None:
    provider = Asked()
    with structlog.testing.capture_logs() as log:
        async with claimed(tmp_path / "state", lambda: provider, FastClock(1000)):
            await provider.until_asked(20)
            provider.failure = RuntimeError("another disk")
            await provider.until_asked(20)
            provider.failure = None
            await provider.until_asked(2)
            provider.failure = RuntimeError("another disk")
            await provider.until_asked(20)
    lines = said(log, "the provider does not say how the node is")
    assert [(line["error"], "exception" in line) for line in lines] == [
        ("no disk", True),
        ("another disk", False),
        ("another disk", True),
    ]


class Broken(ReferenceProvider):
    """Its changes end at once."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.enough = asyncio.Event()

    def changes(self) -> Any:
        self.opened += 1
        if self.opened > 5:
            self.enough.set()
        raise RuntimeError("no stream")


async def test_changes_that_end_again_and_again_have_one_traceback(tmp_path: Path) -> None:
    provider = Broken()
    with structlog.testing.capture_logs() as log:
        async with claimed(tmp_path / "state", lambda: provider, FastClock(1000)):
            await provider.enough.wait()
    lines = said(log, "the provider's changes have ended")
    assert len(lines) >= 5
    assert ["exception" in line for line in lines] == [True] + [False] * (len(lines) - 1)


class Choosy(ReferenceProvider):
    """Starts for nodes of a small number of pods."""

    async def start(self, context: NodeContext) -> None:
        if context.max_pods > 1000:
            raise RuntimeError("too many")
        await super().start(context)


async def test_a_provider_that_does_not_start_again_has_one_traceback(tmp_path: Path) -> None:
    async with claimed(tmp_path / "state", ReferenceProvider):
        pass
    tries, enough = count(1), asyncio.Event()

    class Never(ReferenceProvider):
        async def start(self, context: NodeContext) -> None:
            if next(tries) > 5:
                enough.set()
            raise RuntimeError("no engine")

    with structlog.testing.capture_logs() as log:
        async with asyncio.timeout(PATIENCE), Agent(Never, Places(tmp_path / "state"), FastClock(1000)) as agent:
            await enough.wait()
            assert agent.trouble == "the provider is starting"
    lines = said(log, "the provider does not start")
    assert len(lines) >= 5
    assert ["exception" in line for line in lines] == [True] + [False] * (len(lines) - 1)


async def test_a_claim_whose_provider_does_not_start_leaves_the_old_one(tmp_path: Path) -> None:
    """Another description of the node makes another provider; where that fails, the session before goes on."""
    made: list[Choosy] = []

    def make() -> Choosy:
        made.append(Choosy())
        return made[-1]

    async with claimed(tmp_path / "state", make) as agent:
        await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs()))
        larger = NodeDescription(NODE.name, NODE.ip, 100_000)
        with pytest.raises(RuntimeError, match="too many"):
            await agent.claim(SessionRequest(larger, "another", 1))
        with pytest.raises(LateDuplicate):
            await agent.claim(SessionRequest(larger, "another", 0))
        while agent.trouble:  # noqa: ASYNC110 - the agent tells nobody that its provider is back
            await asyncio.sleep(0.01)
        assert agent.sessions.newest.number == 1
        assert agent.pods.provider is made[-1]
        assert len(made) == 3
        assert [listed.key.uid for listed in await agent.pods.listed()] == ["a"]
        await agent.pods.create("b", Fence(1, 2), "", PodRequest(pod("b"), Inputs()))
        assert {key.uid for key in made[-1].created} == {"a", "b"}


class Surprising(ReferenceProvider):
    """Connections to its pods fail as nobody expects."""

    async def port_forward(self, *_: Any) -> None:
        raise ZeroDivisionError("no such thing")


async def test_what_nobody_expects_of_a_stream_is_in_the_log(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as log:
        async with agent_beside(tmp_path / "state", Surprising()) as beside, beside.started(tmp_path) as provider:
            held = wasmlet.Pod(pod("a"))
            await provider.create_pod(held, Inputs())
            with pytest.raises(wasmlet.WasmletError, match="no such thing"):
                await provider.port_forward(held.key, 80, Client())
    (line,) = said(log, "a call of a stream has failed")
    assert "ZeroDivisionError" in line["exception"]


async def test_an_agent_in_which_something_fails_leaves_nothing_in_memory(tmp_path: Path) -> None:
    async def failing() -> None:
        raise RuntimeError("a fault of the agent")

    memory: list[Path] = []

    async def run() -> None:
        async with claimed(tmp_path / "state", ReferenceProvider) as agent:
            memory.append((tmp_path / "state" / "memory").readlink())
            assert memory[0].exists()
            agent._spawn(failing())
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup):
        await run()
    assert not memory[0].exists()
