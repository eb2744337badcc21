"""`PluginProvider` and answers that are lost, late, without end or rubbish, and plugins that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from wasmlet_remote.interlink import PluginProvider, plugin, provider

from tests.remote.interlink.plugin import StrictPlugin, serving
from tests.remote.interlink.stand import Stand, a_pod, log_of, state_of
from wasmlet import Inputs, NotFound, Pod, Refused, Running, Waiting, WasmletError

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
