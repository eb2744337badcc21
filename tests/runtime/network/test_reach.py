"""Addresses of a network as root: reached from another machine, at the ports of pods and at no others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from tests.runtime.network.spaces import own_namespace, run
from wasmlet.clock import SystemClock
from wasmlet.model.pod import PodKey
from wasmlet.runtime.network import namespaces
from wasmlet.runtime.network.address import AddressNetwork
from wasmlet.runtime.network.network import NetworkRequest, PodNetwork
from wasmlet.runtime.network.reach import AnyIp

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="routes and nftables need root")

CIDR = ip_network("10.244.7.0/24")


@pytest_asyncio.fixture
async def neighbour(tmp_path: Path) -> AsyncIterator[Path]:
    """Another machine, to which the network is routed: a namespace beside that of the test."""
    other = tmp_path / "neighbour"
    with own_namespace():
        namespaces.make(other)
        try:
            run("ip", "link", "add", "va", "type", "veth", "peer", "name", "vb")
            run("nsenter", f"--net={other}", "true")
            run("ip", "link", "set", "vb", "netns", str(other))
            run("ip", "addr", "add", "192.0.2.1/24", "dev", "va")
            run("ip", "link", "set", "va", "up")
            for command in (
                "ip addr add 192.0.2.2/24 dev vb", "ip link set vb up", "ip route add 10.244.7.0/24 via 192.0.2.1",
            ):  # fmt: skip
                run("nsenter", f"--net={other}", *command.split())
            yield other
        finally:
            namespaces.remove(other)


@contextlib.contextmanager
def listening(address: str, port: int) -> Iterator[None]:
    with socket.create_server((address, port)):
        yield


def reached(neighbour: Path, address: str, port: int) -> bool:
    with namespaces.socket_in(str(neighbour), socket.AF_INET) as sock:
        sock.settimeout(5)
        try:
            sock.connect((address, port))
        except ConnectionRefusedError:
            return False
        return True


async def test_pods_are_reached_at_their_ports_alone(neighbour: Path, tmp_path: Path) -> None:
    reach = AnyIp(tmp_path, SystemClock())
    await reach.check()
    network = AddressNetwork(tmp_path, [CIDR], reach=reach)
    await network.check()
    pods = []
    for name in ("a", "b"):
        found = await network.add(NetworkRequest(PodKey("ns", name, f"uid-{name}"), ports=[80]))
        assert found is not None
        pods.append(found.ips[0])
    # A wildcard listener of the node answers at its own address, and at no pod's.
    with listening("0.0.0.0", 10250), listening(pods[0], 80), listening(pods[1], 80):
        assert reached(neighbour, "192.0.2.1", 10250)
        assert [reached(neighbour, pod, 80) for pod in pods] == [True, True]
        assert [reached(neighbour, pod, 10250) for pod in pods] == [False, False]
    # Another process goes on with what is there, and takes it back.
    again = AnyIp(tmp_path, SystemClock())
    later = AddressNetwork(tmp_path, [CIDR], reach=again)
    assert {found.ips for found in (await later.list()).values()} == {(pod,) for pod in pods}
    with listening("0.0.0.0", 80):
        assert reached(neighbour, pods[0], 80)
        await later.remove("uid-a")
        await later.remove("uid-a")
        assert not reached(neighbour, pods[0], 80)
        assert reached(neighbour, pods[1], 80)
    assert pods[0] not in run("nft", "list", "ruleset")


async def test_a_pod_that_listens_elsewhere_now(neighbour: Path, tmp_path: Path) -> None:
    reach = AnyIp(tmp_path, SystemClock())
    await reach.open(CIDR)
    found = PodNetwork(("10.244.7.9",))
    await reach.add(found, [80])
    await reach.add(found, [81])
    with listening("0.0.0.0", 80), listening("0.0.0.0", 81):
        assert not reached(neighbour, "10.244.7.9", 80)
        assert reached(neighbour, "10.244.7.9", 81)


async def test_nothing_is_kept_of_pods_that_are_gone(neighbour: Path, tmp_path: Path) -> None:
    reach = AnyIp(tmp_path, SystemClock())
    await reach.open(CIDR)
    for number, ports in ((1, [8080]), (2, [])):
        pod = PodNetwork((f"10.244.7.{number}",))
        await reach.add(pod, [8080])
        await reach.add(pod, ports)
        await reach.remove(pod)
    assert not reach._ports


async def test_nothing_is_left_of_a_node_that_ends_without_pods(neighbour: Path, tmp_path: Path) -> None:
    reach = AnyIp(tmp_path, SystemClock())
    network = AddressNetwork(tmp_path, [CIDR, ip_network("fd00:7::/64")], reach=reach)
    found = await network.add(NetworkRequest(PodKey("ns", "p", "uid"), ports=[80]))
    assert found is not None
    assert len(found.ips) == 2
    await network.close()
    assert reach.table in run("nft", "list", "tables")
    await network.remove("uid")
    await network.close()
    assert reach.table not in run("nft", "list", "tables")
    assert "10.244.7" not in run("ip", "route", "show", "table", "local")


async def test_two_nodes_of_a_machine_have_a_table_each(neighbour: Path, tmp_path: Path) -> None:
    first, second = AnyIp(tmp_path / "a", SystemClock()), AnyIp(tmp_path / "b", SystemClock())
    other = ip_network("10.244.8.0/24")
    await first.open(CIDR)
    await second.open(other)
    await second.add(PodNetwork(("10.244.8.2",)), [80])
    await second.close()
    tables = run("nft", "list", "tables")
    assert first.table in tables
    assert second.table not in tables


async def test_after_a_restart_of_the_machine(neighbour: Path, tmp_path: Path) -> None:
    """The table and the route are gone, and what pods had is on file."""
    network = AddressNetwork(tmp_path, [CIDR], reach=AnyIp(tmp_path, SystemClock()))
    pod = NetworkRequest(PodKey("ns", "p", "uid"), ports=[80])
    found = await network.add(pod)
    assert found is not None
    run("nft", "flush", "ruleset")
    run("ip", "route", "del", "local", str(CIDR), "dev", "lo")
    again = AddressNetwork(tmp_path, [CIDR], reach=AnyIp(tmp_path, SystemClock()))
    assert await again.add(pod) == found
    with listening("0.0.0.0", 80), listening("0.0.0.0", 81):
        assert [reached(neighbour, found.ips[0], port) for port in (80, 81)] == [True, False]
    run("nft", "flush", "ruleset")
    await AddressNetwork(tmp_path, [CIDR], reach=AnyIp(tmp_path, SystemClock())).remove("uid")


async def test_after_the_firewall_of_the_machine_was_loaded_again(neighbour: Path, tmp_path: Path) -> None:
    """The table is gone while the node runs: the next pod brings it back, with the ports of those that are there."""
    network = AddressNetwork(tmp_path, [CIDR], reach=AnyIp(tmp_path, SystemClock()))
    pods = []
    for name in ("a", "b"):
        found = await network.add(NetworkRequest(PodKey("ns", name, f"uid-{name}"), ports=[80]))
        assert found is not None
        pods.append(found.ips[0])
        run("nft", "flush", "ruleset")
    found = await network.add(NetworkRequest(PodKey("ns", "c", "uid-c"), ports=[80]))
    assert found is not None
    pods.append(found.ips[0])
    with listening("0.0.0.0", 80), listening("0.0.0.0", 81):
        assert [reached(neighbour, pod, 80) for pod in pods] == [True, True, True]
        assert [reached(neighbour, pod, 81) for pod in pods] == [False, False, False]


def test_programs_that_end_before_they_are_told_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under uvloop, as a node runs, where the stream to such a program may be closed before it is used."""
    (tmp_path / "ip").write_text("#!/bin/sh\n")
    (tmp_path / "ip").chmod(0o755)
    (tmp_path / "nft").symlink_to("ip")
    monkeypatch.setenv("PATH", str(tmp_path))

    def busy() -> None:
        """Programs end before the node looks at them again."""
        time.sleep(0.002)

    async def open_many() -> None:
        for number in range(40):
            opening = asyncio.ensure_future(AnyIp(tmp_path / str(number), SystemClock()).open(CIDR))
            while not opening.done():
                busy()
                await asyncio.sleep(0)
            await opening

    uvloop.run(open_many())
