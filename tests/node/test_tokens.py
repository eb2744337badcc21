"""Service-account tokens: bound to the pod, asked for once, refreshed in time, and nobody else's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.kube.server import serving
from tests.node.cluster import Cluster, running
from wasmlet.errors import WasmletError
from wasmlet.kube import Client
from wasmlet.model.inputs import TokenKey
from wasmlet.model.pod import Pod
from wasmlet.model.times import rfc3339
from wasmlet.node.tokens import TokenManager
from wasmlet.testing.clock import FakeClock
from wasmlet.testing.reference import ReferenceProvider

POD = Pod({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"serviceAccountName": "robot"}})


async def test_a_pod_is_handed_the_token_that_admission_mounts(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        pod = await cluster.create()
        await cluster.until(running)
    tokens = provider.inputs[pod.uid].tokens
    assert [key.audience for key in tokens] == [""]
    assert next(iter(tokens.values()))


class Server:
    """Gives numbered tokens that live for an hour by the fake clock; fails while `failing`."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[dict[str, Any]] = []
        self.failing = False
        self.news = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path == "/api/v1/namespaces/d/serviceaccounts/robot/token"
        self.asked.append(await request.json())
        self.news.set()
        if self.failing:
            return web.json_response({"kind": "Status", "code": 500, "message": "not now"}, status=500)
        until = rfc3339(self.clock.now() + timedelta(hours=1))
        return web.json_response({"status": {"token": f"token-{len(self.asked)}", "expirationTimestamp": until}})

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(30):
            while len(self.asked) < times:
                self.news.clear()
                await self.news.wait()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
async def server(clock: FakeClock, tmp_path: Path) -> AsyncIterator[tuple[Server, Client]]:
    server = Server(clock)
    async with serving(server.answer, tmp_path) as client:
        yield server, client


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(seconds=-7200)], ids=["ahead", "behind"])
async def test_a_clock_that_differs_from_the_api_servers_asks_for_no_token_more(
    tmp_path: Path, ahead: timedelta
) -> None:
    """The token's end is by the API server's clock; by this machine's it has ended long ago, or ends much later."""
    clock, asked = FakeClock(datetime(2026, 1, 1, tzinfo=UTC)), 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        until = rfc3339(clock.now() - ahead + timedelta(hours=1))
        status = {"token": f"token-{asked}", "expirationTimestamp": until}
        return web.json_response({"spec": {"expirationSeconds": 3600}, "status": status})

    async with serving(answer, tmp_path) as client, asyncio.TaskGroup() as group:
        manager = TokenManager(client, group, lambda uid: None, clock, random.Random(1))
        await manager.tokens(POD, frozenset([TokenKey("v", 3600)]))
        while clock.monotonic() < 3600:
            clock.advance(await clock.next_sleep())
        manager.release(POD.uid)
    assert asked == 2


async def test_asked_for_once_and_refreshed_at_80_percent(server: tuple[Server, Client], clock: FakeClock) -> None:
    api, client = server
    changed: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        manager = TokenManager(client, group, changed.put_nowait, clock, random.Random(1))
        wanted = frozenset([TokenKey("vault", 3600)])
        assert list((await manager.tokens(POD, wanted)).values()) == ["token-1"]
        assert list((await manager.tokens(POD, wanted)).values()) == ["token-1"]
        spec = api.asked[0]["spec"]
        assert spec["audiences"] == ["vault"]
        assert spec["expirationSeconds"] == 3600
        assert spec["boundObjectRef"] == {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}

        due = await clock.next_sleep()
        assert 0.8 * 3600 - 10 <= due <= 0.8 * 3600
        api.failing = True
        clock.advance(due)
        await api.until_asked(2)
        clock.advance(await clock.next_sleep())
        await api.until_asked(3)
        api.failing = False
        clock.advance(await clock.next_sleep())
        assert await changed.get() == "u"
        assert list((await manager.tokens(POD, wanted)).values()) == [f"token-{len(api.asked)}"]
        manager.release("u")


async def test_a_token_that_is_not_given_is_told_without_it(server: tuple[Server, Client], clock: FakeClock) -> None:
    api, client = server
    api.failing = True
    async with asyncio.TaskGroup() as group:
        manager = TokenManager(client, group, lambda uid: None, clock, random.Random(1))
        with pytest.raises(WasmletError, match=r"no token for service account 'robot' of d/p: not now"):
            await manager.tokens(POD, frozenset([TokenKey()]))
