"""Guests that serve, at the addresses of their pods: real requests, over 127.x, which any user can have."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.guests import build
from tests.runtime.harness import Runtime, pod_of
from wasmlet.errors import Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import PodKey
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.network.address import directories

NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
DENSE = attrs.evolve(NODE, runtime_handler="wasmlet-dense")
CONFIG = RuntimeConfig(allow_local_modules=True, network="address", allow_host_network=True)
PATIENCE = 30.0


@pytest.fixture(scope="session")
def server(compile_guest: Callable[..., None]) -> str:
    """An HTTP server; its source lists what else it does."""
    return f"file://{build('server', compile_guest)}"


def free_port(address: str = "127.0.0.1") -> int:
    with socket.create_server((address, 0)) as taken:
        return int(taken.getsockname()[1])


async def answer(ip: str, port: int) -> bytes:
    """What is answered there, once anybody listens."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                reader, writer = await asyncio.open_connection(ip, port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)  # a listener says nothing when it begins to listen
                continue
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            try:
                return await reader.readuntil(b"hello, wasm\n")
            finally:
                writer.close()


async def address(runtime: Runtime, key: PodKey) -> str:
    await runtime.running(key)
    return (await runtime.provider.pod_status(key)).pod_ips[0]


@pytest.mark.parametrize("inputs", [NODE, DENSE], ids=["process", "dense"])
async def test_a_server_answers_at_its_address_and_at_a_port_of_the_node(
    tmp_path: Path, server: str, inputs: Inputs
) -> None:
    port = free_port()
    ports: list[dict[str, Any]] = [
        {"name": "web", "containerPort": 8080, "hostPort": port},
        {"containerPort": 8081},
        {"containerPort": 53, "protocol": "UDP"},
    ]
    async with Runtime(WasmtimeProvider, tmp_path / "state", CONFIG) as runtime:
        key = await runtime.create(pod_of("many", image=server, ports=ports), inputs)
        ip = await address(runtime, key)
        for where in ((ip, 8080), (ip, 8081), ("127.0.0.1", port)):
            assert b"200 OK" in await answer(*where)
        told = await runtime.event(key, "PortNotListenedAt")
        assert told.message.startswith("Port 53/UDP of container main is not listened at")
        await runtime.restart()  # what is open goes on without the node loop, and is there after it
        assert b"200 OK" in await answer(ip, 8080)
        await runtime.provider.delete_pod(key, 0)
        for where in ((ip, 8080), ("127.0.0.1", port)):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*where)


async def test_a_server_that_is_restarted_has_its_address_again(tmp_path: Path, server: str) -> None:
    async with Runtime(WasmtimeProvider, tmp_path / "state", CONFIG) as runtime:
        pod = pod_of("turn", image=server, ports=[{"containerPort": 8080}], restart="Always")
        key = await runtime.create(pod, NODE)
        ip = await address(runtime, key)
        assert b"200 OK" in await answer(ip, 8080)
        (record,) = runtime.provider.services.client.records.values()
        await runtime.provider.services.client.stop(record.id, 0)
        await runtime.main(key, lambda status: status.restart_count == 1)
        assert await address(runtime, key) == ip
        assert b"200 OK" in await answer(ip, 8080)


async def test_the_nodes_own_network(tmp_path: Path, server: str) -> None:
    port = free_port()
    async with Runtime(WasmtimeProvider, tmp_path / "state", CONFIG) as runtime:
        pod = pod_of("turn", image=server, ports=[{"containerPort": port}], spec={"hostNetwork": True})
        key = await runtime.create(pod, NODE)
        assert await address(runtime, key) == "127.0.0.1"
        assert b"200 OK" in await answer("127.0.0.1", port)


