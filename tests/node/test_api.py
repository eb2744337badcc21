"""The node's API as a client of a cluster finds it: with certificates and tokens that the cluster gave out."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, running
from wasmlet.controlplane.access.rules import Rule
from wasmlet.kube import load_identity
from wasmlet.testing.reference import ReferenceProvider


async def ask(cluster: Cluster, path: str, kubeconfig: Path | None = None) -> tuple[int, str]:
    """Status and text of what the node answers to the owner of a kubeconfig, or to nobody."""
    node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    context, headers = ssl.create_default_context(), {}
    if kubeconfig is not None:
        identity = await load_identity(kubeconfig)
        headers = await identity.headers()
        assert identity.ssl_context is not None
        context = identity.ssl_context
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"https://127.0.0.1:{port}{path}", ssl=context, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_nobody_is_let_in_without_a_name(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        for path in ("/healthz", "/pods", "/nowhere"):
            assert await ask(cluster, path) == (401, "Unauthorized")


async def test_administrators_are_let_in_and_other_users_are_not(cluster: Cluster, provider: ReferenceProvider) -> None:
    # The CA of the kubeconfig is the one that signs clients, unless it is said otherwise.
    async with cluster.node(provider, client_ca_file=None):
        for path in ("/healthz", "/pods", "/containerLogs/default/p/c", "/nowhere"):
            for token in (True, False):
                bob = cluster.plane.user_kubeconfig("bob", groups=["devs"], token=token)
                status, text = await ask(cluster, path, bob)
                assert (status, text[:33]) == (403, "Forbidden (user=bob, verb=get, re")
            assert (await ask(cluster, path, cluster.plane.node_kubeconfig("n2")))[0] == 403
        root = cluster.plane.user_kubeconfig("root", groups=["system:masters"], token=True)
        for kubeconfig in (cluster.plane.kubeconfig, root):
            assert await ask(cluster, "/healthz", kubeconfig) == (200, "ok")
            assert await ask(cluster, "/nowhere", kubeconfig) == (404, "404: Page Not Found")


async def test_the_api_server_reaches_a_node_that_was_told_of_no_client_ca(
    cluster: Cluster, provider: ReferenceProvider
) -> None:
    async with cluster.node(provider, client_ca_file=None):
        pod = await cluster.create()
        await cluster.until(running)
        provider.log(pod.key, "c", b"hello\n")
        async with cluster.admin.stream(f"{cluster.pods}/p/log", {}) as content:
            assert await content.read() == b"hello\n"


async def test_a_fine_permission_is_enough_for_what_it_names(cluster: Cluster, provider: ReferenceProvider) -> None:
    scraper = cluster.plane.user_kubeconfig("scraper", token=True)
    cluster.plane.grant("scraper", Rule(("get",), ("nodes/metrics", "nodes/pods")))
    async with cluster.node(provider):
        for path in ("/metrics", "/metrics/resource", "/pods", "/runningpods/"):
            assert (await ask(cluster, path, scraper))[0] == 200
        for path in ("/stats/summary", "/configz", "/healthz", "/containerLogs/default/p/c"):
            assert (await ask(cluster, path, scraper))[0] == 403
        assert (await ask(cluster, "/exec/default/p/c", scraper))[1].startswith("Forbidden (user=scraper, verb=create,")


async def test_pods_are_shown_with_their_newest_status(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider):
        pod = await cluster.create(restartPolicy="Never")
        await cluster.until(running)

        async def shown(path: str) -> list[dict[str, Any]]:
            status, text = await ask(cluster, path, cluster.plane.kubeconfig)
            assert status == 200
            answer = orjson.loads(text)
            assert (answer["kind"], answer["apiVersion"]) == ("PodList", "v1")
            return list(answer["items"])

        (item,) = await shown("/pods")
        assert item["metadata"]["uid"] == pod.uid
        assert item["status"]["phase"] == "Running"
        assert item["status"]["hostIP"] == "127.0.0.1"
        assert "running" in item["status"]["containerStatuses"][0]["state"]
        (item,) = await shown("/runningpods/")
        assert item["metadata"]["name"] == "p"
        assert item["spec"]["containers"] == [{"name": "c", "image": "file:///none.wasm", "resources": {}}]
        provider.finish(pod.key)
        await cluster.until(lambda pod: pod.finished)
        (item,) = await shown("/pods")
        assert item["status"]["phase"] == "Succeeded"
        assert await shown("/runningpods/") == []


async def test_the_settings_are_those_of_the_node(cluster: Cluster, provider: ReferenceProvider) -> None:
    async with cluster.node(provider, max_pods=17):
        _, text = await ask(cluster, "/configz", cluster.plane.kubeconfig)
    settings = orjson.loads(text)["kubeletconfig"]
    assert settings["maxPods"] == 17
    assert settings["authentication"]["anonymous"] == {"enabled": False}
    assert settings["authentication"]["x509"] == {"clientCAFile": str(cluster.plane.client_ca_file)}
    assert settings["authorization"]["webhook"] == {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"}
    assert settings["nodeLeaseDurationSeconds"] == 40


async def test_health_alone_without_tls_on_loopback(cluster: Cluster, provider: ReferenceProvider) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with cluster.node(provider, healthz_port=port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/healthz?verbose") as answer:
            assert await answer.text() == "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n"
        async with session.get("/pods") as answer:
            assert answer.status == 404


async def test_a_taken_port_for_health_is_told(cluster: Cluster, provider: ReferenceProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(wasmlet.ConfigError, match=r"port \d+ on 127.0.0.1 cannot be used.*--healthz-port"):
            async with cluster.node(provider, healthz_port=taken.getsockname()[1]):
                pass


async def test_a_client_ca_that_is_none_is_told(cluster: Cluster, provider: ReferenceProvider, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(wasmlet.ConfigError, match="expected PEM certificates"):
        async with cluster.node(provider, client_ca_file=tmp_path / "ca"):
            pass
