"""Parts of RemoteProvider: its settings, what it sends of a pod, and the agent's clock."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from wasmlet_agent.protocol.frames import STDIN, STDOUT, Data, frame_out
from wasmlet_remote import Config, RemoteProvider
from wasmlet_remote.bodies import PACKED_ABOVE, body_of
from wasmlet_remote.clocks import Offset
from wasmlet_remote.mailbox import MOST_EVENTS, Mailbox
from wasmlet_remote.websocket import WebSocket
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

import wasmlet

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = wasmlet.PodKey("ns", "p", "u")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"endpoint": "device:8443"}, "expected the URL of an agent"),
        ({"endpoint": "ftp://device"}, "expected the URL of an agent"),
        ({"endpoint": "https://device:no"}, "expected the URL of an agent"),
        ({"endpoint": "https://device/path"}, "expected the URL of an agent"),
        ({"endpoint": "https://me:hunter2@device"}, "expected the URL of an agent"),
        ({"endpoint": f"https://{'a' * 64}.example"}, "expected the URL of an agent"),
        ({"endpoint": "https://device..example:8443"}, "expected the URL of an agent"),
        ({"endpoint": "http://device:8443"}, "expected https:// or a loopback address"),
        ({"endpoint": "http://10.0.0.1:8443"}, "expected https:// or a loopback address"),
        ({"tls_cert_file": Path("x")}, "belong together"),
        ({"tls_ca_file": Path("/nowhere")}, "/nowhere: No such file or directory"),
        ({"tls_ca_file": Path(__file__)}, "expected certificates in PEM"),
        ({"token_file": Path("/nowhere")}, "/nowhere: No such file or directory"),
        ({"token_file": Path(__file__)}, "expected a token"),
    ],
)
async def test_what_is_wrong_with_the_settings_is_said(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(wasmlet.ConfigError, match=says) as found:
        await RemoteProvider(Config(**settings)).check()
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize("endpoint", ["http://localhost:1", "http://127.0.0.9", "http://[::1]:8443", "https://device"])
async def test_plain_http_is_for_loopback(endpoint: str) -> None:
    await RemoteProvider(Config(endpoint=endpoint)).check()


def sent(pod: wasmlet.Pod, inputs: wasmlet.Inputs) -> dict[str, Any]:
    body = body_of(pod, inputs)
    packed = body.headers.get("Content-Encoding") == "gzip"
    plain = gzip.decompress(body.content) if packed else body.content
    assert body.digest == hashlib.sha256(plain).hexdigest()
    return dict(orjson.loads(plain))


def service(namespace: str, name: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "uid": "u", "managedFields": [{"manager": "m"}]}
    return {"metadata": metadata, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}], "selector": {"a": "b"}}}


def pod(**spec: Any) -> wasmlet.Pod:
    metadata = {"namespace": "ns", "name": "p", "uid": "u", "managedFields": [{"manager": "kubectl"}]}
    return wasmlet.Pod({"metadata": metadata, "spec": {"containers": [{"name": "c"}], **spec}})


SERVICES = (service("default", "kubernetes"), service("ns", "web"))


def test_only_what_an_agent_needs_is_sent() -> None:
    held = {"metadata": {"name": "s", "managedFields": [{"manager": "m"}]}, "data": {"k": "dg=="}}
    inputs = wasmlet.Inputs(config_maps={"s": held}, secrets={"s": held}, services=SERVICES)
    found = sent(pod(), inputs)
    assert found["pod"]["metadata"] == {"namespace": "ns", "name": "p", "uid": "u"}
    for objects in ("config_maps", "secrets"):
        assert found["inputs"][objects] == {"s": {"metadata": {"name": "s"}, "data": {"k": "dg=="}}}
    assert found["inputs"]["services"] == [
        {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
        }
        for namespace, name in (("default", "kubernetes"), ("ns", "web"))
    ]


def test_a_pod_without_service_links_is_sent_the_api_servers_service_alone() -> None:
    found = sent(pod(enableServiceLinks=False), wasmlet.Inputs(services=SERVICES))
    assert [value["metadata"]["name"] for value in found["inputs"]["services"]] == ["kubernetes"]


def test_large_bodies_are_packed() -> None:
    large = {"metadata": {"name": "s"}, "data": {"k": "a" * 2 * PACKED_ABOVE}}
    body = body_of(pod(), wasmlet.Inputs(secrets={"s": large}))
    assert len(body.content) < PACKED_ABOVE
    assert sent(pod(), wasmlet.Inputs(secrets={"s": large}))["inputs"]["secrets"]["s"] == large
    assert "Content-Encoding" not in body_of(pod(), wasmlet.Inputs()).headers


def test_a_body_shows_no_secret_where_it_is_logged() -> None:
    held = {"metadata": {"name": "s"}, "data": {"k": "secret-value"}}
    assert "secret-value" not in repr(body_of(pod(), wasmlet.Inputs(secrets={"s": held})))


def told(offset: Offset, *seconds: float) -> list[float]:
    """The offset after each measure."""
    found = []
    for ahead in seconds:
        offset.measured(NOW + timedelta(seconds=ahead), NOW)
        found.append(offset.value.total_seconds())
    return found


def test_small_differences_of_clocks_are_those_of_the_way() -> None:
    assert told(Offset(), 0.5, -0.9, 0.9, -0.2) == [0, 0, 0, 0]


def test_a_clock_that_is_off_is_measured_by_what_was_fastest() -> None:
    assert told(Offset(), 30, 29.5, 20, 30.2) == [30, 30, 30, 30]


def test_a_clock_that_is_set_right() -> None:
    offset = Offset()
    assert told(offset, -1000, 0) == [-1000, 0]
    assert not offset.skewed
    assert told(offset, -8, -8, -8) == [0, 0, -8]
    assert offset.skewed


def test_every_time_of_a_status_is_corrected() -> None:
    offset = Offset()
    told(offset, 100)
    later = NOW + timedelta(seconds=100)
    ended = wasmlet.Terminated(0, started_at=later, finished_at=later)

    def status(at: datetime) -> wasmlet.PodStatus:
        shown = wasmlet.Terminated(0, started_at=at, finished_at=at)
        parts = (
            wasmlet.ContainerStatus("r", wasmlet.Running(at), last_state=shown),
            wasmlet.ContainerStatus("t", shown),
            wasmlet.ContainerStatus("w"),
        )
        return wasmlet.PodStatus(parts, parts, parts, start_time=at)

    assert ended.finished_at == later
    assert offset.ours(status(later)) == status(NOW)


async def test_a_mailbox_keeps_the_newest_of_each_pod_and_a_bounded_number_of_events() -> None:
    mailbox = Mailbox(2)
    for n in range(MOST_EVENTS + 5):
        mailbox.put(wasmlet.PodEvent(KEY, "Pulled", str(n)))
    for message in ("old", "new"):
        mailbox.put(wasmlet.StatusChanged(KEY, wasmlet.PodStatus(message=message)))
    mailbox.put(wasmlet.StatusChanged(wasmlet.PodKey("ns", "q", "v"), wasmlet.PodStatus()))
    with pytest.raises(wasmlet.WasmletError, match="more than 2 pods"):
        mailbox.put(wasmlet.StatusChanged(wasmlet.PodKey("ns", "r", "w"), wasmlet.PodStatus()))
    mailbox.put(wasmlet.NodeChanged())
    mailbox.again()
    found = [change async for change in mailbox.changes()]
    assert found[0] == wasmlet.StatusChanged(KEY, wasmlet.PodStatus(message="new"))
    assert len(found) == 2 + MOST_EVENTS + 1
    assert found[-1] == wasmlet.NodeChanged()


class HeldBack:
    """The network of a websocket whose agent reads nothing until `reads` is set, and has sent this."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self.writes = asyncio.Event()
        self.reads = asyncio.Event()
        self.written = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        sent, self._sent = self._sent, b""
        return sent

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self.writes.set()
        await self.reads.wait()
        self.written += buffer


