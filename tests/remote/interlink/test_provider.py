"""`PluginProvider` against a plugin that is as strict as the public SDK, and against ones that are broken."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from wasmlet_remote.config import Config
from wasmlet_remote.interlink import InterlinkConfig, PluginProvider, plugin, provider

from tests.node.cluster import Cluster
from tests.remote.interlink.plugin import STARTED, StrictPlugin, serving
from wasmlet import (
    ConfigError,
    Inputs,
    LogOptions,
    NodeContext,
    NotFound,
    Pod,
    PodStatus,
    Refused,
    Running,
    Terminated,
    Unsupported,
    Waiting,
    WasmletError,
)
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane, FakeClock

PATIENCE = 60.0


def a_pod(uid: str = "u-1", *, restart: str = "Never") -> Pod:
    metadata = {"name": f"pod-{uid}", "namespace": "team", "uid": uid}
    containers = [{"name": "main", "image": "tool:v1", "command": ["run"]}]
    return Pod({"metadata": metadata, "spec": {"containers": containers, "restartPolicy": restart}})


class Stand:
    """A plugin that listens, and the state directory of its node."""

    def __init__(self, far: StrictPlugin, url: str, state: Path) -> None:
        self.far = far
        self.url = url
        self.state = state
        self.clock = FakeClock()

    @asynccontextmanager
    async def provider(self, **settings: Any) -> AsyncIterator[PluginProvider]:
        """A provider that is started, as a node loop has it."""
        found = PluginProvider(InterlinkConfig(endpoint=self.url, **settings), clock=self.clock)
        await found.start(NodeContext("n", "127.0.0.1", 10, self.state))
        try:
            yield found
        finally:
            await found.stop()

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.far.asked]


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    far = StrictPlugin()
    async with serving(far) as url:
        yield Stand(far, url, tmp_path)


def state_of(status: PodStatus) -> Any:
    return status.containers[0].state


async def log_of(found: PluginProvider, pod: Pod, **options: Any) -> bytes:
    async with aclosing(found.logs(pod.key, "main", LogOptions(**options))) as pieces:
        return b"".join([piece async for piece in pieces])


# --- a pod's life


@pytest.mark.parametrize("wants_list", [False, True])
@pytest.mark.parametrize("snake", [False, True])
async def test_a_pods_life_in_either_form_and_spelling(stand: Stand, wants_list: bool, snake: bool) -> None:
    stand.far.wants_list, stand.far.snake = wants_list, snake
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        await found.create_pod(pod, Inputs())
        assert stand.far.created == ["u-1"]
        assert state_of(await found.pod_status(pod.key)) == Running(datetime.fromisoformat(STARTED))
        assert await log_of(found, pod) == b"one\ntwo\n"
        stand.far.end("u-1", 3)
        status = await found.pod_status(pod.key)
        assert isinstance(state_of(status), Terminated)
        assert (state_of(status).exit_code, status.phase) == (3, "Failed")
        asked = len(stand.far.asked)
        assert await found.pod_status(pod.key) == status
        assert len(stand.far.asked) == asked  # what has ended is not asked for
        assert await found.delete_pod(pod.key, 30) == status
        assert stand.far.jobs == {}
        with pytest.raises(NotFound):
            await found.pod_status(pod.key)
        assert await found.list_pods() == []
    assert [method for method, path, _ in stand.far.asked if path == "/delete"] == ["POST"]


async def test_the_form_that_a_plugin_wants_is_found_out_once(stand: Stand) -> None:
    stand.far.wants_list = True
    async with stand.provider() as found:
        for number in range(3):
            await found.create_pod(a_pod(f"u-{number}"), Inputs())
    assert stand.paths().count("/create") == 4
    assert stand.far.created == ["u-0", "u-1", "u-2"]


async def test_a_pod_that_runs_when_it_is_deleted_was_killed(stand: Stand) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        status = await found.delete_pod(pod.key, 0)
        assert status is not None
        assert state_of(status).exit_code == 137
        with pytest.raises(NotFound):
            await found.delete_pod(pod.key, 0)


async def test_each_pod_is_asked_for_by_itself(stand: Stand) -> None:
    async with stand.provider() as found:
        pods = [a_pod(f"u-{number}") for number in range(8)]
        await asyncio.gather(*(found.create_pod(pod, Inputs()) for pod in pods))
        statuses = await asyncio.gather(*(found.pod_status(pod.key) for pod in pods))
    assert all(isinstance(state_of(status), Running) for status in statuses)
    assert {len(body) for _, path, body in stand.far.asked if path == "/status"} == {1}


async def test_a_deployments_pod_that_has_ended_is_not_taken_for_one_that_restarts(stand: Stand) -> None:
    pod = a_pod(restart="Always")
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        stand.far.end("u-1", 0)
        assert (await found.pod_status(pod.key)).phase == "Succeeded"


async def test_another_process_of_the_node_goes_on(stand: Stand) -> None:
    pods = [a_pod("u-1"), a_pod("u-2")]
    async with stand.provider() as found:
        for pod in pods:
            await found.create_pod(pod, Inputs())
            await found.pod_status(pod.key)
    stand.far.end("u-2", 4)
    async with stand.provider() as found:
        listed = {record.key: record.status for record in await found.list_pods()}
        assert {key.uid for key in listed} == {"u-1", "u-2"}
        assert isinstance(state_of(listed[pods[0].key]), Running)
        await found.create_pod(pods[0], Inputs())
        assert stand.far.created == ["u-1", "u-2"]
        assert state_of(await found.pod_status(pods[1].key)).exit_code == 4
        assert await log_of(found, pods[1]) == b"one\ntwo\n"
        await found.delete_pod(pods[0].key, 0)
    assert list(stand.far.jobs) == ["u-2"]


async def test_what_is_kept_on_disk_has_no_values_and_one_reader(stand: Stand) -> None:
    pod = a_pod()
    containers = [{**pod.spec["containers"][0], "env": [{"name": "PASSWORD", "value": "hunter2"}]}]
    async with stand.provider() as found:
        await found.create_pod(Pod({**pod.raw, "spec": {**pod.spec, "containers": containers}}), Inputs())
    (file,) = (stand.state / "interlink").iterdir()
    text = await asyncio.to_thread(file.read_text)
    assert "job-1" in text
    assert "hunter2" not in text
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


async def test_a_record_that_cannot_be_read_is_passed_over(stand: Stand) -> None:
    async with stand.provider() as found:
        await found.create_pod(a_pod(), Inputs())
    (stand.state / "interlink" / "u-2.json").write_bytes(b"{rubbish")
    (stand.state / "interlink" / "u-3.json").write_bytes(b'{"pod": {}, "created": "2026-01-01T00:00:00Z"}')
    async with stand.provider() as found:
        assert [record.key.uid for record in await found.list_pods()] == ["u-1"]


# --- answers that are lost


async def test_a_pod_is_begun_once_though_the_answer_is_lost(stand: Stand) -> None:
    pod = a_pod()
    stand.far.lose = {"/create"}
    async with stand.provider() as found:
        with pytest.raises(WasmletError, match="/create"):
            await found.create_pod(pod, Inputs())
        await found.create_pod(pod, Inputs())
        assert stand.far.created == ["u-1"]
        assert isinstance(state_of(await found.pod_status(pod.key)), Running)


async def test_another_process_finds_a_pod_whose_answer_was_lost(stand: Stand) -> None:
    stand.far.lose = {"/create"}
    async with stand.provider() as found:
        with pytest.raises(WasmletError):
            await found.create_pod(a_pod("u-1"), Inputs())
        stand.far.answers["/create"] = web.Response(status=500, text="x")
        with pytest.raises(WasmletError):
            await found.create_pod(a_pod("u-2"), Inputs())
        stand.far.answers.clear()
    async with stand.provider() as found:
        assert [record.key.uid for record in await found.list_pods()] == ["u-1"]
        await found.create_pod(a_pod("u-2"), Inputs())
        assert stand.far.created == ["u-1", "u-2"]


async def test_a_delete_whose_answer_is_lost_is_repeated(stand: Stand) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        stand.far.end("u-1", 5)
        await found.pod_status(pod.key)
        stand.far.lose = {"/delete"}
        with pytest.raises(WasmletError, match="/delete"):
            await found.delete_pod(pod.key, 0)
        status = await found.delete_pod(pod.key, 0)
        assert status is not None
        assert state_of(status).exit_code == 5


async def test_a_create_that_nobody_waits_for_any_more_has_ended_before_the_delete(stand: Stand) -> None:
    pod = a_pod()
    gate, asked = asyncio.Event(), asyncio.Event()
    create = plugin.Plugin.create

    async def held_back(self: plugin.Plugin, body: Any) -> Any:
        asked.set()
        await gate.wait()
        return await create(self, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin.Plugin, "create", held_back)
        async with stand.provider() as found:
            creating = asyncio.create_task(found.create_pod(pod, Inputs()))
            await asked.wait()
            creating.cancel()
            await asyncio.wait([creating])
            deleting = asyncio.create_task(found.delete_pod(pod.key, 0))
            gate.set()
            await deleting
    assert stand.far.created == ["u-1"]
    assert stand.far.jobs == {}


# --- a plugin that does not know a pod


async def test_a_pod_is_lost_only_after_a_while(stand: Stand) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        before = await found.pod_status(pod.key)
        del stand.far.jobs["u-1"]
        for _ in range(provider.MISSES + 2):
            assert await found.pod_status(pod.key) == before
        stand.clock.advance(provider.MISSED_SECONDS)
        with pytest.raises(NotFound, match="no pod"):
            await found.pod_status(pod.key)
        await found.create_pod(pod, Inputs())  # as the node loop does where the restart policy lets it
        assert stand.far.created == ["u-1", "u-1"]


async def test_a_plugin_in_trouble_loses_no_pods_for_a_long_while(stand: Stand) -> None:
    """As when its batch system is down, which it may answer with an error of its own."""
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        before = await found.pod_status(pod.key)
        stand.far.answers["/status"] = web.Response(status=500, text="squeue: cannot contact slurm controller")
        for _ in range(provider.MISSES + 2):
            assert await found.pod_status(pod.key) == before
        stand.clock.advance(provider.MISSED_SECONDS)
        assert await found.pod_status(pod.key) == before
        stand.clock.advance(provider.TROUBLE_SECONDS)
        with pytest.raises(NotFound, match="no pod"):
            await found.pod_status(pod.key)


@pytest.mark.parametrize(
    "cached",
    [
        [],
        [{"UID": "another", "containers": []}],
        [{"UID": "u-1", "containers": [{"name": "main", "state": {}}]}],
        ["rubbish", None, 3],
        {"nothing": 1},
        "cached",
        None,
    ],
)
async def test_an_answer_that_is_about_no_pod_of_ours_changes_nothing(stand: Stand, cached: Any) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        before = await found.pod_status(pod.key)
        stand.far.cached = cached
        assert await found.pod_status(pod.key) == before
        stand.far.cached = None
        stand.far.end("u-1", 0)
        assert (await found.pod_status(pod.key)).phase == "Succeeded"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"waiting": {}}, Waiting("ContainerCreating")),
        ({"waiting": {"reason": "Queued", "message": "10 before it"}}, Waiting("Queued", "10 before it")),
        ({"running": {"startedAt": "0001-01-01T00:00:00Z"}}, None),
        ({"running": {"startedAt": 1767261600}}, None),
        ({"running": {}}, None),
        ({"terminated": {"exitCode": 300}}, 300),
        ({"terminated": {"exitCode": -1}}, -1),
        ({"terminated": {"exitCode": "no"}}, 128),
        ({"terminated": {"exitCode": 2**40}}, 128),
        ({"terminated": {"exitCode": True}}, 1),
    ],
)
async def test_states_are_read_with_care(stand: Stand, state: dict[str, Any], expected: Any) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        stand.far.jobs["u-1"].state = state
        status = await found.pod_status(pod.key)
        assert await found.pod_status(pod.key) == status  # a start that is not told does not move
    match expected:
        case None:
            assert state_of(status) == Running(stand.clock.now())
        case int():
            assert state_of(status).exit_code == expected
        case _:
            assert state_of(status) == expected


# --- logs


async def test_options_of_a_log_are_named_for_both_kinds_of_plugin(stand: Stand) -> None:
    pod = a_pod()
    since = datetime(2026, 1, 1, tzinfo=UTC)
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        assert await log_of(found, pod, limit_bytes=5) == b"one\nt"
        assert await log_of(found, pod, tail_lines=1, limit_bytes=3, since_time=since, timestamps=True) == b"one"
        assert await log_of(found, pod, tail_lines=0) == b""
        bodies = [body["Opts"] for _, path, body in stand.far.asked if path == "/getLogs"]
    plain = {"Follow": False, "Previous": False}
    assert bodies == [
        plain | {"Timestamps": False, "Bytes": 5, "LimitBytes": 5},
        plain | {"Timestamps": True, "Tail": 1, "SinceTime": "2026-01-01T00:00:00Z"},
    ]


async def test_a_log_may_be_a_string_in_json(stand: Stand) -> None:
    pod = a_pod()
    stand.far.plain_logs = False
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        assert await log_of(found, pod) == b"one\ntwo\n"
        assert await log_of(found, pod, limit_bytes=3) == b"one"


async def test_a_log_is_followed_and_can_be_left(stand: Stand) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        async with aclosing(found.logs(pod.key, "main", LogOptions(follow=True))) as pieces:
            assert await anext(pieces) == b"one\ntwo\n"
        stream = found.logs(pod.key, "main", LogOptions(follow=True))
        assert await anext(stream) == b"one\ntwo\n"
        stand.far.following.set()
        assert [piece async for piece in stream] == [b"three\n"]


async def test_a_log_of_what_is_not_there(stand: Stand) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        with pytest.raises(NotFound, match="nobody"):
            await anext(found.logs(pod.key, "nobody", LogOptions()))
        with pytest.raises(NotFound, match="never started again"):
            await log_of(found, pod, previous=True)
        stand.far.jobs.clear()
        with pytest.raises(NotFound, match="no log"):
            await log_of(found, pod)


# --- what interLink has no word for


async def test_what_interlink_has_no_word_for_is_unsupported(stand: Stand) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        calls = ("logs", "exec", "attach", "port_forward", "stats")
        assert [call for call in calls if found.supports(call)] == ["logs"]
        with pytest.raises(Unsupported):
            await found.exec(pod.key, "main", ["ls"], None)  # type: ignore[arg-type]
        with pytest.raises(Unsupported):
            await found.stats()


async def test_the_node_gives_what_the_administrator_says(stand: Stand) -> None:
    async with stand.provider(capacity=("cpu=4", "memory=8Gi", "nvidia.com/gpu=1")) as found:
        assert (await found.node_status()).capacity == {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"}


# --- a plugin that is away or broken


async def test_any_answer_of_the_plugin_itself_is_health(stand: Stand) -> None:
    async with stand.provider() as found:
        await found.ping()  # an error 500, since the SDK looks at the first of no pods
        stand.far.answers["/status"] = web.Response(status=502, text="bad gateway")
        with pytest.raises(WasmletError, match="away: HTTP 502"):
            await found.ping()
    assert stand.far.asked[0] == ("GET", "/status", [])


def calls_of(found: PluginProvider, pod: Pod) -> list[Coroutine[Any, Any, Any]]:
    """One of each call that asks the plugin; the pod is known to it."""
    return [
        found.ping(),
        found.pod_status(pod.key),
        log_of(found, pod),
        found.create_pod(a_pod("u-2"), Inputs()),
        found.delete_pod(pod.key, 0),
    ]


async def test_a_plugin_that_is_away_loses_nothing(tmp_path: Path) -> None:
    pod, far = a_pod(), StrictPlugin()
    async with AsyncExitStack() as stack:
        async with serving(far) as url:
            found = await stack.enter_async_context(Stand(far, url, tmp_path).provider())
            await found.create_pod(pod, Inputs())
            before = await found.pod_status(pod.key)
        for call in calls_of(found, pod):
            with pytest.raises(WasmletError, match="does not answer"):
                await call
        async with serving(far, httpx.URL(url).port):
            assert await found.pod_status(pod.key) == before
            await found.create_pod(a_pod("u-2"), Inputs())
            await found.delete_pod(pod.key, 0)
        assert far.created == ["u-1", "u-2"]
        assert list(far.jobs) == ["u-2"]


PATHS = ("/create", "/status", "/delete", "/getLogs")


async def test_a_plugin_that_hangs_is_given_up(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        stand.far.hang = {*PATHS}
        monkeypatch.setattr(plugin, "ANSWER_SECONDS", 0.2)
        for call in calls_of(found, pod):
            with pytest.raises(WasmletError, match=r"did not answer /\w+ within|does not answer"):
                await call


async def test_an_answer_without_end_is_cut_off(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "MOST_ANSWER", 2**20)
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        stand.far.endless = {*PATHS}
        await found.ping()
        for call in (found.pod_status(pod.key), found.create_pod(a_pod("u-2"), Inputs())):
            with pytest.raises(WasmletError, match="more than 1 MiB"):
                await call
        assert await log_of(found, pod, limit_bytes=1000) == b"x" * 1000


async def test_an_answer_of_100_mb_is_not_taken(stand: Stand) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        stand.far.answers["/status"] = web.Response(body=bytes(100 * 2**20))
        with pytest.raises(WasmletError, match="more than 8 MiB"):
            await found.pod_status(pod.key)


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(body=b"\xff\x00 rubbish"),
        web.Response(body=b"[" * 100_000),
        web.Response(body=b""),
        web.Response(body=b"null", content_type="application/json"),
        web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        web.Response(status=500, body=b'{"detail": {"a": [1]}}'),
        web.Response(status=418),
    ],
    ids=["binary", "deep", "empty", "null", "redirect", "error", "teapot"],
)
async def test_rubbish_changes_nothing(stand: Stand, answer: web.Response) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        before = await found.pod_status(pod.key)
        stand.far.answers["/status"] = answer
        assert await found.pod_status(pod.key) == before
        await found.ping()


async def test_what_a_plugin_refuses_is_said_without_what_it_was_sent(stand: Stand) -> None:
    raw = a_pod().raw
    containers = [{"name": "main", "image": 3, "env": [{"name": "PASSWORD", "value": "hunter2"}]}]
    async with stand.provider() as found:
        with pytest.raises(Refused, match=r"body\.pod\.spec\.containers\.0\.image: .* valid str") as refused:
            await found.create_pod(Pod({**raw, "spec": {"containers": containers}}), Inputs())
        assert "hunter2" not in str(refused.value)
        assert await found.list_pods() == []
        await found.create_pod(a_pod(), Inputs())
        assert stand.far.created == ["u-1"]


async def test_an_answer_for_another_pod_is_no_answer(stand: Stand) -> None:
    async with stand.provider() as found:
        stand.far.answers["/create"] = web.json_response({"PodUID": "u-9", "PodJID": "1"})
        with pytest.raises(WasmletError, match="another pod"):
            await found.create_pod(a_pod(), Inputs())


async def test_a_delete_that_fails_is_told_and_one_of_a_pod_that_is_gone_is_done(stand: Stand) -> None:
    pod = a_pod()
    async with stand.provider() as found:
        await found.create_pod(pod, Inputs())
        stand.far.answers["/delete"] = web.json_response({"detail": "scancel failed"}, status=500)
        with pytest.raises(WasmletError, match="scancel failed"):
            await found.delete_pod(pod.key, 0)
        stand.far.answers.clear()
        stand.far.jobs.clear()
        assert await found.delete_pod(pod.key, 0) is not None


# --- settings


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"endpoint": "http://plugin.example:4000"}, "plain http"),
        ({"endpoint": "ftp://127.0.0.1"}, "expected a URL"),
        ({"endpoint": "plugin"}, "expected a URL"),
        ({"endpoint": "https://me:secret@plugin"}, "expected a URL"),
        ({"capacity": ("cpu",)}, "--capacity: expected a resource"),
        ({"capacity": ("cpu=much",)}, "--capacity: expected a resource"),
        ({"protocol": "wasmlet"}, "--protocol: expected interlink"),
        ({"token_file": Path("/nowhere")}, "--token-file /nowhere: No such file"),
        ({"tls_cert_file": Path(__file__)}, "expected both or neither"),
    ],
)
def test_settings_that_are_wrong_are_named(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        InterlinkConfig(**{"endpoint": "http://localhost:1", **settings})


async def test_a_ca_file_without_certificates_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("nothing")
    with pytest.raises(ConfigError, match=r"tls-ca-file: .*/ca\.crt: expected certificates"):
        await PluginProvider(InterlinkConfig(endpoint="https://localhost:1", tls_ca_file=file)).check()
    with pytest.raises(ConfigError, match="--endpoint URL"):
        await PluginProvider().check()


async def test_a_token_is_shown_and_read_again_when_it_is_refused(tmp_path: Path) -> None:
    good, shown = ["first"], []

    async def ask(request: web.Request) -> web.Response:
        shown.append(request.headers.get("Authorization"))
        return web.json_response([], status=200 if shown[-1] == f"Bearer {good[0]}" else 401)

    app = web.Application()
    app.router.add_get("/status", ask)
    token = tmp_path / "token"
    token.write_text("first\n")
    async with TestServer(app, host="127.0.0.1") as server:
        found = PluginProvider(InterlinkConfig(endpoint=str(server.make_url("/")), token_file=token))
        await found.start(NodeContext("n", "127.0.0.1", 10, tmp_path))
        await found.ping()
        good[0] = "second"
        token.write_text("second\n")
        await found.ping()
        await found.stop()
    assert shown == ["Bearer first", "Bearer first", "Bearer second"]


# --- as a node


class Impatient(PluginProvider):
    """The same, and asks its plugin often."""

    poll_seconds = 0.05


async def test_create_to_logs_to_delete_with_a_restart_of_the_node_loop_between(tmp_path: Path, kubectl: Path) -> None:
    far = StrictPlugin()
    async with (
        ControlPlane(node_monitor_grace=None) as plane,
        Client(await load_identity(plane.kubeconfig)) as admin,
        serving(far) as url,
    ):
        cluster = Cluster(plane, admin, tmp_path, seconds=PATIENCE)
        container = {"name": "c", "image": "tool", "env": [{"name": "KEY", "value": "x"}]}

        async with cluster.node(Impatient(InterlinkConfig(endpoint=url))):
            first = await cluster.create("p", containers=[container], restartPolicy="Never")
            await cluster.until(lambda pod: pod.phase == "Running")
            await cluster.create("stays", containers=[container], restartPolicy="Never")
            stays = await cluster.until(lambda pod: pod.phase == "Running", "stays")
        far.end(first.uid, 7)
        async with cluster.node(Impatient(InterlinkConfig(endpoint=url))):
            ended = await cluster.until(lambda pod: pod.phase == "Failed")
            assert ended.status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
            log = await asyncio.create_subprocess_exec(
                str(kubectl), "--kubeconfig", str(plane.kubeconfig), "logs", "stays", stdout=asyncio.subprocess.PIPE
            )
            assert (await log.communicate())[0] == b"one\ntwo\n"
            for name in ("p", "stays"):
                await cluster.delete(name)
                await cluster.until_gone(name)
    assert far.created == [first.uid, stays.uid]
    assert far.jobs == {}


@pytest.mark.parametrize(
    ("args", "variable"),
    [(["--protocol", "interlink"], None), (["--protocol=interlink"], None), ([], "interlink")],
)
async def test_the_command_takes_the_provider_of_the_protocol(args: list[str], variable: str | None) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from wasmlet_remote import main; main()", *args, "--capacity", "nonsense",
        env=os.environ | ({"WASMLET_PROTOCOL": variable} if variable else {}), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode().startswith("Error: --capacity: expected a resource")


def test_another_protocol_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="expected wasmlet, found 'smoke'; say interlink with --protocol"):
        Config(protocol="smoke").check()
