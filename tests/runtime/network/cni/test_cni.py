"""Networks by CNI, with the real plugins in a namespace of the test's own, and with plugins that misbehave."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.runtime.network.cni.networks import PLUGINS, caller, needs_root, network, nothing_left, ptp, request
from tests.runtime.network.spaces import run
from wasmlet.runtime.network import dialing, namespaces
from wasmlet.runtime.network.network import HostPort
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.runtime.network.pod_networks import PodNetworks


@needs_root
async def test_a_pod_has_a_namespace_that_the_plugins_furnish(space: None, tmp_path: Path) -> None:
    assert PLUGINS is not None
    ptp(tmp_path / "conf", tmp_path / "data")
    cni = network(tmp_path / "cni", tmp_path / "conf", PLUGINS)
    await cni.check()
    first = await cni.add(request("a"))
    second = await cni.add(request("b"))
    assert first is not None
    assert second is not None
    assert first.ips[0].startswith("10.88.3.")
    assert first.ips != second.ips
    assert await cni.add(request("a")) == first
    # A server inside is reached from the node by the pod's address, and from inside by localhost, too.
    with namespaces.socket_in(first.namespace, socket.AF_INET) as server:
        server.bind(("0.0.0.0", 8080))
        server.listen()
        for_node = await asyncio.open_connection(first.ips[0], 8080)
        inside = await dialing.connect_inside(first, 8080)
        assert caller(server) != "127.0.0.1"
        assert caller(server) == "127.0.0.1"
        for _, writer in (for_node, inside):
            writer.close()
    with pytest.raises(ConnectionRefusedError):
        await dialing.connect_inside(first, 8081)
    # Another process finds them again, and takes them back though the configuration is gone.
    (tmp_path / "conf" / "10-kindnet.conflist").unlink()
    other = network(tmp_path / "cni", tmp_path / "conf", PLUGINS)
    assert await other.list() == {"uid-a": first, "uid-b": second}
    for name in ("a", "b"):
        await other.remove(f"uid-{name}")
        await other.remove(f"uid-{name}")
    assert await other.list() == {}
    assert nothing_left(tmp_path)
    assert "veth" not in run("ip", "-br", "link")


@needs_root
async def test_the_network_that_is_built_in(space: None, tmp_path: Path) -> None:
    assert PLUGINS is not None
    cni = network(tmp_path / "cni", tmp_path / "none", PLUGINS)
    await cni.check()
    ports = [HostPort("", 18080, 80, "TCP")]
    pods = [
        found for n in range(8) if (found := await cni.add(request(str(n), host_ports=() if n else ports))) is not None
    ]
    assert len({pod.ips for pod in pods}) == 8
    assert all(pod.ips[0].startswith("10.87.0.") and pod.mapped for pod in pods)
    with namespaces.socket_in(pods[0].namespace, socket.AF_INET) as server:
        server.bind(("0.0.0.0", 80))
        server.listen()
        gateway = "10.87.0.1"
        _, writer = await asyncio.open_connection(gateway, 18080)
        assert caller(server)
        writer.close()
    for uid in await cni.list():
        await cni.remove(uid)
    assert await cni.list() == {}
    assert not list((tmp_path / "cni" / "addresses").rglob("10.*"))


@needs_root
async def test_a_namespace_that_is_gone_is_made_anew(space: None, tmp_path: Path) -> None:
    """As after a reboot of the machine."""
    assert PLUGINS is not None
    ptp(tmp_path / "conf", tmp_path / "data")
    cni = network(tmp_path / "cni", tmp_path / "conf", PLUGINS)
    first = await cni.add(request())
    assert first is not None
    namespaces.remove(Path(first.namespace))
    await asyncio.to_thread(Path(first.namespace).touch)
    again = await cni.add(request())
    assert again is not None
    assert namespaces.exists(Path(again.namespace))
    await cni.remove("uid-p")
    assert nothing_left(tmp_path)


@needs_root
async def test_what_was_kept_of_a_pod_that_is_gone_cannot_be_read(space: None, tmp_path: Path) -> None:
    assert PLUGINS is not None
    ptp(tmp_path / "conf", tmp_path / "data")
    cni = network(tmp_path / "cni", tmp_path / "conf", PLUGINS)
    for name in ("torn", "lost", "kept"):
        assert await cni.add(request(name)) is not None
    (tmp_path / "cni" / "pods" / "uid-torn.json").write_text("{")
    (tmp_path / "cni" / "pods" / "uid-lost.json").unlink()
    networks = PodNetworks(network(tmp_path / "cni", tmp_path / "conf", PLUGINS), NodeNetwork(on=True), {})
    await networks.start({"uid-kept"})
    assert sorted(file.name for file in (tmp_path / "cni" / "namespaces").iterdir()) == ["uid-kept"]
    assert len([file.name for file in (tmp_path / "data").rglob("10.*")]) == 1
    await networks.remove("uid-kept")
    assert nothing_left(tmp_path)
    assert "veth" not in run("ip", "-br", "link")
