"""A node that gets its own certificates: for a bootstrap token, for its API, and new ones before they end."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import yaml
from cryptography import x509

import wasmlet
from tests.node.cluster import NODE, SECONDS, Cluster, running
from tests.node.test_api import ask
from wasmlet.kube import Client, load_identity
from wasmlet.kube import certificates as module
from wasmlet.kube.keys import Pair
from wasmlet.testing import ControlPlane
from wasmlet.testing.reference import ReferenceProvider

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"


@asynccontextmanager
async def made(directory: Path, **settings: Any) -> AsyncIterator[Cluster]:
    """A cluster with a control plane of these settings."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(**settings))
        admin = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig)))
        yield Cluster(plane, admin, directory)


def bootstrapping(cluster: Cluster, **settings: Any) -> dict[str, Any]:
    """Settings of a node that has nothing but a token."""
    return {"kubeconfig": None, "bootstrap_kubeconfig": cluster.plane.bootstrap_kubeconfig()} | settings


async def requests(cluster: Cluster, signer: str = CLIENT) -> list[dict[str, Any]]:
    return [item for item in (await cluster.admin.get(REQUESTS))["items"] if item["spec"]["signerName"] == signer]


async def until_requested(cluster: Cluster, signer: str, *, but: str = "") -> str:
    """The name of a request that waits to be approved."""

    async def look() -> str:
        names = [r["metadata"]["name"] for r in await requests(cluster, signer) if not r["status"].get("conditions")]
        return next((name for name in names if name != but), "")

    return await until(cluster, look)


async def until(cluster: Cluster, look: Callable[[], Awaitable[Any]], path: str = REQUESTS) -> Any:
    """What `look` gives once that is true; looked at whenever something of a collection changes."""
    async with asyncio.timeout(SECONDS):
        while True:
            version = (await cluster.admin.get(path, limit="1"))["metadata"]["resourceVersion"]
            if found := await look():
                return found
            async with cluster.admin.stream(path, {"watch": "1", "resourceVersion": version}) as content:
                await content.read(2**16)


async def decide(cluster: Cluster, name: str, verdict: str = "Approved") -> None:
    """What `kubectl certificate approve` (or deny) does."""
    request = await cluster.admin.get(f"{REQUESTS}/{name}")
    condition = {"type": verdict, "status": "True", "reason": "ByTest", "message": "as the test wants it"}
    request["status"] = {"conditions": [condition]}
    await cluster.admin.replace(f"{REQUESTS}/{name}/approval", request)


async def shown(cluster: Cluster) -> x509.Certificate:
    """The certificate that the node's API shows."""
    node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode())


async def verified(cluster: Cluster) -> bool:
    """Whether an API server that verifies kubelets would accept the node."""
    node = await cluster.admin.get(f"/api/v1/nodes/{NODE}")
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    context = ssl.create_default_context(cafile=str(cluster.plane.ca_file))
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except ssl.SSLCertVerificationError:
        return False
    writer.close()
    return True


