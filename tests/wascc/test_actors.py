"""Actors in pods: signed, confined, asked over HTTP at their pods' addresses."""

from __future__ import annotations

import asyncio
import io
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectionError, ClientSession
from wasmlet_wascc import Seed, WasccEngine
from wasmlet_wascc.claims import signed
from wasmtime import wat2wasm

from tests.runtime.harness import Runtime
from tests.wascc.pods import LATE, NODE, actor_pod, serving
from tests.wascc.signing import ACCOUNT, actor, claims, unsigned, written
from wasmlet.errors import ConfigError, NotFound, Refused
from wasmlet.model.pod import PodKey
from wasmlet.model.status import Waiting


async def test_an_actor_answers_and_counts(node: Runtime, tmp_path: Path) -> None:
    image = actor(tmp_path, unsigned("counter"), "http_server", "keyvalue")
    key, url = await serving(node, actor_pod(image, {"keyvalue": "memory"}))
    async with ClientSession(timeout=LATE) as client:
        for count in (1, 2, 3):
            async with client.get(f"{url}/path?query") as answer:
                assert (answer.status, await answer.json()) == (200, {"counter": count})
        async with client.get(f"{url}/other") as answer:
            assert await answer.json() == {"counter": 1}
    await node.provider.delete_pod(key, 1.0)


async def test_an_actor_gets_all_of_a_request(node: Runtime, tmp_path: Path) -> None:
    _, url = await serving(node, actor_pod(actor(tmp_path, unsigned("echo"), "http_server")))
    async with ClientSession(timeout=LATE) as client:
        body = bytes(range(256)) * 200
        async with client.post(url, data=body) as answer:
            assert (answer.status, await answer.read()) == (200, body)
            assert answer.headers["content-type"] == "text/plain"
        async with client.head(f"{url}/x") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        answers = await asyncio.gather(*(_text(client, f"{url}/{number}") for number in range(100)))
        assert answers == [f"/{number}" for number in range(100)]


async def _text(client: ClientSession, url: str, **more: Any) -> str:
    async with client.get(url, **more) as answer:
        return await answer.text()


async def test_a_probe_without_a_path_asks_for_its_health(node: Runtime, tmp_path: Path) -> None:
    image = actor(tmp_path, unsigned("echo"), "http_server")
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    key, url = await serving(node, actor_pod(image, readinessProbe=probe))
    await node.main(key, lambda status: status.ready)
    async with ClientSession(timeout=LATE) as client:
        assert await _text(client, url, headers={"User-Agent": "kube-probe/1.36"}) == "ok\n"
        assert await _text(client, url, headers={"User-Agent": "curl"}) == "/"


async def test_a_capability_that_is_not_asked_for_is_refused_with_an_event(node: Runtime, tmp_path: Path) -> None:
    image = actor(tmp_path, unsigned("counter"), "http_server", "keyvalue")
    key, url = await serving(node, actor_pod(image, {"capabilities": "logging"}))
    async with ClientSession(timeout=LATE) as client, client.get(url) as answer:
        assert (answer.status, await answer.text()) == (500, "the actor failed\n")
    await node.logged(
        key, b"GET /: the actor answers with an error: the actor may not use wascc:keyvalue: its pod does"
    )
    await node.event(key, "CapabilityNotGranted", "wascc:keyvalue: its pod does not ask for it")
    await node.event(key, "CapabilityNotClaimed", "wascc:logging: its signature does not claim it")


@pytest.mark.parametrize(
    ("wasm", "more", "words"),
    [
        (unsigned("echo"), {"account": Seed.new("account"), "issuer": ACCOUNT.public.text}, "not that of their issuer"),
        (unsigned("echo"), {"expires": 5}, "have expired at 1970-01-01T00:00:05Z: sign it again"),
        (unsigned("echo"), {"not_before": int(time.time()) + 3600}, "not valid before"),
        (b"\0asm\1\0\0\0", {}, "does not export the function __guest_call"),
    ],
)
async def test_an_actor_that_is_not_to_be_run_says_why(
    node: Runtime, tmp_path: Path, wasm: bytes, more: dict[str, Any], words: str
) -> None:
    key = await node.create(actor_pod(actor(tmp_path, wasm, "http_server", **more)), NODE)
    assert words in await _why(node, key)


async def test_a_module_without_a_signature_says_so(node: Runtime, tmp_path: Path) -> None:
    (tmp_path / "bare.wasm").write_bytes(unsigned("echo"))
    key = await node.create(actor_pod(f"file://{tmp_path}/bare.wasm"), NODE)
    assert "the actor is not signed" in await _why(node, key)


