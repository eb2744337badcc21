"""Credentials that change, end or hang: what a node that lives for months meets."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import stat
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import yaml

from tests.descriptors import open_descriptors
from tests.kube.judge import At, Pki, Server, credential, environment, issued, jwt, kubectl_says, plugged
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, Identity, config, errors, exec_plugin, load_identity, logins
from wasmlet.testing import FakeClock


@pytest.fixture
def at(tmp_path: Path) -> Iterator[At]:
    with Server(Pki.made(), tmp_path).serving() as server:
        yield At(tmp_path, server, Pki.made())


async def accepted(identity: Identity) -> bool:
    async with Client(identity) as client:
        try:
            await client.get("/api/v1")
        except errors.Unauthorized:
            return False
    return True


async def test_a_token_file_is_read_again_each_minute(at: At) -> None:
    clock, token = FakeClock(), at.file("token", "first\n")
    identity = await load_identity(at.file("k", at.config({"tokenFile": str(token)})), clock=clock)
    assert await identity.headers() == {"Authorization": "Bearer first"}
    at.file("token", "good\r\n")
    clock.advance(59)
    assert await identity.headers() == {"Authorization": "Bearer first"}
    clock.advance(1)
    assert await identity.headers() == {"Authorization": "Bearer good"}
    assert await accepted(identity)
    for wrong in ("", "go\nod", b"\xff"):
        at.file("token", wrong)
        clock.advance(60)
        assert await identity.headers() == {"Authorization": "Bearer good"}
    token.unlink()
    clock.advance(60)
    assert await identity.headers() == {"Authorization": "Bearer good"}
    at.file("token", "\nnext\n")
    clock.advance(60)
    assert await identity.headers() == {"Authorization": "Bearer next"}


@pytest.mark.parametrize("authority", ["good", "none", "broken"])
async def test_the_service_account_of_a_pod(at: At, monkeypatch: pytest.MonkeyPatch, authority: str) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(at.directory))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(at.server.port))
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", at.directory / "account")
    with pytest.raises(ConfigError, match="there is no such file"):
        await load_identity()
    at.file("account/token", "good\n")
    if authority != "none":
        at.file("account/ca.crt", at.server.pki.authority if authority == "good" else "broken")
    identity = await load_identity()
    assert await identity.headers() == {"Authorization": "Bearer good"}
    if authority == "good":
        assert await accepted(identity)
        return
    # As with client-go the system's authorities count then, and they have not signed this server's certificate.
    with pytest.raises(errors.Unreachable, match="not trusted"):
        await accepted(identity)


async def test_the_service_account_at_an_ipv6_address(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", at.directory)
    at.file("token", "t")
    at.file("ca.crt", at.server.pki.authority)
    assert (await load_identity()).server == "https://[fd00::1]:443"


@pytest.mark.parametrize("identifiers", [True, False])
async def test_an_authority_without_key_identifiers_is_as_good(tmp_path: Path, identifiers: bool) -> None:
    with Server(Pki.made(identifiers=identifiers), tmp_path).serving() as server:
        at = At(tmp_path, server, server.pki)
        identity = await load_identity(at.file("k", at.config()))
        assert identity.ssl_context is not None
        assert not identity.ssl_context.verify_flags & ssl.VERIFY_X509_STRICT
        assert identity.ssl_context.verify_mode == ssl.CERT_REQUIRED
        assert identity.ssl_context.check_hostname
        assert await accepted(identity)


async def test_a_name_that_is_only_the_common_name_is_none(tmp_path: Path) -> None:
    with Server(Pki.made(common_name_only=True), tmp_path).serving() as server:
        at = At(tmp_path, server, server.pki)
        identity = await load_identity(at.file("k", at.config()))
        with pytest.raises(errors.Unreachable, match="not trusted"):
            await accepted(identity)


async def test_no_certificate_or_key_lies_in_a_file(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = at.directory / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    kubeconfig = at.file("k", at.config(plugged(at.plugin(f"cat {at.directory}/answer"))))
    before = open_descriptors()
    for _ in range(10):
        pki = Pki.made()
        answer = credential(clientCertificateData=pki.certificate.decode(), clientKeyData=pki.key.decode())
        at.file("answer", json.dumps(answer))
        await load_identity(kubeconfig)
    assert list(temporary.iterdir()) == []
    assert open_descriptors() <= before + 1


async def test_an_encrypted_key_is_refused_without_a_question(at: At) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(at.server.pki.key, None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    user = {
        "client-certificate-data": base64.b64encode(at.server.pki.certificate).decode(),
        "client-key-data": base64.b64encode(encrypted).decode(),
    }
    with pytest.raises(ConfigError, match="found an encrypted one"):
        await load_identity(at.file("k", at.config(user)))


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


HANGING = ["exec sleep 3600", "sleep 3600", "sleep 3600 >&- & sleep 3600", "echo x; sleep 3600 &"]


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


async def test_an_issuer_that_is_not_trusted_gets_no_secret(at: At) -> None:
    user = issued(at, refresh_token="refresh", idp_certificate_authority_data=...)
    with pytest.raises(ConfigError, match="gave no new id-token"):
        await load_identity(at.file("k", at.config(user)))
    assert at.server.refreshed == []


async def test_an_id_token_is_renewed_when_it_ends(at: At) -> None:
    clock = FakeClock()
    user = issued(at, id_token=jwt(clock.now().year), refresh_token="refresh")
    identity = await load_identity(at.file("k", at.config(user)), clock=clock)
    assert identity.until is not None
    assert at.server.refreshed == []
    clock.advance((identity.until - clock.now()).total_seconds())
    async with Client(identity, clock=clock) as client:
        for _ in range(3):
            await client.get("/api/v1")
    assert at.server.refreshed == ["refresh"]


async def renewed(identities: list[Identity], at: At, clock: FakeClock) -> list[Identity]:
    """All of them anew, once their token has ended; the next one that the issuer gives ends a year later."""
    until = identities[0].until
    assert until is not None
    clock.advance((until - clock.now()).total_seconds())
    at.server.tokens_end += 1
    return list(await asyncio.gather(*(identity.reload() for identity in identities)))


def contents(kubeconfig: Path) -> Any:
    return yaml.safe_load(kubeconfig.read_text())


def login(kubeconfig: Path) -> dict[str, str]:
    """What a kubeconfig has for its user's issuer."""
    config: dict[str, str] = contents(kubeconfig)["users"][0]["user"]["auth-provider"]["config"]
    return config


