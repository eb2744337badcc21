"""Proxies before the API server: SOCKS5 and HTTP, of the kubeconfig and of the environment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.judge import At, Pki, Server, environment, kubectl_says
from tests.kube.socks import socks_proxy
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, errors, load_identity


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with Server(Pki.made(), tmp_path).serving() as server:
        yield At(tmp_path, server, Pki.made())


async def reached(kubeconfig: Path) -> None:
    async with Client(await load_identity(kubeconfig)) as client:
        await client.get("/api/v1")


@pytest.mark.parametrize("password", [False, True])
async def test_a_socks_proxy_of_the_kubeconfig_looks_up_the_name(at: At, kubectl: Path, password: bool) -> None:
    async with socks_proxy(password=password) as proxy:
        user = "a%40b:p%3Aw%40@" if password else ""
        cluster = {
            "server": f"https://api.test:{at.server.port}",
            "proxy-url": f"socks5://{user}127.0.0.1:{proxy.port}",
        }
        kubeconfig = at.file("k", at.config(None, cluster))
        judged, why = await kubectl_says(kubectl, kubeconfig, environment({}, at.directory))
        assert judged, why
        by_kubectl = proxy.asked[-1:], proxy.users[-1:]
        proxy.asked.clear()
        proxy.users.clear()
        await reached(kubeconfig)
        assert proxy.asked == [("api.test", at.server.port)]
        assert proxy.users == ([("a@b", "p:w@")] if password else [])
        assert by_kubectl == (proxy.asked, proxy.users)


async def test_tls_behind_a_socks_proxy_is_verified_by_the_name_that_the_kubeconfig_has(at: At) -> None:
    async with socks_proxy() as proxy:
        cluster = {
            "server": f"https://far.test:{at.server.port}",
            "proxy-url": f"socks5://127.0.0.1:{proxy.port}",
        }
        with pytest.raises(errors.Unreachable, match="not trusted"):
            await reached(at.file("k", at.config(None, cluster)))
        await reached(at.file("k", at.config(None, {**cluster, "tls-server-name": "api.test"})))


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_socks_proxy_of_the_environment(at: At, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    async with socks_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://127.0.0.1:{proxy.port}")
        await reached(at.file("k", at.config(None, {"server": f"https://api.test:{at.server.port}"})))
        assert proxy.asked == [("api.test", at.server.port)]


async def test_a_socks_proxy_that_is_away_or_wants_a_password(at: At) -> None:
    cluster = {"server": f"https://api.test:{at.server.port}", "proxy-url": "socks5://127.0.0.1:1"}
    with pytest.raises(errors.Unreachable, match=r"SOCKS proxy 127.0.0.1"):
        await reached(at.file("k", at.config(None, cluster)))
    async with socks_proxy(password=True) as proxy:
        cluster["proxy-url"] = f"socks5://127.0.0.1:{proxy.port}"
        with pytest.raises(errors.Unreachable, match=r"SOCKS proxy 127.0.0.1"):
            await reached(at.file("k", at.config(None, cluster)))
        assert proxy.asked == []


@pytest.mark.parametrize("value", ["gopher://x:1", "http://", "http://x:port", "://", "socks4://x:1"])
async def test_a_proxy_that_is_none_is_refused_where_it_would_be_used(
    at: At, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ConfigError, match=r"the proxy in the environment \(HTTPS_PROXY\): expected"):
        await load_identity(at.file("k", at.config(None, {"server": "https://api.test"})))
    await reached(at.file("k", at.config()))  # loopback


async def test_a_password_of_a_proxy_is_in_no_error(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig = at.file("k", at.config(None, {"server": "https://api.test"}))
    for scheme in ("gopher", "http", "socks5"):
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://me:hunter2@127.0.0.1:1")
        with pytest.raises((ConfigError, errors.Unreachable)) as raised:
            await reached(kubeconfig)
        assert "hunter2" not in str(raised.value)


async def test_a_proxy_that_refuses_is_named_without_its_password(at: At) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Who are you?\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://me:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(errors.Unreachable, match=r"407") as raised:
            await reached(at.file("k", at.config(None, {"server": "https://api.test", "proxy-url": url})))
    assert "hunter2" not in str(raised.value)


async def test_a_proxy_without_a_tunnel_is_told_where_a_request_is_for_and_by_whom(at: At) -> None:
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://me:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        cluster = {"server": "http://api.test:8080/prefix", "proxy-url": url}
        async with Client(await load_identity(at.file("k", at.config(None, cluster)))) as client:
            for _ in range(2):
                await client.get("/api/v1", limit="1")
    for head in asked:
        lines = head.split("\r\n")
        assert lines[:2] == ["GET http://api.test:8080/prefix/api/v1?limit=1 HTTP/1.1", "Host: api.test:8080"]
        assert "Proxy-Authorization: Basic bWU6aHVudGVyMg==" in lines
    assert len(asked) == 2
