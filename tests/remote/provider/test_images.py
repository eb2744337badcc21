"""Images that the node loop brings to an agent which reaches no registry (`--push-images`)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from wasmlet_agent.protocol import BLOB_PIECE
from wasmlet_remote import RemoteProvider

import wasmlet
from tests.artifacts.modules import OCI, OCI_CONFIG, descriptor, image_config, manifest, sha, tar_of
from tests.artifacts.registries import Answer, Request, Scripted, reply, scripted
from tests.node.cluster import Cluster, running
from tests.remote.agents import REAL, AgentProcess, Caller, calling
from tests.remote.agents import running as agent_running
from wasmlet.testing import FaultProxy
from wasmlet.testing.fault_proxy import Fault

USER, PASSWORD = "alice", "a password that stays with the node loop"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
TAR = "application/vnd.oci.image.layer.v1.tar"
PULLS = {"imagePullSecrets": [{"name": "pull"}]}
FAULTS: tuple[Fault, ...] = ("lose", "duplicate", "drop", "truncate", "lose")
ENDED = ("Succeeded", "Failed")


class Registry:
    """A private registry with images of one guest.

    Attributes:
        up: whether it answers at all.
    """

    def __init__(self, server: Scripted, guest: bytes) -> None:
        self.server = server
        self.up = True
        layer = tar_of({"app.wasm": guest})
        config = image_config("/app.wasm", "print", "of a container image", layers=[layer])
        page = descriptor(b"a page", "text/html", annotations={"org.opencontainers.image.title": "page"})
        self._image("plain", manifest(descriptor(guest, "application/wasm")), guest)
        self._image("container", manifest(descriptor(layer, TAR), config=descriptor(config, OCI_CONFIG)), config, layer)
        self._image("files", manifest(page), b"a page")

    def name(self, image: str) -> str:
        return f"{self.server.address}/{image}:v1"

    def _image(self, name: str, content: bytes, *blobs: bytes) -> None:
        for wanted in ("v1", sha(content)):
            self.server.answers[f"/v2/{name}/manifests/{wanted}"] = self._private(reply(content, Content_Type=OCI))
        for blob in (b"{}", *blobs):
            self.server.answers[f"/v2/{name}/blobs/{sha(blob)}"] = self._private(reply(blob))
        self.server.answers["/v2/"] = self._private(reply(b""))

    def _private(self, answer: bytes) -> Answer:
        def answered(request: Request) -> bytes:
            if not self.up:
                return b""
            if request.headers.get("authorization") != f"Basic {BASIC}":
                return reply(b"", status=401, WWW_Authenticate='Basic realm="r"')
            return answer

        return answered


@pytest.fixture
async def registry(image: str) -> AsyncIterator[Registry]:
    guest = await asyncio.to_thread(Path(image.removeprefix("file://")).read_bytes)
    async with scripted() as server:
        yield Registry(server, guest)


@pytest.fixture
async def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AgentProcess]:
    """With wasmtime. It wants TLS of registries, which the one here does not speak, and has no credential."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    options = ("--provider=wasmtime", "--shim-idle-exit=1")
    async with agent_running(tmp_path / "agent", *options, program=REAL) as found:
        found.options.append(f"--listen={found.url.removeprefix('http://')}")
        yield found


@asynccontextmanager
async def bringing(cluster: Cluster, registry: Registry, url: str, **settings: Any) -> AsyncIterator[wasmlet.Node]:
    """A node that brings its agent the images."""
    given = {"push_images": True, "insecure_registries": (registry.server.address,), **settings}
    provider = RemoteProvider(RemoteProvider.Config(endpoint=url, **given))
    async with wasmlet.Node(provider, cluster.config()) as node:
        yield node


async def with_secret(cluster: Cluster, registry: Registry) -> None:
    """A pull secret for the registry."""
    auths = {"auths": {registry.server.address: {"auth": BASIC}}}
    data = base64.b64encode(json.dumps(auths).encode()).decode()
    body = {
        "metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data},
    }  # fmt: skip
    await cluster.admin.create("/api/v1/namespaces/default/secrets", body)


def one(image: str, *args: str, **fields: Any) -> dict[str, Any]:
    container = {"name": "c", "image": image, **({"args": list(args)} if args else {}), **fields}
    return {"containers": [container], "automountServiceAccountToken": False}


def waits_for(reason: str, text: str = "") -> Callable[[wasmlet.Pod], bool]:
    def holds(pod: wasmlet.Pod) -> bool:
        for status in pod.raw["status"].get("containerStatuses", ()):
            waiting = status["state"].get("waiting") or {}
            if waiting.get("reason") == reason and text in waiting.get("message", ""):
                return True
        return False

    return holds


def secrets_below(directory: Path) -> list[Path]:
    """The files that have the password, or what it is sent as."""
    signs = (PASSWORD.encode(), BASIC.encode(), base64.b64encode(BASIC.encode()))
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if any(sign in path.read_bytes() for sign in signs)]


