"""Actors that others have built and signed, unmodified: run where `--actors` names a directory that has them.

They are not in this repository. Those of wascc-host are in its `examples/.assets`; those of krustlet's history (commits
4c5bd597, 48496e67, c2cfe46e and 8adaa9d0) are expected with `krustlet_` before their names.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.runtime.harness import Runtime
from tests.wascc.asking import EGRESS, until
from tests.wascc.pods import NODE, actor_pod, serving
from tests.wascc.servers import nats_server
from wasmlet.model.pod import PodKey
from wasmlet.model.status import Waiting


@pytest.fixture
def actors(request: pytest.FixtureRequest) -> Path:
    directory = request.config.getoption("--actors")
    if directory is None:
        pytest.skip("--actors names no directory")
    return Path(directory)


def image(actors: Path, name: str) -> str:
    file = (actors / f"{name}.wasm").absolute()
    if not file.exists():
        pytest.skip(f"{file} is not there")
    return f"file://{file}"


async def answers(node: Runtime, client: ClientSession, image: str, count: int = 1, **annotations: str) -> Any:
    """What it answers for the last time; and which pod it is."""
    key, url = await serving(node, actor_pod(image, annotations))
    found = None
    for _ in range(count):
        async with client.get(f"{url}/path?a=b") as answer:
            assert answer.status == 200, await node.log(key)
            found = await answer.text()
    return key, found


@pytest.mark.parametrize("name", ["echo", "echo2", "krustlet_echo"])
async def test_echo(node: Runtime, client: ClientSession, actors: Path, name: str) -> None:
    key, url = await serving(node, actor_pod(image(actors, name)))
    async with client.post(f"{url}/path?a=b", data=b"\x01\x02") as answer:
        told = json.loads(await answer.text())
    assert (told["method"], told["path"], told["query_string"], told["body"]) == ("POST", "/path", "a=b", [1, 2])
    async with client.get(url, headers={"User-Agent": "kube-probe/1.36"}) as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    await node.provider.delete_pod(key, 5)


@pytest.mark.parametrize(
    ("name", "count", "told"),
    [
        ("kvcounter", 3, {"counter": 3}),
        ("kvcounter_tweaked", 3, None),
        ("multibinding", 2, None),
        ("as-actor", 130, {"count": 130}),
    ],
)
async def test_counters(
    node: Runtime, client: ClientSession, actors: Path, name: str, count: int, told: dict[str, int] | None
) -> None:
    _, found = await answers(node, client, image(actors, name), count, keyvalue="memory", capabilities="logging")
    assert str(count) in found
    assert told in (None, json.loads(found.rstrip("\0")))


async def test_logger(node: Runtime, client: ClientSession, actors: Path) -> None:
    key, _ = await answers(node, client, image(actors, "logger"), capabilities="logging")
    await node.logged(key, b"WARN Received an HTTP request")


async def test_extras(node: Runtime, client: ClientSession, actors: Path) -> None:
    _, found = await answers(node, client, image(actors, "extras"), 2, capabilities="extras")
    assert json.loads(found)["sequence"] == 1


async def test_subscriber(node: Runtime, client: ClientSession, actors: Path, there: str) -> None:
    """It claims messages alone; it logs what it is told."""
    with nats_server(there) as server:
        place = f"{there}:{server.port}"
        broker = {"messaging": f"nats://{place}", "subscriptions": "test", EGRESS: place}
        key = await node.create(actor_pod(image(actors, "subscriber"), broker, ports=[]), NODE)
        await node.running(key)

        async def said() -> bytes:
            _, writer = await asyncio.open_connection(there, server.port)
            writer.write(b"CONNECT {}\r\nPUB test answers 5\r\nhello\r\nPING\r\n")
            await writer.drain()
            writer.close()
            return await node.log(key)

        await until(said, lambda log: b"test" in log)


async def test_of_what_this_node_does_not_have(node: Runtime, client: ClientSession, actors: Path) -> None:
    key, url = await serving(node, actor_pod(image(actors, "wasi_consumer")))
    async with client.get(url) as answer:
        assert answer.status == 500
    await node.event(key, "CapabilityNotGranted", "wascc:wasidemo: this node does not have it")
    await node.event(key, "CapabilityDenied", "wascc:wasidemo")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("krustlet_greet_actor_signed", "speaks protobuf"),
        ("krustlet_echo_actor_signed", "speaks protobuf"),
        ("wasi_provider", "is a capability provider, not an actor"),
    ],
)
async def test_what_does_not_run_is_named(node: Runtime, actors: Path, name: str, words: str) -> None:
    key = await node.create(actor_pod(image(actors, name)), NODE)
    assert words in await _why(node, key)


async def _why(node: Runtime, key: PodKey) -> str:
    found = await node.main(key, lambda status: isinstance(status.state, Waiting) and bool(status.state.message))
    assert isinstance(found.state, Waiting)
    return found.state.message
