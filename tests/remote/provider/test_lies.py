"""An agent that lies: what it says is bounded, and harms no pod but its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from wasmlet_agent.protocol import BEAT_SECONDS, MOST_BODY
from wasmlet_agent.protocol.codec import encode
from wasmlet_agent.protocol.failures import Failure
from wasmlet_agent.protocol.messages import (
    Accepted,
    Beat,
    EndedLine,
    EventLine,
    Hello,
    Line,
    ListedPod,
    NodeLine,
    PodList,
    SessionAnswer,
    StatusLine,
    line_out,
)
from wasmlet_remote import RemoteProvider

import wasmlet
from tests.node.cluster import NODE, Cluster, running
from tests.remote.agents import PATIENCE

STRANGER = wasmlet.PodKey("kube-system", "stranger", "no-such-uid")


class Liar:
    """An agent that takes every pod and then says what a test has it say.

    Attributes:
        says: what comes on the stream of changes beside its beginning.
        floods: whether the next stream of changes is a line that never ends.
        lists: what it lists.
        answers: what it answers to requests for pods, by method.
        ahead: how far its clock is ahead.
    """

    def __init__(self) -> None:
        self.says: asyncio.Queue[bytes] = asyncio.Queue()
        self.lists: list[ListedPod] = []
        self.answers: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.ahead = timedelta()
        self.floods = False
        self.forgets = False
        """The next stream is answered as by an agent whose disk is gone, and the session that follows with an error."""
        self._forgot = False
        self.requests: list[str] = []
        self._came = asyncio.Event()
        self.sinces: list[str] = []
        self.url = ""

    def say(self, *lines: Line) -> None:
        for line in lines:
            self.says.put_nowait(line_out(line))

    def came(self, request: str) -> None:
        self.requests.append(request)
        self._came.set()

    async def asked(self, request: str, times: int = 1) -> None:
        """Return when this was asked so many times."""
        async with asyncio.timeout(PATIENCE):
            while self.requests.count(request) < times:
                self._came.clear()
                await self._came.wait()

    def running(self, key: wasmlet.PodKey, n: int = 100) -> StatusLine:
        state = wasmlet.Running(datetime.now(UTC) + self.ahead)
        return StatusLine(n, key, wasmlet.PodStatus((wasmlet.ContainerStatus("c", state),)))

    async def _session(self, request: web.Request) -> web.Response:
        if self._forgot:
            self._forgot = False
            return _json(Failure("Failed", "the provider does not start"), 500)
        answer = SessionAnswer(1, "i", "liar", "0", 0, self._now(), ("logs", "stats"))
        return _json(answer)

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        self.came("changes")
        if self.forgets:
            self.forgets, self._forgot = False, True
            return _json(Failure("Unclaimed"), 409)
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(line_out(Hello("i", 1, self._now())))
        await answer.write(line_out(NodeLine(1, wasmlet.NodeStatus({"cpu": "1"}))))
        with suppress(ConnectionError):
            while self.floods:
                await answer.write(b"x" * 1_000_000)
            while True:
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        text = await self.says.get()
                except TimeoutError:
                    text = line_out(Beat(1, self._now()))
                await answer.write(text)
        self.floods = False
        return answer

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.came("list")
        if (answer := self.answers.get("LIST")) is not None:
            return await answer(request)
        return _json(PodList(1, tuple(self.lists)))

    async def _pod(self, request: web.Request) -> web.StreamResponse:
        self.came(request.method)
        await request.read()
        if (answer := self.answers.get(request.method)) is not None:
            return await answer(request)
        if request.method == "DELETE":
            self.say(EndedLine(100, request.match_info["uid"]))
        return _json(Accepted(), 202 if request.method == "DELETE" else 200)

    async def _logs(self, request: web.Request) -> web.Response:
        self.sinces.append(request.query["since"])
        return web.Response(body=b"line\n")

    def _now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=64 << 20)
        app.add_routes([web.post("/v1/session", self._session), web.get("/v1/changes", self._changes)])
        app.add_routes([web.get("/v1/pods", self._list), web.route("*", "/v1/pods/{uid}", self._pod)])
        app.add_routes([web.get("/v1/pods/{uid}/containers/{name}/logs", self._logs)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            await runner.cleanup()

    @asynccontextmanager
    async def started(self, directory: Path) -> AsyncIterator[RemoteProvider]:
        """A provider that believes it, without a node loop."""
        provider = RemoteProvider(RemoteProvider.Config(endpoint=self.url))
        try:
            await provider.start(wasmlet.NodeContext(NODE, "127.0.0.1", 10, directory))
            yield provider
        finally:
            await provider.stop()


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=encode(value), status=status, content_type="application/json")


async def endless(request: web.Request) -> web.StreamResponse:
    """An answer that never ends."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"x" * 65536)


