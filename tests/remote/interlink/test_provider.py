"""`PluginProvider` against a plugin that is as strict as the public SDK."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from wasmlet_remote.interlink import InterlinkConfig, PluginProvider

from tests.remote.interlink.plugin import STARTED
from tests.remote.interlink.stand import Stand, a_pod, log_of, state_of
from wasmlet import ConfigError, Inputs, LogOptions, NodeContext, NotFound, Pod, Running, Terminated, Unsupported

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


async def test_the_kernel_sees_to_it_that_a_plugin_is_there_while_a_log_is_silent(stand: Stand) -> None:
    """Nothing comes on a connection whose other end has lost its power, not even its end."""
    config = InterlinkConfig(endpoint=stand.url)
    async with config.client() as client, client.stream("GET", "/status") as response:
        used = response.extensions["network_stream"].get_extra_info("socket")
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


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
