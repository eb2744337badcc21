"""Components that serve HTTP in containers that declare no port: at 8080, in every network, over restarts."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import ClientSession, ClientTimeout
from wasmlet_wasmtime import WasmtimeProvider

from tests.guests import components
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.spaces import own_namespace, run
from wasmlet.errors import InvalidInput
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.runtime import RuntimeConfig
from wasmlet.testing.contract.streams import Client

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
LATE = ClientTimeout(20)
NETWORKS = {
    "loopback": RuntimeConfig(allow_local_modules=True, network="address"),
    "address": RuntimeConfig(allow_local_modules=True, network="address", pod_cidr=("10.244.7.0/24",)),
    "cni": RuntimeConfig(allow_local_modules=True, network="cni", cni_conf_dir=Path("/nowhere")),
}
as_root = pytest.mark.needs_root("routes, nftables and namespaces")


@pytest.fixture(params=["loopback", pytest.param("address", marks=as_root), pytest.param("cni", marks=as_root)])
async def networked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Runtime]:
    """A node with each of the networks, in a network namespace of the test's own as root."""
    with own_namespace() if os.geteuid() == 0 else contextlib.nullcontext():
        async with Runtime(WasmtimeProvider, tmp_path / "state", NETWORKS[request.param]) as started:
            yield started


@pytest.fixture
def image(tmp_path: Path) -> str:
    """The component whose paths say what it does."""
    copied = tmp_path / "web.wasm"
    shutil.copy(components.web(), copied)
    return f"file://{copied}"


def undeclared(image: str, **more: Any) -> Pod:
    return pod_of(image=image, **more)


async def address(runtime: Runtime, key: PodKey) -> str:
    await runtime.running(key)
    (ip,) = (await runtime.provider.pod_status(key)).pod_ips
    return ip


async def hello(ip: str, port: int = 8080) -> str:
    async with ClientSession(timeout=LATE) as client, client.get(f"http://{ip}:{port}/environment") as answer:
        assert answer.status == 200
        return await answer.text()


async def forwarded(runtime: Runtime, key: PodKey, port: int) -> bytes:
    """What is answered to a request that is made through `kubectl port-forward`'s part of a node."""
    client = Client()
    client.sends.put_nowait(b"GET /hello HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
    await runtime.provider.port_forward(key, port, client)
    return client.got


async def test_it_is_reached_by_clients_probes_and_forwards_over_a_restart_of_the_node(
    networked: Runtime, image: str
) -> None:
    often = {"periodSeconds": 1, "failureThreshold": 1}
    probes = {
        "startupProbe": {"tcpSocket": {"port": 8080}, **often, "failureThreshold": 20},
        "readinessProbe": {"httpGet": {"path": "/hello", "port": 8080}, **often},
    }
    pod = undeclared(image, **probes)
    key = await networked.create(pod, NODE)
    ip = await address(networked, key)
    await networked.main(key, lambda status: status.started and status.ready)
    assert {"PORT=8080", "LISTEN_FDS=1"} <= set((await hello(ip)).splitlines())
    assert b"hello, component" in await forwarded(networked, key, 8080)
    await networked.restart()
    await networked.create(pod, NODE)
    await networked.main(key, lambda status: status.ready)
    assert "PORT=8080" in await hello(ip)
    assert b"hello, component" in await forwarded(networked, key, 8080)
    with pytest.raises(InvalidInput, match="cannot connect to port 8081 of the pod: connection refused"):
        await forwarded(networked, key, 8081)
    assert (await networked.running(key)).restart_count == 0


async def test_of_two_that_want_the_port_one_has_it_and_the_other_is_told(networked: Runtime, image: str) -> None:
    pod = undeclared(image)
    (main,) = pod.raw["spec"]["containers"]
    spec = {"containers": [main, {**main, "name": "other"}]}
    key = await networked.create(Pod({**pod.raw, "spec": {**pod.raw["spec"], **spec}}), NODE)

    def settled(status: Any) -> bool:
        return {getattr(one.state, "reason", "Running") for one in status.containers} == {
            "Running",
            "CreateContainerConfigError",
        }

    status = await networked.until(key, settled)
    (told,) = [one for one in status.containers if getattr(one.state, "reason", "")]
    (runs,) = [one for one in status.containers if one is not told]
    assert f"at port 8080 where none is declared, and container {runs.name} of the pod has" in told.state.message
    assert "containerPort: 8081" in told.state.message
    assert "PORT=8080" in await hello(status.pod_ips[0])


async def test_a_declared_port_of_another_container_is_that_containers(networked: Runtime, image: str) -> None:
    pod = undeclared(image)
    (main,) = pod.raw["spec"]["containers"]
    declared = {**main, "name": "declared", "ports": [{"containerPort": 8080}]}
    key = await networked.create(Pod({**pod.raw, "spec": {**pod.raw["spec"], "containers": [main, declared]}}), NODE)
    waiting = await networked.waiting(key, "CreateContainerConfigError")
    assert "container declared of the pod has that one" in waiting.message
    await networked.running(key, "declared")


async def test_a_port_of_udp_is_none_to_serve_at(tmp_path: Path, image: str) -> None:
    async with Runtime(WasmtimeProvider, tmp_path / "state", NETWORKS["loopback"]) as runtime:
        pod = undeclared(image, ports=[{"containerPort": 53, "protocol": "UDP"}])
        assert "PORT=8080" in await hello(await address(runtime, await runtime.create(pod, NODE)))


async def test_on_the_nodes_own_network(tmp_path: Path, image: str) -> None:
    config = attrs.evolve(NETWORKS["loopback"], allow_host_network=True)
    inputs = attrs.evolve(NODE, node_ips=["127.0.0.9"])
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        key = await runtime.create(undeclared(image, spec={"hostNetwork": True}), inputs)
        assert "PORT=8080" in await hello(await address(runtime, key))


@as_root
async def test_the_port_is_closed_to_others_than_the_pod(tmp_path: Path, image: str) -> None:
    """What listens at all of the node's addresses answers at no pod's, before and after its server."""
    with own_namespace():
        async with Runtime(WasmtimeProvider, tmp_path / "state", NETWORKS["address"]) as runtime:
            quiet = await runtime.create(
                undeclared(image, name="quiet", readinessProbe={"tcpSocket": {"port": 8080}}), NODE
            )
            await address(runtime, quiet)
            assert "8080" in run("nft", "list", "ruleset")
            await runtime.provider.delete_pod(quiet, 0)
            assert "8080" not in run("nft", "list", "ruleset")