@pytest.mark.timeout(240)
async def test_pods_run_of_images_that_the_agent_cannot_pull(
    cluster: Cluster, registry: Registry, agent: AgentProcess, tmp_path: Path
) -> None:
    """Of a module, of a container image, and with files that are mounted; nothing that opens a registry goes there."""
    await with_secret(cluster, registry)
    async with bringing(cluster, registry, agent.url):
        spec = one(registry.name("plain"), "print", "of a module") | PULLS
        await cluster.create("plain", restartPolicy="Never", **spec)
        await cluster.create("container", restartPolicy="Never", **one(registry.name("container")) | PULLS)
        mounted = one(registry.name("plain"), "cat", "/v/page", volumeMounts=[{"name": "v", "mountPath": "/v"}]) | PULLS
        mounted["volumes"] = [{"name": "v", "image": {"reference": registry.name("files")}}]
        await cluster.create("mounted", restartPolicy="Never", **mounted)
        await cluster.create("stranger", restartPolicy="Never", **one(registry.name("plain"), "print", "x"))
        for name, text in (("plain", b"of a module"), ("container", b"of a container image"), ("mounted", b"a page")):
            pod = await cluster.until(lambda pod: pod.phase in ENDED, name)
            async with cluster.admin.stream(f"{cluster.pods}/{name}/log", {}) as content:
                assert text in await content.read()
            assert pod.phase == "Succeeded", pod.raw["status"]
        refused = await cluster.until(waits_for("ErrImagePull", "Failed to pull image"), "stranger")
        assert "wants a user and a password" in str(refused.raw["status"])
        reasons = {event["reason"] for event in await cluster.events("plain")}
        assert {"Pulling", "Pulled"} <= reasons
    assert not await asyncio.to_thread(secrets_below, tmp_path / "agent")
    assert PASSWORD not in "".join(agent.log)


@pytest.mark.timeout(240)
async def test_what_was_brought_serves_without_a_registry_and_without_a_node_loop(
    cluster: Cluster, registry: Registry, agent: AgentProcess
) -> None:
    """Restarts of the container, of the agent and of the node loop ask no registry."""
    await with_secret(cluster, registry)
    always = one(registry.name("plain"), "exit", "3", imagePullPolicy="Always") | PULLS
    async with bringing(cluster, registry, agent.url):
        await cluster.create("again", **always)
        await cluster.until(lambda pod: restarts(pod) >= 1, "again")
    asked = len(registry.server.asked)
    registry.up = False
    await agent.restart()
    async with bringing(cluster, registry, agent.url):
        before = restarts(await cluster.get("again"))
        await cluster.until(lambda pod: restarts(pod) > before, "again")
        labelled = {"metadata": {"labels": {"changed": "yes"}}}
        await cluster.admin.patch(f"{cluster.pods}/again", labelled)
        await cluster.create("new", **always)
        await cluster.until(waits_for("ErrImagePull"), "new")
        registry.up = True
        await cluster.until(lambda pod: restarts(pod) >= 1, "new")
    paths = registry.server.paths()[asked:]
    assert not [path for path in paths if "/blobs/" in path]  # the agent had them


async def test_a_blob_goes_on_where_it_broke_off(cluster: Cluster, registry: Registry, agent: AgentProcess) -> None:
    """Pieces and answers to them are lost, and some come twice or late."""
    await with_secret(cluster, registry)
    async with FaultProxy("127.0.0.1", int(agent.url.rpartition(":")[2])) as proxy:
        traps = [proxy.trap(fault, "PUT", "/v1/blobs/*") for fault in FAULTS]
        async with bringing(cluster, registry, proxy.url):
            await cluster.create("p", **one(registry.name("plain"), "sleep", "1000") | PULLS)
            await cluster.until(running, "p")
            assert [trap.hits for trap in traps] == [1] * len(FAULTS)
            await cluster.delete("p", gracePeriodSeconds=0)
            await cluster.until_gone("p")


async def test_an_agent_whose_provider_takes_no_images_is_told_at_once(tmp_path: Path) -> None:
    async with agent_running(tmp_path / "agent") as agent:
        provider = RemoteProvider(RemoteProvider.Config(endpoint=agent.url, push_images=True))
        try:
            with pytest.raises(wasmlet.ConfigError, match="takes no images; leave --push-images out"):
                await provider.start(wasmlet.NodeContext("n1", "127.0.0.1", 110, tmp_path))
        finally:
            await provider.stop()


async def test_pieces_and_images_that_are_wrong_are_refused_by_name(agent: AgentProcess) -> None:
    async with calling(agent) as caller:
        digest = sha(b"abc")
        assert (await piece(caller, digest, 3, 0, b"ab")).json() == {"here": 2}
        assert (await piece(caller, digest, 3, 0, b"ab")).json() == {"here": 2}
        assert (await piece(caller, digest, 3, 2, b"c")).json() == {"here": 3}
        assert "another digest" in (await piece(caller, sha(b"x"), 3, 0, b"abc", expect=400)).text
        assert "allowed" in (await piece(caller, digest[:-1] + "0", 2**50, 0, b"", expect=400)).text
        await piece(caller, digest, 3, 0, b"x" * (BLOB_PIECE + 1), expect=413)
        await piece(caller, "sha256:..", 3, 0, b"", expect=400)
        body = {"reference": "registry.example/app:v1", "image": {"digest": digest}}
        assert "expected a manifest" in (await caller.ask("PUT", "/v1/images", json=body, expect=400)).text
        body["reference"] = "Not A Reference"
        await caller.ask("PUT", "/v1/images", json=body, expect=400)


async def piece(caller: Caller, digest: str, size: int, offset: int, data: bytes, expect: int = 200) -> Any:
    params = {"size": size, "offset": offset}
    return await caller.ask("PUT", f"/v1/blobs/{digest}", params=params, content=data, expect=expect)


def restarts(pod: wasmlet.Pod) -> int:
    return sum(status["restartCount"] for status in pod.raw["status"].get("containerStatuses", ()))
