"""Addresses of a network, one for each pod: given in turn, written down, found again, and freed."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import random
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.errors import ConfigError
from wasmlet.model.pod import PodKey
from wasmlet.runtime.files import memory
from wasmlet.runtime.network import address
from wasmlet.runtime.network.address import AddressNetwork, directories, pod_cidrs_of
from wasmlet.runtime.network.config import Cidr, cidrs_of
from wasmlet.runtime.network.network import POLICY_ANNOTATION, NetworkError, NetworkRequest, PodNetwork
from wasmlet.runtime.network.ranges import Pool, loopback_range

CIDRS = ("127.77.0.0/29", "fd00::/64")


def files(state_dir: Path) -> list[str]:
    """The names of the files that say which pod has which address."""
    return sorted(file.name for directory in directories(state_dir) for file in directory.iterdir())


def request_of(uid: str, *ports: int) -> NetworkRequest:
    return NetworkRequest(PodKey("default", uid, uid), ports=ports)


class Reached:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fails: list[str] = []

    async def check(self) -> None:
        self.told.append("check")

    async def open(self, cidr: Cidr) -> None:
        self.told.append(("open", str(cidr)))

    async def add(self, found: PodNetwork, ports: Collection[int]) -> None:
        if self.fails:
            raise NetworkError(self.fails.pop())
        self.told.append(("add", found.ips, list(ports)))

    async def remove(self, found: PodNetwork) -> None:
        self.told.append(("remove", found.ips))

    async def close(self) -> None:
        self.told.append("close")


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 9))
def test_no_address_is_given_twice(frees: list[int], seed: int) -> None:
    pool, given_now = Pool(ipaddress.ip_network("10.1.2.0/29"), random.Random(seed)), []
    for free in frees:
        if free < len(given_now):
            pool.free(given_now.pop(free))
            continue
        if len(given_now) == 5:
            with pytest.raises(NetworkError, match=r"all 5 of 10\.1\.2\.0/29 are taken"):
                pool.take()
            continue
        address = pool.take()
        assert address not in given_now
        assert ipaddress.ip_address("10.1.2.2") <= ipaddress.ip_address(address) <= ipaddress.ip_address("10.1.2.6")
        given_now.append(address)


def test_an_address_is_given_again_late() -> None:
    pool = Pool(ipaddress.ip_network("10.0.0.0/24"), random.Random(1))
    first = pool.take()
    pool.free(first)
    others = [pool.take() for _ in range(252)]
    assert first not in others
    assert pool.take() == first


def test_loopback_is_never_the_machines_own(tmp_path: Path) -> None:
    ranges = {loopback_range(tmp_path / str(number)) for number in range(500)}
    assert len(ranges) > 150
    assert not any(one.overlaps(ipaddress.ip_network("127.0.0.0/16")) for one in ranges)
    assert loopback_range(tmp_path / "1") == loopback_range(tmp_path / "x" / ".." / "1")


async def test_what_a_pod_has_outlives_the_node_loop(tmp_path: Path) -> None:
    network = AddressNetwork(tmp_path)
    await network.check()
    first = await network.add(request_of("one"))
    second = await network.add(request_of("two"))
    assert first is not None
    assert second is not None
    assert first.ips != second.ips
    assert first.namespace == ""
    assert await network.add(request_of("one")) == first
    other = AddressNetwork(tmp_path)
    assert await other.list() == {"one": first, "two": second}
    assert await other.add(request_of("two")) == second
    for _ in range(2):  # nothing to do is no error
        await other.remove("one")
    assert await AddressNetwork(tmp_path).list() == {"two": second}
    with socket.create_server((second.ips[0], 0)):
        pass  # an address that any process of this machine may listen at


async def test_a_uid_that_is_no_file_name(tmp_path: Path) -> None:
    network = AddressNetwork(tmp_path)
    found = await network.add(request_of("../../etc/x"))
    assert found is not None
    assert await AddressNetwork(tmp_path).list() == {"../../etc/x": found}
    await AddressNetwork(tmp_path).remove("../../etc/x")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"uid": "x", "ips": []}', '{"uid": "y", "ips": ["127.9.0.9"]}', "\xff"]
)
async def test_a_file_that_was_not_written_to_its_end_goes(tmp_path: Path, text: str) -> None:
    network = AddressNetwork(tmp_path)
    directory = memory.Memory(tmp_path).find() / address.DIRECTORY
    directory.mkdir()
    (directory / "x").write_bytes(text.encode("latin-1"))
    assert files(tmp_path) == ["x"]
    assert await network.list() == {}
    assert files(tmp_path) == []


async def test_pods_at_once_have_an_address_each(tmp_path: Path) -> None:
    network = AddressNetwork(tmp_path, cidrs_of(("127.9.0.0/24",)))
    found = await asyncio.gather(*(network.add(request_of(f"p{number}")) for number in range(253)))
    assert len({one.ips for one in found if one is not None}) == 253
    with pytest.raises(NetworkError, match=r"all 253 of 127\.9\.0\.0/24 are taken.*--pod-cidr"):
        await network.add(request_of("more"))
    await network.remove("p7")
    assert await network.add(request_of("more")) == found[7]


async def test_an_address_that_cannot_be_written_down_is_given_to_another(tmp_path: Path) -> None:
    network = AddressNetwork(tmp_path, cidrs_of(("127.9.0.0/29",)))
    await network.list()
    in_the_way = memory.Memory(tmp_path).find() / address.DIRECTORY
    in_the_way.write_text("in the way")
    for _ in range(6):
        with pytest.raises(NetworkError, match="cannot be written down"):
            await network.add(request_of("one"))
    in_the_way.unlink()
    assert await network.add(request_of("one")) is not None


async def test_addresses_are_written_down_on_the_disk_where_there_is_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = AddressNetwork(tmp_path)
    before = await network.add(request_of("before"))
    (in_memory,) = directories(tmp_path)
    created = address._create

    def full(file: Path, data: bytes) -> None:
        if file.is_relative_to(in_memory):
            raise OSError(errno.ENOSPC, "no space left")
        created(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(address, "_create", full)
        late = await network.add(request_of("late"))
    assert await AddressNetwork(tmp_path).list() == {"before": before, "late": late}
    for uid in ("before", "late"):
        await network.remove(uid)
    await network.close()
    assert directories(tmp_path) == []
    assert memory.Memory(tmp_path).existing() is None
    with monkeypatch.context() as patched:
        patched.setattr(memory, "SHARED", tmp_path / "none")
        found = await network.add(request_of("one"))
        assert await AddressNetwork(tmp_path).list() == {"one": found}
        assert files(tmp_path) == ["one"]
        assert memory.Memory(tmp_path).existing() is None


async def test_a_network_of_each_family_and_what_makes_it_this_machines(tmp_path: Path) -> None:
    reach = Reached()
    network = AddressNetwork(tmp_path, cidrs_of(("10.9.0.0/24", "fd00::/64")), reach=reach)
    await network.check()
    reach.fails = ["no nft"]
    with pytest.raises(NetworkError, match="no nft"):
        await network.add(request_of("one", 80))
    found = await network.add(request_of("one", 80))
    assert found is not None
    four, six = map(ipaddress.ip_address, found.ips)
    assert four in ipaddress.ip_network("10.9.0.0/24")
    assert six in ipaddress.ip_network("fd00::/64")
    await network.remove("one")
    await network.close()
    opened = [("open", "10.9.0.0/24"), ("open", "fd00::/64")]
    added = ("add", found.ips, [80])
    assert reach.told == ["check", *opened, *opened, added, ("remove", found.ips), "close"]


async def test_the_nodes_own_network_for_pods(tmp_path: Path) -> None:
    node: dict[str, Any] = {}
    network = AddressNetwork(tmp_path, node=lambda: node, reach=Reached())
    early = await network.add(request_of("early"))
    node["spec"] = {"podCIDR": "10.7.0.0/24", "podCIDRs": ["10.7.0.0/24", "fd07::/64"]}
    late = await network.add(request_of("late"))
    assert early is not None
    assert late is not None
    assert ipaddress.ip_address(early.ips[0]).is_loopback
    assert ipaddress.ip_address(late.ips[0]) in ipaddress.ip_network("10.7.0.0/24")
    assert len(late.ips) == 2
    assert "10.7.0.0/24" in network.remarks()[POLICY_ANNOTATION]
    # Where nothing can make it this machine's, it is passed over.
    (tmp_path / "other").mkdir()
    other = AddressNetwork(tmp_path / "other", node=lambda: node)
    plain = await other.add(request_of("plain"))
    assert plain is not None
    assert ipaddress.ip_address(plain.ips[0]).is_loopback
    assert pod_cidrs_of({"spec": {"podCIDRs": ["nonsense"]}}) == ()


async def test_a_network_that_is_not_this_machines_is_named_at_the_start(tmp_path: Path) -> None:
    network = AddressNetwork(tmp_path, cidrs_of(("198.51.100.0/24",)))
    with pytest.raises(ConfigError, match=r"198\.51\.100\.0/24 are not this machine's.*ip route add local"):
        await network.check()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("10.0.0.0",), "found 10.0.0.0/32"),
        (("10.0.0.0/30",), "/29 or larger"),
        (("fd00::/126",), "/125 or larger"),
        (("10.0.0.1/24",), "host bits"),
        (("nonsense",), "expected a network such as 10.1.0.0/24"),
        (("10.0.0.0/24", "10.0.1.0/24"), "at most one network of IPv4"),
        (("127.0.0.0/8",), "127.0.0.0/16"),
        (("169.254.0.0/16",), "169.254.0.0/16"),
        (("224.0.0.0/8",), "224.0.0.0/3"),
        (("0.0.0.0/0",), "no pod can have"),
        (("fe80::/64",), "fe80::/10"),
    ],
)
def test_networks_that_no_pod_can_have_addresses_of(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        cidrs_of(texts)
    assert words in str(raised.value)
    assert "--pod-cidr" in str(raised.value)
