"""Capabilities by TLS: real servers whose authority the system trusts, and some whose it does not."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from wasmlet_wascc import WasccProvider
from wasmlet_wascc.worker.borrowed import wire
from wasmlet_wascc.worker.failures import Ended
from wasmlet_wascc.worker.links import SocketLink

from tests.runtime.harness import Runtime
from tests.shared.authority import Authority
from tests.wascc.asking import ALL, EGRESS, Asker, until
from tests.wascc.pods import actor_pod, serving
from tests.wascc.servers import nats_server, redis_server
from tests.wascc.signing import actor, relay
from wasmlet.runtime import RuntimeConfig


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "trusted").mkdir()
    return Authority(tmp_path / "trusted")


@pytest.fixture
async def node(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runtime]:
    """A node whose system trusts the authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    config = RuntimeConfig(allow_local_modules=True, network="address")
    async with Runtime(WasccProvider, tmp_path / "state", config) as started:
        yield started


async def test_redis_by_tls(
    node: Runtime, tmp_path: Path, client: ClientSession, there: str, authority: Authority
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    with (
        redis_server(tmp_path, there, "geheim", authority.certificate(there)) as good,
        redis_server(tmp_path, there, tls=authority.certificate("192.0.2.1")) as elsewhere,
        redis_server(tmp_path, there, tls=stranger.certificate(there)) as unknown,
        redis_server(tmp_path, there) as plain,
    ):
        ports = {"good": good.port, "elsewhere": elsewhere.port, "unknown": unknown.port, "plain": plain.port}
        annotations = {
            "keyvalue": " ".join(f"{name}=rediss://{there}:{port}" for name, port in ports.items()),
            EGRESS: ", ".join(f"{there}:{port}" for port in ports.values()),
        }
        env = [{"name": "REDIS_PASSWORD_GOOD", "value": "geheim"}]
        key, url = await serving(node, actor_pod(actor(tmp_path, relay(), *ALL), annotations, env=env))
        ask = Asker(client, url)

        async def add(binding: str) -> Any:
            return await ask("wascc:keyvalue", "Add", binding, key="a", value=1)

        assert [await add("good") for _ in range(3)] == [{"value": count} for count in (1, 2, 3)]
        long = "x" * 30_000  # more than a record of TLS has
        await ask("wascc:keyvalue", "Set", "good", key="long", value=long, expires=0)
        assert (await ask("wascc:keyvalue", "Get", "good", key="long"))["value"] == long
        assert f"the certificate of {there} is refused: IP address mismatch" in await add("elsewhere")
        assert f"the certificate of {there} is refused: " in await add("unknown")
        assert "does not agree on TLS" in await add("plain") or "has closed" in await add("plain")
        assert b"geheim" not in await node.log(key)


def test_an_end_without_a_farewell_is_an_end(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a server that was killed: what only reads may then be asked again."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setattr(wire, "_trusted", {})
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("127.0.0.1"))

    def serve() -> None:
        with context.wrap_socket(theirs, server_side=True) as link:
            link.sendall(b"hello")
            assert link.recv(5) == b"hello"

    server = threading.Thread(target=serve)
    server.start()
    link = SocketLink(ours.detach(), "redis", lambda: time.monotonic() + 60)
    try:
        link.secure("127.0.0.1")
        assert link.receive() == b"hello"
        link.send(b"hello")
        server.join()
        with pytest.raises(Ended, match="redis has closed the connection"):
            link.receive()
    finally:
        link.close()


async def test_messages_by_tls(
    node: Runtime, tmp_path: Path, client: ClientSession, there: str, authority: Authority
) -> None:
    with nats_server(there, authority.certificate(there), "geheim") as server:
        broker = {
            "messaging": f"tls://{there}:{server.port}",
            "subscriptions": "orders.>",
            EGRESS: f"{there}:{server.port}",
        }
        env = [{"name": "NATS_TOKEN", "value": "geheim"}]
        key, url = await serving(node, actor_pod(actor(tmp_path, relay(), *ALL), broker, env=env))
        ask = Asker(client, url)
        message = {"subject": "orders.new.here", "replyTo": "", "body": b"x" * 20_000}

        async def said_and_heard() -> Any:
            await ask("wascc:messaging", "Publish", message=message)
            return await ask.told()

        found = await until(said_and_heard, lambda told: told is not None)
        assert (found["subject"], found["body"]) == ("orders.new.here", b"x" * 20_000)
        assert b"geheim" not in await node.log(key)


async def test_a_broker_that_is_not_trusted_gets_nothing(
    node: Runtime, tmp_path: Path, there: str, authority: Authority
) -> None:
    (tmp_path / "other").mkdir()
    with nats_server(there, Authority(tmp_path / "other").certificate(there)) as server:
        broker = {"messaging": f"tls://{there}:{server.port}", EGRESS: f"{there}:{server.port}"}
        key, _ = await serving(node, actor_pod(actor(tmp_path, relay(), *ALL), broker))
        await node.logged(key, f"the certificate of {there} is refused: ".encode())
