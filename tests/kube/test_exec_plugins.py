"""Plugins that give credentials: asked in time, once for all clients, and bounded in time and size."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from tests.kube.judge import At, accepted, credential, plugged
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, Identity, exec_plugin, load_identity
from wasmlet.testing import FakeClock


async def test_a_plugin_is_asked_again_when_its_credentials_have_ended(at: At) -> None:
    clock = FakeClock()
    until = (clock.now() + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    at.file("answer", json.dumps(credential(token="good", expirationTimestamp=until)))
    plugin = at.plugin(f"echo x >> {at.directory}/runs; cat {at.directory}/answer")
    identity = await load_identity(at.file("k", at.config(plugged(plugin))), clock=clock)

    def runs() -> int:
        return len((at.directory / "runs").read_text().split())

    async with Client(identity, clock=clock) as client:
        await client.get("/api/v1")
        clock.advance(599)
        await client.get("/api/v1")
        assert runs() == 1
        later = (clock.now() + timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
        certificate = {
            "clientCertificateData": at.server.pki.certificate.decode(),
            "clientKeyData": at.server.pki.key.decode(),
        }
        at.file("answer", json.dumps(credential(expirationTimestamp=later, **certificate)))
        clock.advance(1)
        await asyncio.gather(*(client.get("/api/v1") for _ in range(5)))
        assert runs() == 2
        assert [(each.authorization, each.certificate) for each in at.server.seen[-5:]] == [(None, True)] * 5
        # It goes on to say what has ended: that is no reason to run it for each request.
        clock.advance(3600)
        for _ in range(5):
            await client.get("/api/v1")
        assert runs() == 3
        clock.advance(10)
        # A plugin that fails leaves us with what we have; whether that is still good the server says.
        at.file("plugin", "#!/bin/sh\nexit 1\n")
        await client.get("/api/v1")
        assert runs() == 3


HANGING = ["exec sleep 3600", "sleep 3600", "sleep 3600 >&- & sleep 3600", "echo x; sleep 3600 &", "exec cat /dev/zero"]


@pytest.mark.parametrize("body", HANGING)
async def test_a_plugin_that_hangs_is_ended_with_all_that_it_has_begun(
    at: At, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(exec_plugin, "PLUGIN_SECONDS", 0.5)
    alive = at.directory / "alive"
    os.mkfifo(alive)
    # Everything that the plugin begins has the pipe open: it ends when the last of them does.
    plugin = at.plugin(f"exec 9>{alive}\n{body}")
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(alive.read_bytes))
        with pytest.raises(ConfigError, match=r"did not end within 0.5 s"):
            await load_identity(at.file("k", at.config(plugged(plugin))))


async def test_a_plugin_that_answers_without_end_is_refused(at: At) -> None:
    plugin = at.plugin("head -c 5000000 /dev/zero | tr '\\0' x")
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        await load_identity(at.file("k", at.config(plugged(plugin))))


async def test_what_a_plugin_complains_of_is_told_in_one_line_and_shortened(at: At) -> None:
    plugin = at.plugin("printf 'no\\033[31m login\\nhere ' >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3")
    with pytest.raises(ConfigError, match=r"failed with exit code 3: no \[31m login here xxx") as raised:
        await load_identity(at.file("k", at.config(plugged(plugin))))
    assert len(str(raised.value)) < 1000


class TestOnePluginForAllClients:
    """As client-go has one authenticator for each plugin in a process."""

    @pytest.fixture
    def plugin(self, at: At) -> Path:
        at.file("answer", json.dumps(credential(token="good")))
        return at.plugin(f"echo x >> {at.directory}/runs; cat {at.directory}/answer")

    def runs(self, at: At) -> int:
        return len((at.directory / "runs").read_text().split())

    async def test_it_is_run_once_for_those_that_ask_together_and_later(self, at: At, plugin: Path) -> None:
        kubeconfig = at.file("k", at.config(plugged(plugin)))
        await asyncio.gather(*(load_identity(kubeconfig) for _ in range(5)))
        assert await accepted(await load_identity(kubeconfig))
        assert self.runs(at) == 1
        await load_identity(at.file("other", at.config(plugged(plugin, args=["another"]))))
        assert self.runs(at) == 2

    async def test_what_is_refused_is_asked_for_once_by_all(self, at: At, plugin: Path) -> None:
        kubeconfig = at.file("k", at.config(plugged(plugin)))
        at.file("answer", json.dumps(credential(token="old")))
        identities = [await load_identity(kubeconfig) for _ in range(4)]
        at.file("answer", json.dumps(credential(token="good")))

        async def ask(identity: Identity) -> None:
            async with Client(identity) as client:
                await client.get("/api/v1")

        await asyncio.gather(*map(ask, identities))
        assert self.runs(at) == 2

    async def test_a_failure_is_that_of_all_who_wait_for_it(self, at: At) -> None:
        plugin = at.plugin(f"echo x >> {at.directory}/runs; sleep 0.2; exit 3")
        kubeconfig = at.file("k", at.config(plugged(plugin)))
        failed = await asyncio.gather(*(load_identity(kubeconfig) for _ in range(5)), return_exceptions=True)
        assert all("failed with exit code 3" in str(error) for error in failed)
        assert self.runs(at) == 1
        with pytest.raises(ConfigError, match="failed with exit code 3"):
            await load_identity(kubeconfig)
        assert self.runs(at) == 2
