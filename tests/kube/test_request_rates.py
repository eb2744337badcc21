"""How often the API server is asked in an hour in which it answers with nothing that is of use: no loop may flood it.

The clock is one that the tests move, and stands still while a request is under way. So the counts are exact.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web

from tests.kube.server import serving
from tests.kube.test_reflector import Seen
from wasmlet.clock import Backoff, Pacing, Retries
from wasmlet.controlplane.faults import Delay, Drop, Effect, End, ErrorEvent, Fail
from wasmlet.kube import Client, Reflector, Selection, errors, load_identity
from wasmlet.kube.certificates import REQUESTS, SERVING_SIGNER, CertificateKeeper
from wasmlet.kube.keys import Pair, Wanted
from wasmlet.kubelet.tls import self_signed
from wasmlet.testing import ControlPlane, FakeClock

HOUR = 3600.0
NODE = "n1"
USER = f"system:node:{NODE}"
WANTED = Wanted(USER, ("system:nodes",), frozenset([NODE]), frozenset(["127.0.0.1"]))
PODS = "/api/v1/namespaces/default/pods"
NOT_OF_USE: list[Effect] = [
    ErrorEvent(410),
    ErrorEvent(401),
    ErrorEvent(403),
    ErrorEvent(429, retry_after=1),
    ErrorEvent(500),
    ErrorEvent(line=b'{"type":"ERROR","object":null}'),
    ErrorEvent(line=b'{"type":"ERROR","object":{"code":"many","details":[1]}}'),
    ErrorEvent(line=b"<html>"),
    ErrorEvent(line=b"{}"),
    End(),
    End(bookmark=1_000_000),
    Drop(),
    Fail(401),
    Fail(403),
    Fail(404),
    Fail(410),
    Fail(429, retry_after=0),
    Fail(429, retry_after=7),
    Fail(500),
    Fail(503),
]
NOTHING: list[Effect] = [Drop(), Fail(401), Fail(403), Fail(404), Fail(429, retry_after=0), Fail(500)]


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as plane:
        yield plane


def keeper_of(directory: Path, clock: FakeClock) -> CertificateKeeper:
    return CertificateKeeper(directory / "pki/serving.pem", SERVING_SIGNER, lambda: WANTED, clock, random.Random(1))


async def installed(pair: Pair) -> None:
    raise AssertionError("nobody has signed this")


@asynccontextmanager
async def node_client(plane: ControlPlane, clock: FakeClock) -> AsyncIterator[Client]:
    identity = await load_identity(plane.node_kubeconfig(NODE))
    async with Client(identity, connections=0, clock=clock, rng=random.Random(1)) as client:
        yield client


async def an_hour(clock: FakeClock, work: Coroutine[Any, Any, None]) -> None:
    """Let an hour pass for some work: time moves on whenever somebody sleeps."""
    task = asyncio.create_task(work)
    until = clock.monotonic() + HOUR
    try:
        async with asyncio.timeout(60):
            while clock.monotonic() < until:
                sleeping = asyncio.create_task(clock.next_sleep())
                await asyncio.wait({task, sleeping}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    task.result()
                    raise AssertionError("the work has ended")
                clock.advance(sleeping.result())
    finally:
        task.cancel()
        await asyncio.wait({task})


def following(client: Client, clock: FakeClock) -> Reflector:
    selector = {"fieldSelector": f"spec.nodeName={NODE}"}
    return Reflector(client, Selection(PODS, selector), Seen(), pacing=Pacing(clock, random.Random(1)))


@pytest.mark.parametrize("effect", NOT_OF_USE, ids=str)
async def test_a_watch_that_is_of_no_use(plane: ControlPlane, effect: Effect) -> None:
    clock = FakeClock()
    async with node_client(plane, clock) as client:
        asked = plane.faults.add(Delay(0), user=USER)
        plane.faults.add(effect, verb="watch", user=USER)
        await an_hour(clock, following(client, clock).run())
    assert 100 <= asked.met <= 350  # the watch, and a look at the versions: each about every 40 seconds


@pytest.mark.parametrize("effect", NOTHING, ids=str)
async def test_an_api_server_that_answers_nothing(plane: ControlPlane, effect: Effect) -> None:
    clock = FakeClock()
    async with node_client(plane, clock) as client:
        asked = plane.faults.add(Delay(0), user=USER)
        plane.faults.add(effect, user=USER)
        await an_hour(clock, following(client, clock).run())
    assert 80 <= asked.met <= 600  # one that is put off is repeated up to ten times, a 401 once after a reload


@pytest.mark.parametrize("effect", [*NOT_OF_USE, *NOTHING], ids=str)
async def test_a_certificate_that_nobody_approves(plane: ControlPlane, effect: Effect, tmp_path: Path) -> None:
    """What is asked for is watched by name; the API server ends that watch, or answers nothing at all."""
    clock = FakeClock()
    keeper = keeper_of(tmp_path, clock)
    async with node_client(plane, clock) as client:
        made = asyncio.create_task(keeper.obtain(client))
        await plane.faults.add(Delay(0), verb="watch", path=REQUESTS, user=USER).until()
        made.cancel()
        await asyncio.wait({made})
        asked = plane.faults.add(Delay(0), user=USER)
        plane.faults.add(effect, verb="watch" if effect in NOT_OF_USE else "*", user=USER)
        await an_hour(clock, keeper.keep(lambda: nullcontext(client), installed))
    assert 3 <= asked.met <= 200


@pytest.mark.parametrize(("name", "seconds", "most"), [("another", 86400, 8), (NODE, 1, 90)])
async def test_a_signer_whose_certificates_are_of_little_use(
    plane: ControlPlane, tmp_path: Path, name: str, seconds: int, most: int
) -> None:
    """One leaves something out, another's last for a second: they are put to use, and the next request waits."""
    clock, shown = FakeClock(), 0

    class Keeper(CertificateKeeper):
        async def obtain(self, client: Client) -> Pair:
            pair = Pair.parse(self_signed(name, "127.0.0.1", clock.now()))
            self.pair = attrs.evolve(pair, not_after=clock.now() + timedelta(seconds=seconds))
            return self.pair

    async def show(pair: Pair) -> None:
        nonlocal shown
        shown += 1

    keeper = Keeper(tmp_path / "pki/serving.pem", SERVING_SIGNER, lambda: WANTED, clock, random.Random(1))
    async with node_client(plane, clock) as client:
        await an_hour(clock, keeper.keep(lambda: nullcontext(client), show))
    assert 2 <= shown <= most