async def test_output_is_read_while_the_agent_takes_no_input_though_it_pings() -> None:
    """Else neither side would read: what runs there may read on only when its output is taken."""
    agent = Connection(ConnectionType.SERVER)
    output, stdin = Data(STDOUT, b"output"), Data(STDIN, b"input")
    network = HeldBack(agent.send(Ping(b"p")) + agent.send(BytesMessage(data=frame_out(output))))
    socket = WebSocket(network, "http://agent")
    writing = asyncio.create_task(socket.send(stdin))
    await network.writes.wait()
    async with asyncio.timeout(30):
        assert await socket.receive() == output
    network.reads.set()
    await writing
    await socket.send(stdin)
    agent.receive_data(network.written)
    message = frame_out(stdin)
    assert list(agent.events()) == [BytesMessage(data=message), Pong(b"p"), BytesMessage(data=message)]


async def test_what_is_written_to_an_agent_that_has_ended_the_call_does_not_hide_how_it_ended() -> None:
    agent, last = Connection(ConnectionType.SERVER), Data(STDOUT, b"the last word")
    said = agent.send(BytesMessage(data=frame_out(last))) + agent.send(CloseConnection(code=1000))
    network = HeldBack(said)
    network.reads.set()
    socket = WebSocket(network, "http://agent")
    assert await socket.receive() == last
    before = network.written
    await socket.send(Data(STDIN, b"too late"))
    assert network.written == before
    with pytest.raises(wasmlet.WasmletError, match="ended the stream"):
        await socket.receive()