async def test_a_port_that_somebody_else_has_ends_the_container_in_words(tmp_path: Path, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        async with Runtime(WasmtimeProvider, tmp_path / "state", CONFIG) as runtime:
            ports = [{"containerPort": 8080, "hostPort": port}]
            key = await runtime.create(pod_of("turn", image=server, ports=ports), NODE)
            ended = await runtime.ended(key)
            assert ended.reason == "StartError"
            assert str(port) in ended.message


async def test_a_port_of_the_node_is_not_one_of_another_pod(tmp_path: Path, server: str) -> None:
    async with Runtime(WasmtimeProvider, tmp_path / "state", CONFIG) as runtime:
        key = await runtime.create(pod_of("turn", image=server, ports=[{"containerPort": 8080}]), NODE)
        ip = await address(runtime, key)
        thief = pod_of("turn", image=server, name="thief", ports=[{"containerPort": 1, "hostPort": 80, "hostIP": ip}])
        with pytest.raises(Refused, match=r"ports\[0\]\.hostIP.*of pods"):
            await runtime.create(thief, NODE)


async def test_an_exec_has_no_listeners(tmp_path: Path, server: str) -> None:
    async with Runtime(WasmtimeProvider, tmp_path / "state", CONFIG) as runtime:
        pod = pod_of("many", image=server, ports=[{"containerPort": 8080}, {"containerPort": 8081}])
        key = await runtime.create(pod, NODE)
        ip = await address(runtime, key)
        assert b"200 OK" in await answer(ip, 8081)  # it was told of two listeners
        code, output = await runtime.provider.services.commands.run(key, "main", ["x", "told"])
        assert (code, output) == (0, b"nothing\n")


@pytest.mark.parametrize("inputs", [NODE, DENSE], ids=["process", "dense"])
async def test_a_module_without_functions_for_sockets_has_none(tmp_path: Path, image: str, inputs: Inputs) -> None:
    async with Runtime(WasmtimeProvider, tmp_path / "state", CONFIG) as runtime:
        pod = pod_of("env", "LISTEN_FDS", "sleep", "60", image=image, ports=[{"containerPort": 8080}])
        key = await runtime.create(pod, inputs)
        await runtime.logged(key, b"LISTEN_FDS is not set\n")
        told = await runtime.event(key, "PortNotListenedAt")
        assert told.message.endswith("is not listened at: its module imports none of the functions for sockets")
        assert (await runtime.provider.pod_status(key)).pod_ips


async def test_a_pod_goes_on_with_its_network_when_the_node_has_none_any_more(tmp_path: Path, server: str) -> None:
    runtime = Runtime(WasmtimeProvider, tmp_path / "state", CONFIG)
    async with runtime:
        probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        pod = pod_of("turn", image=server, ports=[{"containerPort": 8080}], readinessProbe=probe, restart="Always")
        key = await runtime.create(pod, NODE)
        ip = await address(runtime, key)
        runtime.config = attrs.evolve(CONFIG, network="none")
        await runtime.restart()
        await runtime.create(pod, NODE)
        (record,) = runtime.provider.services.client.records.values()
        await runtime.provider.services.client.stop(record.id, 0)
        await runtime.main(key, lambda status: status.restart_count == 1 and bool(status.ready))
        assert await address(runtime, key) == ip
        assert b"200 OK" in await answer(ip, 8080)
        with pytest.raises(Refused, match=r"readinessProbe\.tcpSocket"):
            await runtime.create(pod_of("turn", image=server, name="new", readinessProbe=probe), NODE)
        await runtime.provider.delete_pod(key, 0)
        assert [file for place in directories(tmp_path / "state" / "runtime") for file in place.iterdir()] == []


@pytest.mark.parametrize("inputs", [NODE, DENSE], ids=["process", "dense"])
async def test_a_server_that_can_find_no_file(
    tmp_path: Path, inputs: Inputs, compile_guest: Callable[..., None]
) -> None:
    """A listener has the number of a directory, though none is made for the guest."""
    image = f"file://{build('bare', compile_guest)}"
    async with Runtime(WasmtimeProvider, tmp_path / "state", CONFIG) as runtime:
        key = await runtime.create(pod_of(image=image, ports=[{"containerPort": 8080}]), inputs)
        assert b"200 OK" in await answer(await address(runtime, key), 8080)
