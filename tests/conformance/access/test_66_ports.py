"""Ports that containers declare: a guest listens there at the pod's address, and with a hostPort at the node's."""

from __future__ import annotations

import asyncio
import socket

from tests.conformance.harness import SECONDS, Kube


async def fetched(address: str, port: int, path: str = "/") -> str:
    """What a server answers, once it listens."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                reader, writer = await asyncio.open_connection(address, port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
    return answer


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_container_ports(kube: Kube) -> None:
    """Without a network they mean nothing."""
    await kube.create("print", "x", ports=[{"name": "web", "containerPort": 8080}])
    await kube.phase("Succeeded")


async def test_a_guest_listens_at_them(net: Kube) -> None:
    ports = [{"name": "web", "containerPort": 8080}, {"containerPort": 9090}]
    await net.serve(ports=ports)
    address = (await net.ready())["status"]["podIP"]
    for port in (8080, 9090):
        assert (await fetched(address, port, f"/{port}")).startswith("HTTP/1.1 200")
        assert f"GET /{port} HTTP/1.1" in await net.logged(f"GET /{port} ")


async def test_host_ports(net: Kube) -> None:
    port = free_port()
    ports = [{"containerPort": 8080, "hostPort": port}]
    await net.serve(ports=ports)
    host = (await net.ready())["status"]["hostIP"]
    assert (await fetched(host, port)).startswith("HTTP/1.1 200")
    # Another pod cannot have it meanwhile.
    await net.serve(name="second", ports=ports)
    second = await net.phase("Failed", "second")
    assert second["status"]["reason"] == "NodePorts"
    await net.remove()
    await net.serve(name="third", ports=ports)
    await net.ready("third")
    assert (await fetched(host, port)).startswith("HTTP/1.1 200")
