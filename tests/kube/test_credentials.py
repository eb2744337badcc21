"""Credentials that change, end or hang: what a node that lives for months meets."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from pathlib import Path

import pytest

from tests.kube.judge import At, Pki, Server, accepted, credential, plugged
from tests.shared.descriptors import open_descriptors
from wasmlet.errors import ConfigError
from wasmlet.kube import config, errors, load_identity
from wasmlet.testing import FakeClock


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