async def status_told(provider: RemoteProvider) -> wasmlet.StatusChanged:
    """The next status that the provider tells."""
    async with asyncio.timeout(PATIENCE), aclosing(provider.changes()) as changes:
        async for change in changes:
            if isinstance(change, wasmlet.StatusChanged):
                return change
    raise AssertionError("the changes ended")


@pytest.fixture
async def liar() -> AsyncIterator[Liar]:
    liar = Liar()
    async with liar.serving():
        yield liar


@asynccontextmanager
async def node(cluster: Cluster, liar: Liar) -> AsyncIterator[wasmlet.Node]:
    provider = RemoteProvider(RemoteProvider.Config(endpoint=liar.url))
    async with wasmlet.Node(provider, cluster.config()) as node:
        yield node


async def test_statuses_of_pods_that_are_not_the_nodes_change_nothing(cluster: Cluster, liar: Liar) -> None:
    elsewhere = await cluster.create("elsewhere", nodeName="n2")
    async with node(cluster, liar):
        mine = await cluster.create("mine", restartPolicy="Never")
        liar.say(liar.running(STRANGER), liar.running(elsewhere.key), liar.running(mine.key))
        liar.say(EventLine(101, wasmlet.PodEvent(elsewhere.key, "Lie", "it is mine")))
        await cluster.until(running, "mine")
        assert (await cluster.get("elsewhere")).raw == elsewhere.raw
        assert await cluster.events("elsewhere") == []


async def test_a_name_that_is_not_the_pods_is_not_taken(cluster: Cluster, liar: Liar) -> None:
    """The UID says which pod is meant."""
    async with node(cluster, liar):
        other = await cluster.create("other", restartPolicy="Never")
        mine = await cluster.create("mine", restartPolicy="Never")
        liar.say(liar.running(wasmlet.PodKey("default", "other", mine.uid)))
        await cluster.until(running, "mine")
        assert (await cluster.get("other")).phase == "Pending"
        assert (await cluster.get("other")).uid == other.uid


async def test_a_pod_that_has_failed_does_not_run_again(cluster: Cluster, liar: Liar) -> None:
    ended = wasmlet.PodStatus((wasmlet.ContainerStatus("c", wasmlet.Terminated(3, finished_at=datetime.now(UTC))),))
    async with node(cluster, liar):
        mine = await cluster.create("mine", restartPolicy="Never")
        liar.say(liar.running(mine.key))
        await cluster.until(running, "mine")
        liar.say(StatusLine(101, mine.key, ended))
        await cluster.until(lambda pod: pod.phase == "Failed", "mine")
        liar.say(liar.running(mine.key, 102))
        marker = await cluster.create("marker", restartPolicy="Never")
        liar.say(liar.running(marker.key, 103))
        await cluster.until(running, "marker")
        assert (await cluster.get("mine")).phase == "Failed"


async def test_pods_that_the_api_does_not_know_are_ended_at_the_agent(cluster: Cluster, liar: Liar) -> None:
    liar.lists = [ListedPod(STRANGER, wasmlet.PodStatus())]
    async with node(cluster, liar):
        await liar.asked("DELETE")
        mine = await cluster.create("mine")
        liar.say(liar.running(mine.key))
        await cluster.until(running, "mine")


@pytest.mark.parametrize(
    "nonsense",
    [b"no json\n", b"[]\n", b'{"type": "status", "n": "no"}\n', b'{"type": 7}\n', b"[" * 10_000 + b"\n", b"\n\xff\n"],
    ids=["text", "list", "number", "type", "deep", "bytes"],
)
async def test_lines_that_make_no_sense_are_passed_over(liar: Liar, tmp_path: Path, nonsense: bytes) -> None:
    async with liar.started(tmp_path) as provider:
        liar.says.put_nowait(nonsense)
        liar.say(liar.running(STRANGER))
        assert (await status_told(provider)).key == STRANGER
        assert liar.requests.count("changes") == 1


