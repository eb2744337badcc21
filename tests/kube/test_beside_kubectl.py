"""One table of kubeconfigs and surroundings: kubectl is the judge of each, and wasmlet means the same by it."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.judge import (
    At,
    Pki,
    Server,
    environment,
    kubectl_says,
    wasmlet_says,
)
from tests.kube.kubeconfigs import Row
from tests.kube.kubeconfigs_accepted import GOOD
from tests.kube.kubeconfigs_refused import BAD
from wasmlet.kube import load_identity


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(Pki.made(), tmp_path_factory.mktemp("server")).serving() as serving:
        yield serving


@pytest.fixture(scope="module")
def other() -> Pki:
    return Pki.made()


@pytest.fixture
def at(tmp_path: Path, server: Server, other: Pki) -> At:
    return At(tmp_path, server, other)


def settled(at: At, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of both callers, which becomes this process's."""
    env = environment(at.env, at.directory)
    for name in os.environ.keys() - env.keys():
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


async def both(at: At, row: Row, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, bool, str]:
    """Whether kubectl and wasmlet reach the server by a row; where both do, the server saw the same caller."""
    made = row(at)
    kubeconfig = at.file("kubeconfig", made) if made is not None else None
    env = settled(at, monkeypatch)
    at.server.seen.clear()
    judged, why = await kubectl_says(kubectl, kubeconfig, env)
    by_kubectl = at.server.seen[-1:]
    at.server.seen.clear()
    if kubeconfig is not None and made is not None:
        at.file("kubeconfig", made)  # kubectl writes what an issuer has given it
    found, error = await wasmlet_says(kubeconfig)
    assert "\n" not in error
    if judged and found:
        assert at.server.seen[-1:] == by_kubectl
    return judged, found, f"kubectl: {why}\nwasmlet: {error}"


PROXIED = [
    # server, NO_PROXY, whether the proxy is used
    ("https://192.0.2.7:6443", "", True),
    ("https://192.0.2.7:6443", "192.0.2.7", False),
    ("https://192.0.2.7:6443", "192.0.2.8", True),
    ("https://192.0.2.7:6443", "192.0.2.0/24", False),
    ("https://192.0.2.7:6443", "192.0.2.99/24", False),
    ("https://192.0.2.7:6443", "10.0.0.0/8, 192.0.2.4/30", False),
    ("https://192.0.2.7:6443", "192.0.2.8/29", True),
    ("https://192.0.2.7:6443", "0.0.0.0/0", False),
    ("https://192.0.2.7:6443", "::ffff:192.0.2.7", False),
    ("https://192.0.2.7:6443", "192.0.2.0/255.255.255.0", True),
    ("https://192.0.2.7:6443", "192.0.2.0/33", True),
    ("https://192.0.2.7:6443", "192.0.2.", True),
    ("https://192.0.2.7:6443", ".0.2.7", True),
    ("https://192.0.2.7:6443", "192.0.2.*", True),
    ("https://192.0.2.7:6443", "192.0.2.7:6443", False),
    ("https://192.0.2.7:6443", "192.0.2.7:", False),
    ("https://192.0.2.7:6443", "192.0.2.7:443", True),
    ("https://192.0.2.7", "192.0.2.7:443", False),
    ("https://192.0.2.7:6443", ":6443", True),
    ("https://192.0.2.7:6443", "*", False),
    ("https://192.0.2.7:6443", "x, * ,y", False),
    ("https://[2001:db8::7]:6443", "2001:db8::/32", False),
    ("https://[2001:db8::7]:6443", "2001:DB8:0::7", False),
    ("https://[2001:db8::7]:6443", "[2001:db8::7]:6443", False),
    ("https://[2001:db8::7]:6443", "[2001:db8::7]:443", True),
    ("https://[2001:db8::7]:6443", "[2001:db8::7]", True),
    ("https://[2001:db8::7]:6443", "10.0.0.0/8", True),
    ("https://api.k8s.invalid:6443", "k8s.invalid", False),
    ("https://api.k8s.invalid:6443", ".k8s.invalid", False),
    ("https://api.k8s.invalid:6443", "*.k8s.invalid", False),
    ("https://api.k8s.invalid:6443", "API.K8S.invalid:6443", False),
    ("https://api.k8s.invalid:6443", "api.k8s.invalid:443", True),
    ("https://api.k8s.invalid:6443", ".api.k8s.invalid", True),
    ("https://api.k8s.invalid:6443", "*.api.k8s.invalid", True),
    ("https://api.k8s.invalid:6443", "8s.invalid", True),
    ("https://api.k8s.invalid:6443", "*k8s.invalid", True),
    ("https://api.k8s.invalid:6443", "0.0.0.0/0", True),
    ("https://api.k8s.invalid:6443", "k8s.invalid other.invalid", True),
    ("https://api.k8s.invalid:6443", ". , .., *.,", True),
    ("https://127.9.9.9:6443", "", False),
    ("https://[::1]:6443", "", False),
    ("https://[::ffff:127.0.0.1]:6443", "", False),
    ("https://localhost:6443", "", False),
    ("https://api.localhost:6443", "", True),
]


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, list[str]]]:
    """HOST:PORT of a proxy that refuses everybody, and whom it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{serving.server_port}", asked
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize(("server_url", "no_proxy", "expected"), PROXIED)
async def test_who_is_reached_by_way_of_the_proxy(
    server_url: str,
    no_proxy: str,
    expected: bool,
    at: At,
    kubectl: Path,
    proxy: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, asked = proxy
    kubeconfig = at.file("kubeconfig", at.config(None, {"server": server_url}))
    at.env.update(HTTPS_PROXY=address, https_proxy="http://127.0.0.1:1", no_proxy=no_proxy)
    env = settled(at, monkeypatch)
    asked.clear()
    await kubectl_says(kubectl, kubeconfig, env, seconds=1)
    assert bool(asked) is expected
    assert ((await load_identity(kubeconfig)).proxy is not None) is expected


@pytest.mark.parametrize("name", GOOD)
async def test_what_kubectl_accepts(name: str, at: At, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, found, why = await both(at, GOOD[name], kubectl, monkeypatch)
    assert (judged, found) == (True, True), why


@pytest.mark.parametrize("name", BAD)
async def test_what_kubectl_refuses(name: str, at: At, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, found, why = await both(at, BAD[name], kubectl, monkeypatch)
    assert (judged, found) == (False, False), why