async def _why(node: Runtime, key: PodKey) -> str:
    """Why the container waits, once it says so."""
    found = await node.main(key, lambda status: isinstance(status.state, Waiting) and bool(status.state.message))
    assert isinstance(found.state, Waiting)
    return found.state.message


@pytest.mark.parametrize(
    ("container", "field"),
    [
        ({"args": ["x"]}, "spec.containers[0].args"),
        ({"command": ["x"]}, "spec.containers[0].command"),
        ({"stdin": True}, "spec.containers[0].stdin"),
        ({"livenessProbe": {"exec": {"command": ["x"]}}}, "spec.containers[0].livenessProbe.exec"),
        ({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}, "spec.containers[0].lifecycle.preStop.exec"),
    ],
)
async def test_what_makes_no_sense_for_an_actor_is_refused_by_name(
    node: Runtime, container: dict[str, Any], field: str
) -> None:
    with pytest.raises(Refused) as refused:
        await node.create(actor_pod("file:///x.wasm", **container), NODE)
    assert refused.value.field == field


async def test_an_actor_has_one_instance(node: Runtime) -> None:
    with pytest.raises(Refused, match="one instance"):
        await node.create(actor_pod("file:///x.wasm", {"wasmlet.dev/http-concurrency": "2"}), NODE)


A_YEAR = "(i64.store (i32.const 1016) (i64.const 1)) (i64.store (i32.const 1024) (i64.const 31536000000000000))"

FAULTS = {
    f"{A_YEAR} (drop (call $poll_oneoff (i32.const 1000) (i32.const 2000) (i32.const 1) (i32.const 2100))) "
    "(i32.const 1)": "taken longer than 1 s",
    "(call $response (i32.const 32) (i32.const 29)) (i32.const 1)": "whose name or value cannot be sent",
    "(call $response (i32.const 96) (i32.const 24)) (i32.const 1)": "expected bytes, found int",
    "unreachable": "the actor has failed",
    "(i32.const 1)": "expected a map, found NoneType",
    "(call $response (i32.const 0) (i32.const 1)) (i32.const 1)": "expected a map, found int",
    "(call $response (i32.const -8) (i32.const 100)) (i32.const 1)": "names memory that it does not have",
    "(call $response (i32.const 0) (i32.const -1)) (i32.const 1)": "which is more than",
    "(call $error (i32.const 9) (i32.const 3)) (i32.const 0)": "answers with an error: why",
    "(call $request (i32.const 0x7ffffff0) (i32.const 0)) (i32.const 1)": "names memory that it does not have",
    "(loop (br 0)) (i32.const 1)": "taken longer than 1 s",
    "(loop (drop (call $host_call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) "
    "(i32.const 0) (i32.const 0))) (br 0)) (i32.const 1)": "taken longer than 1 s",
}


CODE = "\\aastatusCode\\cc\\c8"
DATA = f"""(data (i32.const 0) "\\01\\81\\a1a\\01\\00\\00\\00\\00why")
(data (i32.const 32) "\\82{CODE}\\a6header\\81\\a1a\\a4x\\0d\\0ay")
(data (i32.const 96) "\\82{CODE}\\a4body\\ce\\77\\35\\94\\00")"""


@pytest.mark.parametrize("body", FAULTS)
async def test_a_request_that_fails_is_a_line_of_the_log(node: Runtime, tmp_path: Path, body: str) -> None:
    image = actor(tmp_path, written(body, DATA), "http_server")
    key, url = await serving(node, actor_pod(image, {"wasmlet.dev/http-timeout": "1"}))
    async with ClientSession(timeout=LATE) as client:
        for _ in range(2):  # a new instance comes after one that has failed
            async with client.get(f"{url}/path") as answer:
                assert answer.status == (504 if "1 s" in FAULTS[body] else 500)
    log = await node.logged(key, FAULTS[body].encode())
    assert b"GET /path: " in log
    assert (await node.running(key)).restart_count == 0


NEVER = '(func (export "_start") (loop (br 0)))'


async def test_an_actor_that_is_never_ready_is_ended(node: Runtime, tmp_path: Path) -> None:
    """`test_host` has more of these."""
    key = await node.create(actor_pod(actor(tmp_path, written("(i32.const 1)", NEVER), "http_server")), NODE)
    ended = await node.ended(key)
    assert ended.message == "the actor cannot be started: it is not ready after 10 s"
    assert ended.reason == "StartError"