async def test_retries_grow_and_are_short_again_after_success() -> None:
    clock = FakeClock()
    retries = Retries(Backoff(initial=1, cap=8, jitter=0), clock, steady=10)

    async def pause(lasted: float = 0.0, at_least: float = 0.0, *, progress: bool = False) -> float:
        retries.begin()
        clock.advance(lasted)
        if progress:
            retries.start_over()
        waiting = asyncio.create_task(retries.wait(at_least=at_least))
        seconds = await clock.until_asleep()
        clock.advance(seconds)
        await waiting
        return seconds

    assert [await pause() for _ in range(5)] == [1, 2, 4, 8, 8]
    assert await pause(lasted=10) == 1
    assert await pause() == 2
    assert await pause(progress=True) == 1
    assert await pause(at_least=30) == 30
    assert await pause(at_least=30) == 30
    assert await pause() == 8


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("7", 7), ("0", 0), ("-1", 1), ("nan", 1), ("inf", 300), ("1e9", 300), ("Wed, 21 Oct 2026 07:28:00 GMT", 1)],
)
def test_what_a_server_asks_to_wait(given: str, seconds: float) -> None:
    assert errors.from_status({}, 429, given).retry_after == seconds
    assert errors.from_status({}, 500).retry_after == 0


async def test_a_list_that_is_none_or_goes_in_circles_is_an_error(tmp_path: Path) -> None:
    """Neither is taken for an empty list, and no page is asked for without an end."""
    clock, count = FakeClock(), 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        more = {"metadata": {"resourceVersion": "5", "continue": "again"}, "items": []}
        return web.json_response(({}, {"items": []}, {"metadata": None}, more)[count % 4])

    seen = Seen()
    async with serving(answer, tmp_path) as client:
        await an_hour(clock, Reflector(client, Selection("/things"), seen, pacing=Pacing(clock)).run())
    assert not seen.calls
    assert 80 <= count <= 200
