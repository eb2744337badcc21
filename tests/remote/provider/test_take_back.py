"""An agent whose node loop is another one: who gets it back that had it before, and what the next one is told."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from pathlib import Path

import pytest
from wasmlet_agent.protocol.failures import SessionOver, Unclaimed
from wasmlet_agent.sessions import Session
from wasmlet_remote.config import Config
from wasmlet_remote.link import Link, direct
from wasmlet_remote.session import Sessions

from tests.remote.agents import PATIENCE
from tests.remote.beside import Beside
from wasmlet import NodeContext, PodEvent, PodKey, Provider, SystemClock


def lost(beside: Beside) -> None:
    """Take the agent's session away, as a disk that is replaced does."""
    beside.agent.sessions.newest = Session()
    beside.agent.sessions.end_streams()


def sessions(beside: Beside, directory: Path) -> tuple[Link, Sessions]:
    transports, token = direct(Config(endpoint=beside.proxy.url))
    link = Link(beside.proxy.url, transports, 1, token)
    context = NodeContext("n1", "127.0.0.1", 110, directory)
    return link, Sessions(link, context, SystemClock(), random.Random(1))


async def test_who_had_the_agent_does_not_take_it_from_who_has_it_now(beside: Beside, tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        (link, old), (other, new) = sessions(beside, tmp_path), sessions(beside, tmp_path)
        await old.begin()
        assert (await old.begin()).session == 2
        lost(beside)
        assert (await new.begin()).session == 1
        with pytest.raises(Unclaimed):
            await link.ask("GET", "/pods")
        with pytest.raises(SessionOver):
            await old.begin(again=True)
        await other.ask("GET", "/pods")
        await link.close()
        await other.close()


async def test_a_session_whose_beginning_was_not_heard_of_is_our_own(beside: Beside, tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        link, ours = sessions(beside, tmp_path)
        await ours.begin()
        lost(beside)
        assert (await ours.begin(again=True)).session == 1
        ours._newest = 0  # as where the answer is lost
        assert (await ours.begin(again=True)).session == 2
        await link.close()


async def test_an_event_is_told_to_one_node_loop(beside: Beside, tmp_path: Path) -> None:
    """The next one would tell it again, with another time."""
    key = PodKey("default", "p", "p")
    async with asyncio.timeout(PATIENCE):
        for reason in ("Pulled", "Started"):
            async with beside.started(tmp_path) as provider:
                beside.agent.changes.event(PodEvent(key, reason, "again"))
                assert (await event(provider)).reason == reason


async def event(provider: Provider) -> PodEvent:
    """The next event that a provider tells of."""
    stream = provider.changes()
    assert stream is not None
    async with aclosing(stream) as changes:
        async for change in changes:
            if isinstance(change, PodEvent):
                return change
    raise AssertionError("the stream has ended")