async def test_a_stream_of_nonsense_alone_is_ended(liar: Liar, tmp_path: Path) -> None:
    """What is wrong with a line takes long to find out: a host would have no time for its other agents."""
    async with liar.started(tmp_path) as provider:
        liar.says.put_nowait(b'{"type":"status"}\n' * 1000)
        await liar.asked("changes", 2)
        liar.say(*[liar.running(STRANGER)] * 4)  # the stream that was left takes some
        assert (await status_told(provider)).key == STRANGER


async def test_a_line_that_never_ends_ends_the_stream(liar: Liar, tmp_path: Path) -> None:
    liar.floods = True
    async with liar.started(tmp_path) as provider:
        await liar.asked("changes", 2)
        liar.say(liar.running(STRANGER))
        assert (await status_told(provider)).key == STRANGER


async def test_an_agent_that_is_begun_with_anew_may_fail_at_first(liar: Liar, tmp_path: Path) -> None:
    liar.forgets = True
    async with liar.started(tmp_path) as provider:
        await liar.asked("changes", 2)
        liar.say(liar.running(STRANGER))
        assert (await status_told(provider)).key == STRANGER


async def test_statuses_of_more_pods_than_there_can_be_are_not_kept(liar: Liar, tmp_path: Path) -> None:
    async with liar.started(tmp_path):
        liar.say(*(liar.running(wasmlet.PodKey("default", str(n), str(n))) for n in range(1200)))
        await liar.asked("changes", 2)


async def test_an_answer_that_is_too_long_is_not_read(liar: Liar, tmp_path: Path) -> None:
    liar.answers["LIST"] = endless
    async with liar.started(tmp_path) as provider:
        listing = asyncio.create_task(provider.list_pods())
        await liar.asked("list", 2)
        assert not listing.done()
        del liar.answers["LIST"]
        assert await listing == []
    assert MOST_BODY < 100_000_000


async def test_an_answer_that_comes_a_byte_at_a_time_is_given_up(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few of them would take all places for requests, and no pod could be created or ended."""

    async def dripping(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.01)

    monkeypatch.setattr("wasmlet_remote.link.MOST_SECONDS", 0.5)
    liar.answers["LIST"] = dripping
    async with liar.started(tmp_path) as provider:
        listing = asyncio.create_task(provider.list_pods())
        await liar.asked("list", 2)
        del liar.answers["LIST"]
        assert await listing == []


async def test_times_and_since_are_corrected_for_the_agents_clock(liar: Liar, tmp_path: Path) -> None:
    liar.ahead = timedelta(days=-20)
    async with liar.started(tmp_path) as provider:
        liar.say(liar.running(STRANGER))
        change = await status_told(provider)
        state = change.status.containers[0].state
        assert isinstance(state, wasmlet.Running)
        assert abs(state.started_at - datetime.now(UTC)) < timedelta(minutes=1)
        since = datetime(2026, 1, 21, 12, tzinfo=UTC)
        options = wasmlet.LogOptions(since_time=since)
        assert [piece async for piece in provider.logs(STRANGER, "c", options)] == [b"line\n"]
        asked = datetime.fromisoformat(liar.sinces[0])
        assert abs(asked - datetime(2026, 1, 1, 12, tzinfo=UTC)) < timedelta(minutes=1)
        (skew,) = (await provider.node_status()).conditions
        assert (skew.type, skew.status) == ("ClockSkew", "True")
        assert "behind" in skew.message


async def test_a_clock_that_is_centuries_off_breaks_nothing(liar: Liar, tmp_path: Path) -> None:
    liar.ahead = timedelta(days=365 * 1500)
    earliest = datetime(1, 1, 1, tzinfo=UTC)
    began = wasmlet.PodStatus((wasmlet.ContainerStatus("c", wasmlet.Running(earliest)),), start_time=earliest)
    async with liar.started(tmp_path) as provider:
        liar.say(StatusLine(100, STRANGER, began))
        assert (await status_told(provider)).status == began
        latest = datetime(9999, 12, 31, tzinfo=UTC)
        options = wasmlet.LogOptions(since_time=latest)
        assert [piece async for piece in provider.logs(STRANGER, "c", options)] == [b"line\n"]
        assert liar.sinces == [latest.isoformat()]
        assert liar.requests.count("changes") == 1


async def test_an_agents_clock_that_is_right_is_not_corrected(liar: Liar, tmp_path: Path) -> None:
    async with liar.started(tmp_path) as provider:
        line = liar.running(STRANGER)
        liar.say(line)
        change = await status_told(provider)
        assert change.status == line.status
        assert (await provider.node_status()).conditions == ()
