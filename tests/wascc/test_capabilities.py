"""Capabilities as actors in pods have them: real servers, real mounts, and what is not granted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
from aiohttp import ClientSession

from tests.runtime.harness import Runtime
from tests.wascc.asking import ALL, EGRESS, Asker, until
from tests.wascc.pods import NODE, actor_pod, serving
from tests.wascc.servers import nats_server, redis_server
from tests.wascc.signing import actor, relay


async def test_logging_and_extras(node: Runtime, tmp_path: Path, client: ClientSession) -> None:
    image = actor(tmp_path, relay(), *ALL)
    key, url = await serving(node, actor_pod(image, {"capabilities": "logging extras"}))
    ask = Asker(client, url)
    assert await ask("wascc:logging", "WriteLog", level=2, target="here", body="first\nsecond") is None
    await node.logged(key, b"WARN here: first\nWARN here: second\n")
    for values, line in (([1, "short"], b"ERROR short\n"), ([4, "there", "long"], b"DEBUG there: long\n")):
        async with client.post(f"{url}/default/wascc:logging/WriteLog", data=msgpack.packb(values)) as answer:
            assert answer.status == 200
        await node.logged(key, line)
    found = [await ask("wascc:extras", "RequestSequence", sequence=True) for _ in range(3)]
    assert [one["sequenceNumber"] for one in found] == [0, 1, 2]
    assert found[0]["sequence_number"] == 0
    guid = (await ask("wascc:extras", "RequestGuid", guid=True))["guid"]
    assert len(guid) == 36
    number = (await ask("wascc:extras", "RequestRandom", random=True, min=5, max=5))["randomNumber"]
    assert number == 5
    assert "expected 0 <= min <= max" in await ask("wascc:extras", "RequestRandom", random=True, min=9, max=1)
    assert "has no operation 'Nonsense'" in await ask("wascc:extras", "Nonsense")
    # As older actors ask: with an enum, which is answered with one, whose number has no sign.
    found = []
    for asked in (b"\x91\x81\0\xc0", b"\x91\x81\1\xc0", b"\x91\x81\2\x92\5\5", b"\x91\x81\3\xc0"):
        async with client.post(f"{url}/default/wascc:extras/RequestGuid", data=asked) as answer:
            found.append(await answer.read())
    assert (found[0][:5], len(found[0])) == (b"\x91\x81\0\xd9\x24", 5 + 36)
    assert found[1:3] == [b"\x91\x81\1\3", b"\x91\x81\2\5"]
    assert b"expected one of the variants 0, 1 and 2" in found[3]
    assert "may not use wascc:keyvalue: its pod does not ask for it" in await ask("wascc:keyvalue", "Get", key="a")
    assert "may not use acme:none: the actor's signature does not claim it" in await ask("acme:none", "x")
    await node.event(key, "CapabilityDenied", "asked its host for acme:none, which it is not granted")
    await node.event(key, "CapabilityDenied", "asked its host for wascc:keyvalue, which")


async def test_redis_is_reached_by_an_egress_grant(
    node: Runtime, tmp_path: Path, client: ClientSession, there: str
) -> None:
    image = actor(tmp_path, relay(), *ALL)
    with redis_server(tmp_path, there, password="geheim") as server:
        url = f"redis://{there}:{server.port}"
        granted = {"keyvalue": url, EGRESS: f"{there}:{server.port}"}
        env = [{"name": "REDIS_PASSWORD", "value": "geheim"}]
        _, one = await serving(node, actor_pod(image, granted, name="one", env=env))
        _, two = await serving(node, actor_pod(image, granted, name="two", env=env))
        key, third = await serving(node, actor_pod(image, {"keyvalue": url}, name="third", env=env))
        assert await Asker(client, one)("wascc:keyvalue", "Add", key="shared", value=2) == {"value": 2}
        assert await Asker(client, two)("wascc:keyvalue", "Add", key="shared", value=3) == {"value": 5}
        refused = await Asker(client, third)("wascc:keyvalue", "Add", key="shared", value=1)
        assert "the pod's egress grant does not name it" in refused
        assert (await node.event(key, "EgressDenied")).message
    assert "refused" in (await Asker(client, one)("wascc:keyvalue", "Get", key="shared")).lower()


async def test_messages_of_a_broker(node: Runtime, tmp_path: Path, client: ClientSession, there: str) -> None:
    image = actor(tmp_path, relay(), *ALL)
    with nats_server(there) as server:
        broker = {"messaging": f"nats://{there}:{server.port}", EGRESS: f"{there}:{server.port}"}
        _, hearing = await serving(node, actor_pod(image, broker | {"subscriptions": "orders.*"}, name="hearing"))
        _, saying = await serving(node, actor_pod(image, broker, name="saying"))
        hears, says = Asker(client, hearing), Asker(client, saying)
        message = {"subject": "orders.new", "replyTo": "", "body": b"one"}

        async def said_and_heard() -> Any:
            await says("wascc:messaging", "Publish", message=message)
            return await hears.told()

        found = await until(said_and_heard, lambda told: told is not None)  # both connect on their own
        assert (found["subject"], found["body"], found["message"]["body"]) == ("orders.new", b"one", b"one")
        nobody = await says("wascc:messaging", "Request", subject="nobody.here", body=b"", timeout=100)
        assert "nobody has answered at nobody.here" in nobody

        mine = await hears("wascc:messaging", "Request", subject="orders.mine", body=b"me", timeout=100)
        assert "nobody has answered at orders.mine" in mine  # it cannot hear what it asks itself before it is done
        await until(hears.told, lambda told: told["body"] == b"me")

        reader, writer = await asyncio.open_connection(there, server.port)
        writer.write(b"CONNECT {}\r\nSUB answers 1\r\nPING\r\n")
        await reader.readuntil(b"PONG\r\n")
        asked = asyncio.create_task(says("wascc:messaging", "Request", subject="answers", body=b"why", timeout=20000))
        line = (await reader.readuntil(b"\r\n")).split()
        assert (line[0], line[1]) == (b"MSG", b"answers")
        assert await reader.readexactly(5) == b"why\r\n"
        writer.write(b"PUB " + line[3] + b" 9\r\n\xc4\x07because\r\n")
        assert await asked == b"because"
        writer.close()
        wild = await says("wascc:messaging", "Publish", message={"subject": "a.* b", "replyTo": "", "body": b""})
        assert "expected a subject" in wild
    await until(lambda: says("wascc:messaging", "Publish", message=message), lambda a: "no connection" in str(a))


async def test_blobs_are_files_of_a_mount(node: Runtime, tmp_path: Path, client: ClientSession) -> None:
    image = actor(tmp_path, relay(), *ALL)
    volumes = {"volumes": [{"name": "data", "emptyDir": {}}, {"name": "fixed", "emptyDir": {}}]}
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "fixed", "mountPath": "/fixed", "readOnly": True}]
    _, url = await serving(node, actor_pod(image, volumeMounts=mounts, spec=volumes))
    ask = Asker(client, url)

    async def blobs(operation: str, binding: str = "data", **message: Any) -> Any:
        return await ask("wascc:blobstore", operation, binding, **message)

    assert await blobs("CreateContainer", id="box") == {"id": "box"}
    where = {"container": "box", "id": "file"}
    await blobs("StartUpload", **where, sequenceNo=0, totalBytes=10, chunkSize=5, chunkBytes=b"")
    for number, chunk in enumerate((b"first", b"after")):
        await blobs("UploadChunk", **where, sequenceNo=number, totalBytes=10, chunkSize=5, chunkBytes=chunk)
    assert (await blobs("GetObjectInfo", **where, byteSize=0))["byteSize"] == 10
    assert [one["id"] for one in (await blobs("ListObjects", id="box"))["blobs"]] == ["file"]
    await blobs("StartDownload", **where, chunkSize=6)
    told = await until(ask.told, lambda told: told is not None and told["sequenceNo"] == 1)
    assert (told["chunkBytes"], told["totalBytes"]) == (b"fter", 10)

    for name in ("..", ".", "", "a/b", "/etc", "a\0b"):
        assert "expected" in await blobs("CreateContainer", id=name)
        assert "expected" in await blobs("RemoveObject", container="box", id=name)
    assert await blobs("CreateContainer", "fixed", id="x") in ("Read-only file system", "Permission denied")
    assert "there is no binding 'other': the container mounts data, fixed" in await blobs(
        "ListObjects", "other", id="x"
    )
    assert await blobs("ListObjects", id="gone") == "No such file or directory"
    await blobs("RemoveContainer", id="box")
    assert await blobs("ListObjects", id="box") == "No such file or directory"


async def test_a_capability_of_another_distribution(node: Runtime, tmp_path: Path, client: ClientSession) -> None:
    image = actor(tmp_path, relay(), "http_server", "example:clock")
    _, url = await serving(node, actor_pod(image, {"example.clock": '{"offset": "3600"}'}))
    ask = Asker(client, url)
    assert (await ask("example:clock", "Now"))["seconds"] - time.time() == pytest.approx(3600, abs=60)
    assert await ask("example:clock", "Fail") == "example:clock: there is no operation 'Fail', only Now"


async def test_settings_that_a_capability_does_not_take_are_said(node: Runtime, tmp_path: Path) -> None:
    image = actor(tmp_path, relay(), "http_server", "example:clock")
    pod = actor_pod(image, {"example.clock": '{"offset": "much"}'})
    key = await node.create(pod, NODE)
    ended = await node.ended(key)
    assert "capability example:clock cannot be made: invalid literal for int()" in ended.message