async def test_a_node_with_nothing_but_a_token(cluster: Cluster, provider: ReferenceProvider) -> None:
    state = cluster.directory / NODE
    async with cluster.node(provider, **bootstrapping(cluster)):
        await cluster.create()
        await cluster.until(running)
        (request,) = await requests(cluster)
    assert request["spec"]["username"].startswith("system:bootstrap:")
    assert sorted(request["spec"]["usages"]) == ["client auth", "digital signature"]
    pair = Pair.parse((state / "pki/client.pem").read_bytes())
    assert pair.names.common_name == f"system:node:{NODE}"
    assert pair.names.organizations == ("system:nodes",)
    for file in (state / "kubeconfig", state / "pki/client.pem"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert (state / "pki").stat().st_mode & 0o777 == 0o700
    assert {file.name for file in (state / "pki").iterdir()} == {"client.pem"}


async def test_a_later_start_needs_neither_token_nor_approval(cluster: Cluster, provider: ReferenceProvider) -> None:
    settings = bootstrapping(cluster)
    async with cluster.node(provider, **settings):
        pass
    token = yaml.safe_load(settings["bootstrap_kubeconfig"].read_text())["users"][0]["user"]["token"]
    await cluster.admin.delete(f"/api/v1/namespaces/kube-system/secrets/bootstrap-token-{token.partition('.')[0]}")
    async with cluster.node(provider, **settings):
        await cluster.create()
        await cluster.until(running)
    assert len(await requests(cluster)) == 1


async def test_a_request_that_waits_is_told_and_found_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
    async with made(tmp_path, approve=()) as cluster:
        settings = bootstrapping(cluster)
        node = wasmlet.Node(ReferenceProvider(), cluster.config(**settings))
        with structlog.testing.capture_logs() as logs:
            async with asyncio.TaskGroup() as group:
                entering = group.create_task(node.__aenter__())
                name = await until_requested(cluster, CLIENT)
                async with asyncio.timeout(SECONDS):
                    while not any(f"kubectl certificate approve {name}" in entry["event"] for entry in logs):
                        await cluster.admin.get("/api")
                node.request_stop()  # a signal ends the wait
                await entering
        await node.wait()
        assert "PRIVATE" not in str(logs)
        async with asyncio.TaskGroup() as group:
            node = wasmlet.Node(ReferenceProvider(), cluster.config(**settings))
            entering = group.create_task(node.__aenter__())
            await decide(cluster, name)
            await entering
        await node.stop()
        assert [request["metadata"]["name"] for request in await requests(cluster)] == [name]


@pytest.mark.parametrize("verdict", ["Denied", "removed"])
async def test_a_request_that_comes_to_nothing_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    async with made(tmp_path, approve=()) as cluster, asyncio.TaskGroup() as group:
        node = wasmlet.Node(ReferenceProvider(), cluster.config(**bootstrapping(cluster)))
        entering = group.create_task(node.__aenter__())
        first = await until_requested(cluster, CLIENT)
        if verdict == "removed":
            await cluster.admin.delete(f"{REQUESTS}/{first}")
        else:
            await decide(cluster, first, verdict)
        second = await until_requested(cluster, CLIENT, but=first)
        await decide(cluster, second)
        await entering
        await node.stop()
        specs = {r["metadata"]["name"]: r["spec"]["request"] for r in await requests(cluster)}
        assert second in specs
        assert first != second


async def test_a_token_that_is_not_accepted_is_told(cluster: Cluster, provider: ReferenceProvider) -> None:
    settings = bootstrapping(cluster)
    file = settings["bootstrap_kubeconfig"]
    config = yaml.safe_load(file.read_text())
    config["users"][0]["user"]["token"] = "abcdef.0123456789abcdef"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(wasmlet.ConfigError, match=r"does not accept .* credentials") as raised:
        async with cluster.node(provider, **settings):
            pass
    assert "0123456789" not in str(raised.value)


async def test_credentials_that_may_not_ask_are_told(cluster: Cluster, provider: ReferenceProvider) -> None:
    bob = cluster.plane.user_kubeconfig("bob", token=True)
    with pytest.raises(wasmlet.ConfigError, match="ClusterRole system:node-bootstrapper"):
        async with cluster.node(provider, kubeconfig=None, bootstrap_kubeconfig=bob):
            pass


async def test_a_name_that_no_certificate_can_hold_is_told(cluster: Cluster, provider: ReferenceProvider) -> None:
    with pytest.raises(wasmlet.ConfigError, match="at most 52 characters"):
        async with cluster.node(provider, node_name="n" * 53, **bootstrapping(cluster)):
            pass


async def test_a_client_certificate_is_renewed_and_used_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWED_AT", (0.0, 0.0))
    async with made(tmp_path, certificate_seconds=20) as cluster:
        file = cluster.directory / NODE / "pki/client.pem"
        async with cluster.node(ReferenceProvider(), **bootstrapping(cluster)):
            first = Pair.parse(file.read_bytes())

            async def several() -> bool:
                return len(await requests(cluster)) >= 4

            await until(cluster, several)
            await cluster.create()
            await cluster.until(running)
        last = Pair.parse(file.read_bytes())
        assert last.not_after > first.not_after
        by_token, *renewals = sorted(r["spec"]["username"] for r in await requests(cluster))
        assert by_token.startswith("system:bootstrap:")
        assert set(renewals) == {f"system:node:{NODE}"}


async def test_an_authority_in_the_kubeconfig_lasts_as_long_as_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No part of it lies in a temporary file, whose loss ended the node at the next renewal."""
    monkeypatch.setattr(module, "RENEWED_AT", (0.0, 0.0))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    async with made(tmp_path, certificate_seconds=20) as cluster:
        settings = bootstrapping(cluster, client_ca_file=None)
        bootstrap = yaml.safe_load(settings["bootstrap_kubeconfig"].read_bytes())
        place = bootstrap["clusters"][0]["cluster"]
        place.pop("certificate-authority", None)
        place["certificate-authority-data"] = base64.b64encode(cluster.plane.ca_file.read_bytes()).decode()
        settings["bootstrap_kubeconfig"] = tmp_path / "bootstrap"
        settings["bootstrap_kubeconfig"].write_text(yaml.safe_dump(bootstrap))
        async with cluster.node(ReferenceProvider(), **settings):

            async def several() -> bool:
                return len(await requests(cluster)) >= 3

            await until(cluster, several)
            assert [path for path in temporary.iterdir() if path.is_file()] == []
            # The CA of the kubeconfig is the first guess at that of the clients of the node's own API.
            assert await ask(cluster, "/healthz", cluster.plane.kubeconfig) == (200, "ok")


async def test_a_certificate_that_has_ended_is_replaced_with_the_token(
    cluster: Cluster, provider: ReferenceProvider
) -> None:
    settings = bootstrapping(cluster)
    async with cluster.node(provider, **settings):
        pass
    old = cluster.directory / NODE / "pki/client.pem"
    old.write_bytes(b"no certificate")
    async with cluster.node(provider, **settings):
        await cluster.create()
        await cluster.until(running)
    assert len(await requests(cluster)) == 2


class TestServing:
    async def test_it_is_self_signed_until_somebody_approves(
        self, cluster: Cluster, provider: ReferenceProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
        state = cluster.directory / NODE
        async with cluster.node(provider, serving_csr=True):
            name = await until_requested(cluster, SERVING)
            certificate = await shown(cluster)
            assert certificate.issuer == certificate.subject
            assert not await verified(cluster)

            async def told() -> list[str]:
                return [e["message"] for e in await cluster.events(NODE) if e["reason"] == "ServingCertificatePending"]

            (message, *_) = await until(cluster, told, "/api/v1/namespaces/default/events")
            assert f"kubectl certificate approve {name}" in message
            assert "kubectl logs" in message
            (request,) = await requests(cluster, SERVING)
            assert sorted(request["spec"]["usages"]) == ["digital signature", "server auth"]
            await decide(cluster, name)
            await until_shown(cluster, lambda certificate: certificate.issuer != certificate.subject)
            assert await verified(cluster)
            signed = await shown(cluster)
            names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == [NODE]
            assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
        assert (state / "pki/serving.pem").stat().st_mode & 0o777 == 0o600
        async with cluster.node(provider, serving_csr=True):  # from its first moment, and without another request
            assert await shown(cluster) == signed
        assert len(await requests(cluster, SERVING)) == 1

    async def test_a_restart_waits_for_the_same_request(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        for _ in range(2):
            async with cluster.node(provider, serving_csr=True):
                name = await until_requested(cluster, SERVING)
        async with cluster.node(provider, serving_csr=True):
            await decide(cluster, name)
            await until_shown(cluster, lambda certificate: certificate.issuer != certificate.subject)
        assert [request["metadata"]["name"] for request in await requests(cluster, SERVING)] == [name]

    async def test_it_is_renewed_and_swapped_while_logs_are_followed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "RENEWED_AT", (0.0, 0.0))
        provider = ReferenceProvider()
        async with (
            made(tmp_path, approve=(CLIENT, SERVING), certificate_seconds=20) as cluster,
            cluster.node(provider, serving_csr=True),
        ):
            pod = await cluster.create()
            await cluster.until(running)
            await until_shown(cluster, lambda certificate: certificate.issuer != certificate.subject)
            async with cluster.admin.stream(f"{cluster.pods}/p/log", {"follow": "true"}) as content:
                provider.log(pod.key, "c", b"one\n")
                assert await content.readline() == b"one\n"
                before = (await shown(cluster)).serial_number
                await until_shown(cluster, lambda certificate: certificate.serial_number != before)
                provider.log(pod.key, "c", b"two\n")
                assert await content.readline() == b"two\n"
            assert await verified(cluster)

    async def test_an_address_that_is_new_is_asked_for(self, cluster: Cluster) -> None:
        class Moving(ReferenceProvider):
            address = "10.0.0.1"

            async def node_status(self) -> wasmlet.NodeStatus:
                return wasmlet.NodeStatus({"cpu": "1"}, addresses=[wasmlet.Address("ExternalIP", self.address)])

        provider = Moving()
        async with cluster.node(provider, serving_csr=True):
            first = await until_requested(cluster, SERVING)
            await decide(cluster, first)
            await until_shown(cluster, lambda certificate: certificate.issuer != certificate.subject)
        provider.address = "10.0.0.2"
        async with cluster.node(provider, serving_csr=True):
            second = await until_requested(cluster, SERVING)
        assert second != first

    async def test_another_signer_is_asked_where_one_is_named(
        self, cluster: Cluster, provider: ReferenceProvider
    ) -> None:
        signer = "example.com/serving"
        async with cluster.node(provider, serving_csr=True, serving_signer=signer):
            await until_requested(cluster, signer)
            (request,) = await requests(cluster, signer)
            assert sorted(request["spec"]["usages"]) == ["digital signature", "server auth"]

    async def test_without_it_nothing_is_asked(self, cluster: Cluster, provider: ReferenceProvider) -> None:
        async with cluster.node(provider, serving_csr=False):
            await cluster.create()
            await cluster.until(running)
        assert await requests(cluster, SERVING) == []


async def until_shown(cluster: Cluster, wanted: Callable[[x509.Certificate], bool]) -> None:
    """Return when the node's API shows a certificate as wanted."""
    async with asyncio.timeout(SECONDS):
        while not wanted(await shown(cluster)):
            pass
