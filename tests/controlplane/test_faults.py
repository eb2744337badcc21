"""Faults on demand, as plain clients see them: each does what it says, to whom it says, and ends when it says."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import time
from typing import Any

import aiohttp
import pytest

from tests.controlplane.client import MERGE, PODS, Api, node, open_api, pod
from tests.controlplane.conftest import Login
from wasmlet.controlplane.faults import Cut, Delay, Drop, Fail, Faults
from wasmlet.testing import ControlPlane

MAPS = "/api/v1/namespaces/kube-public/configmaps"
BROKEN = (aiohttp.ClientError, ConnectionError)


@pytest.fixture
def faults(control_plane: ControlPlane) -> Faults:
    return control_plane.faults


def config(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


async def names(api: Api) -> list[str]:
    found = await api.ok("GET", MAPS)
    return [item["metadata"]["name"] for item in found["items"] if item["metadata"]["name"] != "kube-root-ca.crt"]


async def test_a_connection_that_breaks_before_the_write_leaves_nothing(api: Api, faults: Faults) -> None:
    faults.add(Drop(), verb="create", count=1)
    with pytest.raises(BROKEN):
        await api("POST", MAPS, config("x"))
    assert await names(api) == []
    assert (await api("POST", MAPS, config("x")))[0] == 201


async def test_a_connection_that_breaks_before_the_answer_leaves_what_was_written(api: Api, faults: Faults) -> None:
    faults.add(Drop(after=True), verb="create", count=1)
    with pytest.raises(BROKEN):
        await api("POST", MAPS, config("x"))
    assert await names(api) == ["x"]
    assert (await api("POST", MAPS, config("x")))[1]["reason"] == "AlreadyExists"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(401, "Unauthorized"), (410, "Expired"), (500, "InternalError"), (503, "ServiceUnavailable")],
)
async def test_an_error_is_answered_and_nothing_done(api: Api, faults: Faults, code: int, reason: str) -> None:
    with faults.add(Fail(code)) as rule:
        for method, path, body in (("GET", MAPS, None), ("POST", MAPS, config("x"))):
            status, answer = await api(method, path, body)
            assert (status, answer["kind"], answer["reason"], answer["code"]) == (code, "Status", reason, code)
        assert rule.met == 2
    assert await names(api) == []


async def test_a_client_is_put_off_for_a_time(api: Api, faults: Faults) -> None:
    faults.add(Fail(429, retry_after=7), path=MAPS, count=1)
    async with api.session.get(api.server + MAPS) as answer:
        body = await answer.json()
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert (body["reason"], body["details"]) == ("TooManyRequests", {"retryAfterSeconds": 7})
    assert await names(api) == []


async def test_a_watch_gets_410_as_an_event(api: Api, faults: Faults) -> None:
    faults.add(Fail(410), verb="watch", count=1)
    async with api.watch(MAPS) as lines:
        event = await lines.next()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await lines.ended()
    async with api.watch(MAPS) as lines:
        assert await lines.take(1) == [("ADDED", "kube-root-ca.crt")]


@pytest.mark.parametrize("whole", [0, 2])
async def test_a_watch_breaks_in_the_middle_of_a_line(api: Api, faults: Faults, whole: int) -> None:
    for name in ("x", "y", "z"):
        await api.ok("POST", MAPS, config(name))
    faults.add(Cut(whole), verb="watch", count=1)
    async with api.watch(MAPS) as lines:
        assert await lines.take(whole) == [("ADDED", "kube-root-ca.crt"), ("ADDED", "x")][:whole]
        with pytest.raises(aiohttp.ClientPayloadError):
            await lines.next()
        assert lines.rest.startswith(b'{"type":"ADDED","object":{')
        assert b"\n" not in lines.rest


async def test_a_watch_breaks_in_a_line_that_comes_later(api: Api, faults: Faults) -> None:
    faults.add(Cut(1), verb="watch", count=1)
    async with api.watch(MAPS) as lines:
        assert await lines.take(1) == [("ADDED", "kube-root-ca.crt")]
        await api.ok("POST", MAPS, config("x"))
        with pytest.raises(aiohttp.ClientPayloadError):
            await lines.next()


async def test_a_request_waits_for_a_time(api: Api, faults: Faults) -> None:
    faults.add(Delay(0.2), count=1)
    begun = time.monotonic()
    assert await names(api) == []
    assert time.monotonic() - begun >= 0.2


async def test_a_request_waits_until_it_may_go_on_and_meets_what_comes_then(api: Api, faults: Faults) -> None:
    held = faults.add(Delay(), verb="create", count=1)
    faults.add(Fail(500), verb="create", count=1)
    waiting = asyncio.create_task(api("POST", MAPS, config("x")))
    await held.until()
    assert not waiting.done()
    assert (await api("POST", MAPS, config("y")))[0] == 500  # the second is not held any more
    assert await names(api) == []
    faults.clear()
    assert (await waiting)[0] == 201
    assert await names(api) == ["x"]


async def test_a_fault_meets_those_it_is_for(
    api: Api, faults: Faults, control_plane: ControlPlane, login: Login
) -> None:
    kubelet = await login(control_plane.node_kubeconfig("n1"))
    await api.ok("POST", "/api/v1/nodes", node("n1"))
    await api.ok("POST", PODS, pod(nodeName="n1"))
    faults.add(Fail(500), verb="patch", path="/api/*/pods/*/status", user="system:node:*")
    status = {"status": {"message": "here"}}
    assert (await kubelet("PATCH", f"{PODS}/p/status", status, media=MERGE))[0] == 500
    assert (await api("PATCH", f"{PODS}/p/status", status, media=MERGE))[0] == 200
    assert (await kubelet("PATCH", "/api/v1/nodes/n1/status", status, media=MERGE))[0] == 200
    assert (await kubelet("GET", f"{PODS}/p"))[0] == 200


async def test_what_happens_by_chance_happens_again_with_the_same_seed() -> None:
    async def run(seed: int) -> list[int]:
        async with ControlPlane(seed=seed) as plane, open_api(plane, plane.kubeconfig) as api:
            plane.faults.add(Fail(500), probability=0.5)
            return [(await api("GET", MAPS))[0] for _ in range(40)]

    first, second, other = await run(1), await run(1), await run(2)
    assert first == second != other
    assert 8 < first.count(500) < 32


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
async def test_an_outage_breaks_all_and_ends(api: Api, faults: Faults, silent: bool) -> None:
    async with api.watch(MAPS) as lines:
        await lines.take(1)
        async with faults.outage(silent=silent):
            with pytest.raises(BROKEN):
                await lines.next()
            if silent:
                asking = asyncio.create_task(api("POST", MAPS, config("never")))
                assert not (await asyncio.wait({asking}, timeout=0.1))[0]
            else:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await names(api)
    if silent:
        with pytest.raises(BROKEN):
            await asking
    await api.ok("POST", MAPS, config("x"))
    assert await names(api) == ["x"]


@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_begins_with_an_outage_gets_no_answer(
    control_plane: ControlPlane, faults: Faults, turns: int
) -> None:
    """Whether it was accepted or not, or is in its handshake; and no socket is left open, which is a warning here."""
    port = int(control_plane.url.rpartition(":")[2])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as begun:
        for _ in range(turns):
            await asyncio.sleep(0)
        async with faults.outage():
            with contextlib.suppress(ConnectionError):
                reader, writer = await asyncio.open_connection(sock=begun, ssl=context, server_hostname="")
                writer.write(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
                assert await reader.read(1) == b""
                writer.close()
        gc.collect()
    async with open_api(control_plane, control_plane.kubeconfig) as api:
        assert await names(api) == []


async def test_a_restart_keeps_the_objects_and_forgets_old_versions(api: Api, faults: Faults) -> None:
    start = (await api.ok("GET", MAPS))["metadata"]["resourceVersion"]
    await api.ok("POST", MAPS, config("x"))
    now = (await api.ok("GET", MAPS))["metadata"]["resourceVersion"]
    async with api.watch(MAPS, resourceVersion=now) as lines:
        await faults.restart()
        with pytest.raises(BROKEN):
            await lines.next()
    assert await names(api) == ["x"]
    async with api.watch(MAPS, resourceVersion=start) as lines:
        assert (await lines.next())["object"]["code"] == 410
    async with api.watch(MAPS, resourceVersion=now) as lines:
        await api.ok("DELETE", f"{MAPS}/x")
        assert await lines.take(1) == [("DELETED", "x")]


async def test_a_restart_with_an_older_state_takes_versions_back(api: Api, faults: Faults) -> None:
    kept = await api.ok("POST", MAPS, config("kept", a="old"))
    lost = await api.ok("POST", MAPS, config("lost"))
    state = faults.snapshot()
    await api.ok("PATCH", f"{MAPS}/kept", {"data": {"a": "new"}}, media=MERGE)
    await api.ok("DELETE", f"{MAPS}/lost")
    await api.ok("POST", MAPS, config("never"))
    newest = (await api.ok("GET", MAPS))["metadata"]["resourceVersion"]
    await faults.restart(state)
    assert await api.ok("GET", f"{MAPS}/kept") == kept
    assert await api.ok("GET", f"{MAPS}/lost") == lost
    assert await names(api) == ["kept", "lost"]
    found = await api.ok("GET", MAPS)
    assert int(found["metadata"]["resourceVersion"]) == state.version < int(newest)
    status, answer = await api("GET", f"{MAPS}?resourceVersion={newest}&resourceVersionMatch=NotOlderThan")
    assert (status, answer["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")
    again = await api.ok("POST", MAPS, config("never"))
    assert int(again["metadata"]["resourceVersion"]) == state.version + 1


async def test_an_emptier_state_has_room_for_pods_again(api: Api, faults: Faults) -> None:
    await api.ok("POST", "/api/v1/nodes", node("n1", pods="1"))
    state = faults.snapshot()
    for round_ in range(2):
        async with api.watch(PODS) as lines:
            await api.ok("POST", PODS, pod())
            while (await lines.next())["object"]["spec"].get("nodeName") != "n1":
                pass
        await faults.restart(state)
        assert (await api("GET", f"{PODS}/p"))[0] == 404, f"round {round_}"
    assert faults.snapshot() == state


async def test_the_port_stays_ours_during_an_outage(control_plane: ControlPlane, faults: Faults) -> None:
    port = int(control_plane.url.rpartition(":")[2])
    async with faults.outage():
        with pytest.raises(OSError, match="in use"):
            await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port, reuse_address=False)


async def test_a_control_plane_ends_in_the_middle_of_its_faults() -> None:
    async with ControlPlane() as plane, open_api(plane, plane.kubeconfig) as api:
        rule = plane.faults.add(Delay())
        waiting = asyncio.create_task(api("GET", MAPS))
        async with asyncio.timeout(30):
            await rule.until()
            await plane.__aexit__(None, None, None)
            with pytest.raises(BROKEN):
                await waiting
