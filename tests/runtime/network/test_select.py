"""Which network a node has, and why: on the Node, and in words where it cannot be had."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wasmlet.errors import ConfigError
from wasmlet.model.pod import PodKey
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.network import conflist, select
from wasmlet.runtime.network.address import AddressNetwork, directories
from wasmlet.runtime.network.network import POLICY_ANNOTATION, NetworkError, NetworkRequest, PodNetwork
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.runtime.network.pod_networks import PodNetworks


def settings(tmp_path: Path, **more: Any) -> RuntimeConfig:
    return RuntimeConfig(cni_conf_dir=tmp_path / "net.d", **more)


def test_auto_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = select.choose(config)
    assert (found.kind, "root" in found.why) == ("none", True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = select.choose(config)
    assert (found.kind, str(tmp_path / "net.d") in found.why) == ("none", True)
    config.cni_conf_dir.mkdir()
    (config.cni_conf_dir / "README").touch()
    assert select.choose(config).kind == "none"
    for name in ("20-b.conf", "10-a.conflist"):
        (config.cni_conf_dir / name).touch()
    assert conflist.files(config.cni_conf_dir)[0].name == "10-a.conflist"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"network": "bridge"}, "expected one of auto, none, address, cni, found 'bridge'; set it with --network"),
        ({"pod_cidr": ("x",)}, "set it with --pod-cidr"),
        ({"egress_max": "x"}, "set it with --egress-max"),
    ],
)
def test_settings_that_are_none(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RuntimeConfig(**setting)
    assert words in str(raised.value)


async def test_the_node_says_which_network_it_has(tmp_path: Path) -> None:
    none = await select.started(settings(tmp_path, network="none"), tmp_path)
    assert none.remarks() == {
        select.ANNOTATION: "none: --network none asks for it",
        POLICY_ANNOTATION: "not enforced: pods have no network",
    }
    assert not none.node.on
    address = await select.started(settings(tmp_path, network="address"), tmp_path)
    assert address.remarks()[select.ANNOTATION] == "address: --network address asks for it"
    assert address.remarks()[POLICY_ANNOTATION].startswith("not enforced")
    assert address.node.on
    assert not address.node.namespaces


async def test_auto_goes_without_what_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that ran before must not fail to start because somebody has put a file into a directory."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    plugins = tmp_path / "bin"
    for directory in (tmp_path / "net.d", plugins):
        directory.mkdir()
    (tmp_path / "net.d" / "10-a.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "not-installed"}]})
    )
    auto = await select.started(settings(tmp_path, cni_bin_dir=(plugins,)), tmp_path)
    assert not auto.node.on
    assert "not-installed" in auto.remarks()[select.ANNOTATION]
    with pytest.raises(ConfigError, match="not-installed"):
        await select.started(settings(tmp_path, network="cni", cni_bin_dir=(plugins,)), tmp_path)


async def test_a_pod_keeps_its_address_when_the_node_has_another_network(tmp_path: Path) -> None:
    key = PodKey("default", "one", "one")
    before = await select.started(settings(tmp_path, network="address"), tmp_path)
    found = await before.add(NetworkRequest(key), ["192.0.2.7"])
    assert found is not None
    for uid in ("gone", "gone-too"):
        await before.add(NetworkRequest(PodKey("default", uid, uid)), ())
    after = await select.started(settings(tmp_path, network="none"), tmp_path)
    await after.start({"one"})
    assert after.of("one") == found
    assert after.of("gone") is None
    assert await after.add(NetworkRequest(key), ()) == found
    assert await after.add(NetworkRequest(PodKey("default", "new", "new")), ()) is None
    (directory,) = directories(tmp_path)
    assert os.listdir(directory) == ["one"]
    await after.remove("one")
    await after.remove("one")
    assert os.listdir(directory) == []
    await after.close()
    assert not directory.exists()
    assert after.of("one") is None


class Counted(AddressNetwork):
    """Counts what it is asked to take back, and fails to add as often as it is told."""

    removed: list[str]
    failures = 0

    async def add(self, request: NetworkRequest) -> PodNetwork | None:
        if self.failures:
            self.failures -= 1
            raise NetworkError("not now")
        return await super().add(request)

    async def remove(self, uid: str) -> None:
        self.removed.append(uid)
        await super().remove(uid)


class Unreadable(AddressNetwork):
    async def list(self) -> Mapping[str, PodNetwork]:
        raise NetworkError("the disk fails")


async def test_a_network_that_the_node_had_before_may_be_unreadable_and_the_one_it_has_may_not(tmp_path: Path) -> None:
    networks = PodNetworks(AddressNetwork(tmp_path / "now"), NodeNetwork(on=True), {}, [Unreadable(tmp_path)])
    await networks.start(set())
    with pytest.raises(ConfigError, match="network address: the disk fails"):
        await PodNetworks(Unreadable(tmp_path), NodeNetwork(on=True), {}).start(set())


async def test_a_pod_that_never_had_a_network_costs_nothing_at_its_end(tmp_path: Path) -> None:
    network = Counted(tmp_path)
    network.removed = []
    networks = PodNetworks(network, NodeNetwork(on=True), {})
    await networks.start(set())
    await networks.remove("plain")
    assert network.removed == []
    # One whose network was not added to its end has something to take back.
    network.failures = 1
    with pytest.raises(NetworkError):
        await networks.add(NetworkRequest(PodKey("default", "half", "half")), ())
    assert networks.of("half") is None
    await networks.remove("half")
    await networks.remove("half")
    assert network.removed == ["half"]


async def test_the_nodes_own_network(tmp_path: Path) -> None:
    networks = await select.started(settings(tmp_path, network="address", allow_host_network=True), tmp_path)
    request = NetworkRequest(PodKey("default", "h", "h"), host=True)
    found = await networks.add(request, ["192.0.2.7", "fd00::7"])
    assert found is not None
    assert found.ips == ("192.0.2.7", "fd00::7")
    await networks.remove("h")
    assert networks.of("h") is None
    assert not (tmp_path / "network").exists()