async def test_an_actor_that_is_never_ready_can_be_deleted(node: Runtime, tmp_path: Path) -> None:
    image = actor(tmp_path, written("(i32.const 1)", NEVER), "http_server")
    key = await node.create(actor_pod(image), NODE)
    await node.event(key, "Created", "")
    await node.provider.delete_pod(key, 0.1)
    with pytest.raises(NotFound):
        await node.provider.pod_status(key)


async def test_an_actor_of_the_first_generation_is_refused_by_name(node: Runtime, tmp_path: Path) -> None:
    oldest = """(module
      (import "wapc" "__host_call" (func (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 0)))"""
    key = await node.create(actor_pod(actor(tmp_path, wat2wasm(oldest), "http_server")), NODE)
    assert "which speaks protobuf, and this engine speaks MessagePack" in await _why(node, key)


@pytest.mark.parametrize(("env", "port"), [([], 8080), ([{"name": "PORT", "value": "8089"}], 8089)])
async def test_an_actor_needs_no_declared_port(
    node: Runtime, tmp_path: Path, env: list[dict[str, str]], port: int
) -> None:
    image = actor(tmp_path, unsigned("echo"), "http_server")
    key, url = await serving(node, actor_pod(image, ports=[], env=env))
    async with ClientSession(timeout=LATE) as client:
        assert await _text(client, f"{url.removesuffix(':8080')}:{port}/there") == "/there"
    assert (await node.running(key)).restart_count == 0


async def test_an_actor_that_does_not_claim_to_serve_is_not_served(node: Runtime, tmp_path: Path) -> None:
    key, url = await serving(node, actor_pod(actor(tmp_path, unsigned("echo"))))
    await node.event(key, "CapabilityNotClaimed", "wascc:http_server: its signature does not claim it")
    async with ClientSession(timeout=LATE) as client:
        with pytest.raises(ClientConnectionError):
            await client.get(url)


@pytest.mark.parametrize("words", ["Guest call failed: bad dispatch", 'Could not find function "HealthRequest"'])
async def test_an_actor_that_has_nothing_to_say_of_its_health_is_well(
    node: Runtime, tmp_path: Path, words: str
) -> None:
    told = words.replace('"', "\\22")
    body = f"(call $error (i32.const 0) (i32.const {len(words)})) (i32.const 0)"
    image = actor(tmp_path, written(body, f'(data (i32.const 0) "{told}")'), "http_server")
    _, url = await serving(node, actor_pod(image))
    async with ClientSession(timeout=LATE) as client:
        async with client.get(url, headers={"User-Agent": "kube-probe/1.36"}) as answer:
            assert answer.status == 200
        async with client.get(url) as answer:
            assert answer.status == 500


async def test_an_actor_that_is_not_well_is_restarted(node: Runtime, tmp_path: Path) -> None:
    image = actor(tmp_path, written("unreachable"), "http_server")
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    key = await node.create(actor_pod(image, livenessProbe=probe, restart="Always"), NODE)
    await node.main(key, lambda status: status.restart_count >= 1)
    await node.event(key, "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500")


async def test_init_containers_are_refused(node: Runtime) -> None:
    init = {"name": "init", "image": "file:///x.wasm"}
    with pytest.raises(Refused, match="it has no init containers") as refused:
        await node.create(actor_pod("file:///x.wasm", spec={"initContainers": [init]}), NODE)
    assert refused.value.field == "spec.initContainers"


async def test_bodies_are_bounded(node: Runtime, tmp_path: Path) -> None:
    _, url = await serving(node, actor_pod(actor(tmp_path, unsigned("echo"), "http_server")))
    async with ClientSession(timeout=LATE) as client:
        async with client.post(url, data=io.BytesIO(b"x" * (5 * 2**20))) as answer:
            assert answer.status == 413
        async with client.post(url, data=b"x" * 100_000) as answer:
            assert answer.status == 500  # the actor itself says that this is too long
        assert await _text(client, f"{url}/x") == "/x"


def test_whom_a_node_trusts_is_said() -> None:
    assert "--wascc-issuers names those whom you trust" in WasccEngine().notice
    assert WasccEngine((ACCOUNT.public.text,)).notice.endswith(f"are run: {ACCOUNT.public.text}")


def test_only_actors_of_trusted_issuers_run() -> None:
    with pytest.raises(ConfigError, match="--wascc-issuers"):
        WasccEngine(("nobody",))
    engine = WasccEngine((Seed.new("account").public.text,))
    pod = actor_pod("file:///x.wasm")
    facts = engine.examine(signed(unsigned("echo"), claims(), ACCOUNT))
    with pytest.raises(Refused, match="not among the issuers that this node trusts"):
        engine.guest_settings(pod, pod.containers[0], facts, time.time())