def with_id_token(kubeconfig: Path, token: str) -> None:
    kubeconfig.write_text(kubeconfig.read_text().replace(login(kubeconfig)["id-token"], token))


def mode(path: Path, wanted: int | None = None) -> int:
    if wanted is not None:
        path.chmod(wanted)
    return stat.S_IMODE(path.stat().st_mode)


class TestARefreshTokenThatTheIssuerReplaces:
    """client-go writes it into the kubeconfig: the old one is of no use any more, to no process."""

    @pytest.fixture
    def clock(self, at: At) -> FakeClock:
        clock = FakeClock()
        at.server.rotates, at.server.tokens_end = True, clock.now().year + 2
        return clock

    @pytest.fixture
    def kubeconfig(self, at: At, clock: FakeClock) -> Path:
        user = issued(at, id_token=jwt(clock.now().year), refresh_token="refresh")
        return at.file("k", at.config(user))

    async def test_is_written_into_the_kubeconfig(self, at: At, clock: FakeClock, kubeconfig: Path) -> None:
        before = contents(kubeconfig)
        mode(kubeconfig, 0o640)
        link = at.directory / "link"
        link.symlink_to(kubeconfig)
        identities = [await load_identity(link, clock=clock) for _ in range(3)]
        for _ in range(3):
            identities = await renewed(identities, at, clock)
        assert at.server.refreshed == ["refresh", "refresh+", "refresh++"]
        assert login(kubeconfig)["refresh-token"] == "refresh+++"
        assert login(kubeconfig)["id-token"] == jwt(at.server.tokens_end)
        assert link.is_symlink()
        assert mode(kubeconfig) == 0o640
        assert sorted(path.name for path in at.directory.iterdir()) == ["k", "link", "server.pem"]
        after = contents(kubeconfig)
        after["users"][0]["user"] = before["users"][0]["user"]
        assert after == before

    async def test_is_the_next_process_s_and_kubectl_s(
        self, at: At, clock: FakeClock, kubeconfig: Path, kubectl: Path
    ) -> None:
        await renewed([await load_identity(kubeconfig, clock=clock)], at, clock)
        at.server.tokens_end = 2999
        assert login(kubeconfig)["refresh-token"] == "refresh+"
        with_id_token(kubeconfig, jwt(2001))  # which has run out on kubectl's clock, too
        judged, why = await kubectl_says(kubectl, kubeconfig, environment({}, at.directory))
        assert judged, why
        assert at.server.refreshed == ["refresh", "refresh+"]
        assert login(kubeconfig)["refresh-token"] == "refresh++"
        assert await accepted(await load_identity(kubeconfig, clock=clock))
        assert at.server.refreshed == ["refresh", "refresh+"]

    @pytest.mark.parametrize("why", ["nobody may write it", "somebody changed it meanwhile", "it is gone"])
    async def test_is_kept_in_memory_where_the_file_cannot_have_it(
        self, at: At, clock: FakeClock, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, why: str
    ) -> None:
        identities = [await load_identity(kubeconfig, clock=clock) for _ in range(3)]
        before = contents(kubeconfig)
        if why == "nobody may write it":
            mode(kubeconfig, 0o444)
        else:
            real = logins.keep

            def meanwhile(*args: Any) -> str:
                """The file as it is when the issuer has answered."""
                text = kubeconfig.read_text()
                if why == "it is gone":
                    kubeconfig.unlink()
                else:
                    kubeconfig.write_text(text.replace("refresh-token: refresh", "refresh-token: another"))
                try:
                    return real(*args)
                finally:
                    kubeconfig.write_text(text)

            monkeypatch.setattr(logins, "keep", meanwhile)
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                identities = await renewed(identities, at, clock)
        assert at.server.refreshed == ["refresh", "refresh+", "refresh++"]
        assert contents(kubeconfig) == before
        assert [line["log_level"] for line in lines] == ["warning"] * 3
        assert "refresh+" not in repr(lines)

    async def test_gives_way_to_a_new_login(self, at: At, clock: FakeClock, kubeconfig: Path) -> None:
        identities = await renewed([await load_identity(kubeconfig, clock=clock)], at, clock)
        at.server.refresh_token = "another"
        at.file("k", at.config(issued(at, id_token=jwt(2000), refresh_token="another")))
        await identities[0].reload()
        assert at.server.refreshed == ["refresh", "another"]

    async def test_is_used_when_the_api_server_refuses_an_id_token(
        self, at: At, clock: FakeClock, kubeconfig: Path
    ) -> None:
        at.server.tokens_end = 2998  # which this server does not know
        with_id_token(kubeconfig, jwt(2001))
        identity = await load_identity(kubeconfig, clock=clock)
        at.server.tokens_end = 2999
        assert await accepted(identity)
        assert at.server.refreshed == ["refresh", "refresh+"]


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


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"users:\n- name: u\n  user: {{token: {SECRET}\n",
        f"users:\n- name: u\n  user: {{token: *{SECRET}}}\n",
        f"users:\n- name: u\n  user: {{token: {{a: {SECRET}}}}}\n",
        f"users:\n- name: u\n  user: {SECRET}\n",
        f"users: {SECRET}\n",
        f'users:\n- name: u\n  user: {{token: "{SECRET}\\n"}}\n',
        f"users:\n- name: u\n  user: {{client-key-data: {SECRET}!}}\n",
        f"users:\n- name: u\n  user: {{token: !{SECRET} x}}\n",
        f"clusters: [{{name: k, cluster: {{server: 'https://me:{SECRET}@x:99999'}}}}]",
        f"users: [{SECRET}, {'[' * 100_000}",
        f"{SECRET}",
    ],
)
async def test_what_is_wrong_is_said_without_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    rest = (
        "clusters: [{name: k, cluster: {server: 'https://x'}}]\ncontexts: [{name: c, context: {cluster: k, user: u}}]"
    )
    if text.startswith("clusters:"):
        rest = rest.partition("\n")[2]
    path.write_text(text if text == SECRET else f"{rest}\ncurrent-context: c\n{text}")
    with pytest.raises(ConfigError) as raised:
        await load_identity(path)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_an_identity_shows_no_secret(at: At) -> None:
    identity = await load_identity(at.file("k", at.config({"token": SECRET})))
    token = at.file("token", SECRET)
    in_file = await load_identity(at.file("k", at.config({"tokenFile": str(token)})))
    assert SECRET not in f"{identity!r} {in_file!r}"
