"""The links that an agent dials to its host: how many, how often they are tried, and when one is dead."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from wasmlet_agent.join import links
from wasmlet_agent.join.joining import Joined
from wasmlet_agent.join.links import Links
from wasmlet_agent.protocol.joining import PING_SECONDS, hash_of

from tests.remote.agents import PATIENCE
from tests.remote.host.far_host import TOKEN, FarHost, joining
from tests.remote.host.known import echoing, until
from wasmlet.testing import FakeClock


class Dialling:
    """Links to a host, on a clock that a test moves."""

    def __init__(self, far: FarHost, runner: web.AppRunner, clock: FakeClock, again: Any = None, **rest: Any) -> None:
        assert runner.server is not None
        far.keys["edge-1"] = hash_of("key")
        self.clock = clock
        self.links = Links(Joined(far.url, "edge-1", "key"), runner.server, clock, random.Random(1), again, **rest)
        self.task = asyncio.create_task(self.links.run())

    def paused(self, those: int = links.SPARES) -> bool:
        """Whether so many spare links wait for their next try, and none does anything else."""
        left = [deadline - self.clock.monotonic() for deadline, _ in self.clock._sleepers]
        return len(left) == those and min(left) > 0 and PING_SECONDS not in left


@pytest.fixture
async def dialling(far: FarHost) -> AsyncIterator[Any]:
    runner = web.AppRunner(echoing())
    await runner.setup()
    made: list[Dialling] = []

    def make(again: Any = None, **rest: Any) -> Dialling:
        made.append(Dialling(far, runner, FakeClock(), again, **rest))
        return made[-1]

    yield make
    for one in made:
        one.task.cancel()
        await asyncio.wait([one.task])
    await runner.cleanup()


@pytest.mark.parametrize(
    ("settings", "shortest", "those"),
    [
        ({"status": 503}, links.RETRIES.initial, links.SPARES),
        ({"status": 429}, links.RETRIES.initial, links.SPARES),
        ({"status": 200}, links.RETRIES.initial, links.SPARES),
        ({"close_at_once": True}, links.RETRIES.initial, links.SPARES),
        ({"status": 401}, links.REFUSED.initial, 1),
        ({"status": 403}, links.REFUSED.initial, 1),
    ],
)
async def test_links_that_fail_are_dialled_again_after_growing_pauses(
    far: FarHost, dialling: Any, settings: dict[str, Any], shortest: float, those: int
) -> None:
    """Where the host refuses, one is dialled for all."""
    for name, value in settings.items():
        setattr(far, name, value)
    dial = dialling()
    pauses = []
    async with asyncio.timeout(PATIENCE):
        for turn in range(4):
            await until(lambda: dial.paused(those))
            pauses.append(await dial.clock.until_asleep(those))
            assert len(far.dials) == links.SPARES + those * turn
            dial.clock.advance(100)
    assert pauses[0] >= shortest
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * shortest


async def test_a_host_that_is_not_there_is_dialled_after_pauses_and_found_again(
    far: FarHost, dialling: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url, far.url = far.url, "http://127.0.0.1:1"
    dial = dialling()
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            await dial.clock.until_asleep(links.SPARES)
            dial.clock.advance(100)
        await dial.clock.until_asleep(links.SPARES)
        dial.links._joined = Joined(url, "edge-1", "key")
        dial.clock.advance(100)
        await until(lambda: len(far.sockets) == links.SPARES)


@pytest.mark.parametrize("token", [TOKEN, "abcd.0123456789abcdef012X", None])
async def test_an_agent_that_the_host_has_forgotten_joins_again_with_a_token_that_is_good(
    far: FarHost, dialling: Any, tmp_path: Path, token: str | None
) -> None:
    dial = dialling(joining(far, tmp_path, token=token).again)
    far.keys.clear()
    async with asyncio.timeout(PATIENCE):
        if token == TOKEN:
            await until(lambda: len(far.sockets) == links.SPARES)
            assert far.keys == {"edge-1": hash_of("key")}
            return
        await dial.clock.until_asleep(1)
        assert len(far.dials) == links.SPARES
        assert len(far.joins) == (1 if token else 0)


async def test_a_token_that_is_mended_is_tried_at_once(far: FarHost, dialling: Any, tmp_path: Path) -> None:
    """Whoever has put it there need not wait for the end of a pause."""
    file = tmp_path / "token"
    file.write_text("abcd.0123456789abcdef012X")
    agent = joining(far, tmp_path, token=None, token_file=file)
    looked = asyncio.Event()

    async def mended() -> None:
        agent._clock = dial.clock
        looked.set()
        await agent.mended()

    dial = dialling(agent.again, mended=mended)
    far.keys.clear()
    async with asyncio.timeout(PATIENCE):
        await looked.wait()
        await dial.clock.until_asleep(2)
        dials = len(far.dials)
        dial.clock.advance(1.0)
        await dial.clock.until_asleep(2)
        assert len(far.dials) == dials, "it is tried after a pause, if nothing has changed"
        file.write_text(TOKEN)
        os.utime(file, ns=(1, 1))  # a clock may tick so slowly that both were written at the same time
        dial.clock.advance(1.0)
        await until(lambda: len(far.sockets) == links.SPARES)
    assert far.keys == {"edge-1": hash_of("key")}


async def test_a_host_that_takes_a_token_and_no_key_is_not_asked_over_and_over(
    far: FarHost, dialling: Any, tmp_path: Path
) -> None:
    dial = dialling(joining(far, tmp_path).again)
    far.status = 401
    async with asyncio.timeout(PATIENCE):
        await until(lambda: dial.paused(1))
        assert len(far.joins) == 1
        assert len(far.dials) == links.SPARES + 1


async def test_spare_links_stay_as_many(far: FarHost, dialling: Any) -> None:
    dial = dialling()
    async with asyncio.timeout(PATIENCE):
        await until(lambda: len(far.sockets) == links.SPARES)
        await far.sockets[0].close()
        await dial.clock.next_sleep(at_most=links.RETRIES.cap)
        dial.clock.advance(1)
        await until(lambda: len(far.sockets) == links.SPARES)
    assert len(far.dials) == links.SPARES + 1


async def test_a_spare_link_without_an_answer_to_pings_is_dead(
    far: FarHost, dialling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "DEAD_SECONDS", 0.2)
    dial = dialling()
    async with asyncio.timeout(PATIENCE):
        await until(lambda: len(far.dials) == links.SPARES)
        await dial.clock.next_sleep(at_most=links.RETRIES.cap * 1.5)
        assert dial.links._told.startswith("the host was silent")
