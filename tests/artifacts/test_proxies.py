"""Registries behind proxies and private authorities, by the rules that kubelets and container engines follow."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.artifacts import modules, registries
from tests.artifacts.registries import scripted
from tests.artifacts.test_registry import WASM, insecure, pulled, pushed
from tests.kube.judge import Pki
from tests.kube.socks import socks_proxy
from wasmlet.artifacts import http
from wasmlet.artifacts.errors import ArtifactError
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.references import parse
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.controlplane.certificates.pki import Pair
from wasmlet.errors import ConfigError


@pytest.mark.parametrize("identifiers", [True, False])
async def test_a_private_authority_with_and_without_key_identifiers_directly_and_by_socks(
    docker_registry: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identifiers: bool
) -> None:
    pki, there = Pki.made(identifiers=identifiers), tmp_path / "registry"
    (tmp_path / "ca.pem").write_bytes(pki.authority)
    (tmp_path / "thing.wasm").write_bytes(WASM)
    trusted = RegistryConfig(registry_ca_file=tmp_path / "ca.pem")
    pair = Pair(certificate=pki.server, key=pki.server)
    async with (
        socks_proxy() as proxy,
        registries.registry(docker_registry, there, **registries.tls(there, pair)) as address,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"socks5://127.0.0.1:{proxy.port}")
        await pushed(tmp_path / "thing.wasm", parse(f"{address}/thing:v1"), trusted)
        assert proxy.asked == []  # loopback
        port = address.rpartition(":")[2]
        assert await pulled(store, parse(f"api.test:{port}/thing:v1"), trusted) == WASM
        assert set(proxy.asked) == {("api.test", int(port))}
        with pytest.raises(ArtifactError, match="certificate is not trusted"):
            await pulled(store, parse(f"other.test:{port}/thing:v1"), trusted)
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,.test")
        proxy.asked.clear()
        with pytest.raises(ArtifactError, match="cannot be reached"):
            await _once(f"https://api.test:{port}/v2/")
        assert proxy.asked == []


async def _once(url: str) -> None:
    async with (
        http.Http(RegistryConfig(), SystemClock()) as speaking,
        speaking.answer("GET", httpx.URL(url), headers={}, authorization=None),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("http://192.0.2.7/v2/", "", True),
        ("http://192.0.2.7/v2/", "192.0.2.0/24", False),
        ("http://192.0.2.7:5000/v2/", "192.0.2.7:5000", False),
        ("http://192.0.2.7:5000/v2/", "192.0.2.7:80", True),
        ("http://r.invalid/v2/", "invalid", False),
        ("http://r.invalid/v2/", ".r.invalid", True),
        ("http://127.9.9.9:1/v2/", "", False),
        ("http://[::1]:1/v2/", "", False),
        ("http://localhost:1/v2/", "", False),
    ],
)
async def test_who_is_reached_by_way_of_the_proxy(
    monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, expected: bool
) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.3)
    async with scripted() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", no_proxy)
        if expected:
            await _once(url)
            assert proxy.paths() == [url]
        else:
            with pytest.raises(ArtifactError, match=r"cannot be reached|said nothing"):
                await _once(url)
            assert proxy.asked == []


async def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://me:hunter2@x")
    with pytest.raises(ConfigError, match=r"\(HTTPS_PROXY\): expected a proxy of http, https") as raised:
        await pulled(store, parse("r.invalid/x:v1"), insecure("r.invalid"))
    assert "hunter2" not in str(raised.value)
    assert modules.left_in(store) == []
