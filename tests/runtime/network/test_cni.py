"""Networks by CNI, with the real plugins in a namespace of the test's own, and with plugins that misbehave."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import select
import socket
import stat
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.runtime.network.spaces import own_namespace, run
from wasmlet.clock import Clock, SystemClock
from wasmlet.errors import ConfigError
from wasmlet.model.pod import Pod, PodKey
from wasmlet.runtime.network import bandwidth, dialing, namespaces
from wasmlet.runtime.network.cni import CniNetwork
from wasmlet.runtime.network.conflist import find, parse
from wasmlet.runtime.network.network import HostPort, NetworkError, NetworkRequest, PodNetwork
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.runtime.network.plugins import MAX_OUTPUT, SECONDS, Plugins, addresses, end_orphans
from wasmlet.runtime.network.pod_networks import PodNetworks
from wasmlet.runtime.network.requests import request_of
from wasmlet.testing.clock import FakeClock

PLUGINS = next((path for path in (Path("/opt/cni/bin"), Path("/usr/lib/cni")) if (path / "bridge").exists()), None)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of the network need root")


def request(name: str = "p", **fields: Any) -> NetworkRequest:
    return NetworkRequest(PodKey("ns", name, f"uid-{name}"), **fields)


def network(directory: Path, conf: Path, plugins: Path, clock: Clock | None = None) -> CniNetwork:
    return CniNetwork(directory, conf, Plugins([plugins], clock or SystemClock()), lambda: ["10.87.0.0/24"])


@pytest_asyncio.fixture
async def space() -> AsyncIterator[None]:
    with own_namespace():
        yield


def ptp(conf: Path, data: Path) -> None:
    """A network as kindnet writes it."""
    ipam = {
        "type": "host-local",
        "dataDir": str(data),
        "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.88.3.0/24"}]],
    }
    chain = [{"type": "ptp", "ipMasq": False, "ipam": ipam}]
    conf.mkdir()
    (conf / "10-kindnet.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": "kindnet", "plugins": chain}))


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


def caller(server: socket.socket) -> str:
    """The address of the next one who connects."""
    sock, (address, _) = server.accept()
    sock.close()
    return str(address)


def nothing_left(tmp_path: Path) -> bool:
    """Whether no file and no address of a pod is left."""
    leases = [file.name for file in (tmp_path / "data").rglob("10.*")]
    return not [*(tmp_path / "cni" / "pods").iterdir(), *(tmp_path / "cni" / "namespaces").iterdir(), *leases]


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


# Plugins that misbehave

SAYS = '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"x"}],"ips":[{"address":"10.9.0.2/24"}]}'


def script(directory: Path, name: str, body: str) -> None:
    """A plugin that writes down how it is called, and does this for ADD."""
    file = directory / name
    calls = directory / "calls"
    file.write_text(f'#!/bin/sh\necho "$CNI_COMMAND {name}" >> {calls}\n[ "$CNI_COMMAND" = ADD ] || exit 0\n{body}\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def chain(tmp_path: Path, *bodies: str) -> CniNetwork:
    """A network of plugins `one`, `two`, ... that do this."""
    names = ("one", "two", "three")[: len(bodies)]
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name, body in zip(names, bodies, strict=True):
        script(plugins, name, body)
    (tmp_path / "conf").mkdir()
    raw = {"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": name} for name in names]}
    (tmp_path / "conf" / "1.conflist").write_text(json.dumps(raw))
    return network(tmp_path / "cni", tmp_path / "conf", plugins)


@needs_root
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("exit 3", "ADD failed: exit status 3, and no reason that can be read: nothing"),
        ("""echo '{"code": 11, "msg": "no more addresses", "details": "in 10.0.0.0/30"}'; exit 1""",
         "ADD failed: no more addresses: in 10.0.0.0/30"),
        ("echo rubbish", "expected a result as JSON, found 'rubbish"),
        ("echo '[1]'", "expected a result as JSON"),
        ("echo '{}'", "gave the pod no address"),
        ("""echo '{"ips": [{"address": "10.0.0.300/8"}]}'""", "expected addresses in the result"),
        ("kill -9 $$", "ADD failed: exit status -9"),
        ("yes", f"said more than {MAX_OUTPUT} bytes"),
    ],
)  # fmt: skip
async def test_what_fails_is_taken_back(tmp_path: Path, body: str, words: str) -> None:
    cni = chain(tmp_path, f"echo '{SAYS}'", body)
    with pytest.raises(NetworkError) as failed:
        await cni.add(request())
    assert words in str(failed.value)
    assert len(str(failed.value)) < 1000
    calls = (tmp_path / "plugins" / "calls").read_text().split("\n")[:-1]
    assert calls == ["ADD one", "ADD two", "DEL two", "DEL one"]
    assert await cni.list() == {}
    assert not list((tmp_path / "cni" / "namespaces").iterdir())


@needs_root
async def test_a_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    chain(tmp_path, f"sleep 1000 & echo $! > {told}; wait")
    clock = FakeClock()
    cni = network(tmp_path / "cni", tmp_path / "conf", tmp_path / "plugins", clock)
    adding = asyncio.create_task(cni.add(request()))
    assert await clock.next_sleep() == SECONDS
    left = os.pidfd_open(int(await asyncio.to_thread(told.read_text)))
    clock.advance(SECONDS)
    with pytest.raises(NetworkError, match="ADD took longer than 60 seconds"):
        await adding
    # What it had started has ended with it.
    assert select.select([left], [], [], 20)[0]
    os.close(left)
    assert await cni.list() == {}


@needs_root
async def test_a_start_that_is_cut_off_is_taken_back_later(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    cni = chain(tmp_path, f"echo > {told}; sleep 1000")
    adding = asyncio.create_task(cni.add(request()))
    await asyncio.to_thread(told.read_text)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert await cni.list() == {"uid-p": PodNetwork(())}
    await cni.remove("uid-p")
    assert await cni.list() == {}
    assert not list((tmp_path / "cni" / "namespaces").iterdir())


@needs_root
async def test_a_configuration_that_is_gone_is_missed_after_a_restart_too(tmp_path: Path) -> None:
    cni = chain(tmp_path, f"echo '{SAYS}'")
    await cni.add(request())
    (source,) = (tmp_path / "conf").iterdir()
    source.unlink()
    cni = network(tmp_path / "cni", tmp_path / "conf", tmp_path / "plugins")
    assert list(await cni.list()) == ["uid-p"]
    try:
        with pytest.raises(NetworkError, match=r"1\.conflist: it is gone"):
            await cni.add(request("q"))
    finally:
        await cni.remove("uid-p")
        await cni.remove("uid-q")
    assert await cni.list() == {}


@pytest.mark.parametrize("old", [False, True], ids=["this kernel", "before 5.3"])
def test_plugins_whose_node_is_gone_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    script = "setsid sleep 1000 > /dev/null 2>&1 & echo $!"
    variables = {**os.environ, "CNI_NETNS": f"{tmp_path}/x"}
    pid = int(subprocess.run(["sh", "-c", script], env=variables, stdout=subprocess.PIPE, check=True).stdout)
    left = os.pidfd_open(pid)
    while os.getsid(pid) != pid:
        time.sleep(0.01)

    def none_such(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if old:
        monkeypatch.setattr(os, "pidfd_open", none_such)
    end_orphans(tmp_path)
    assert select.select([left], [], [], 20)[0]
    os.close(left)


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    cni = network(tmp_path / "cni", tmp_path / "conf", tmp_path)
    expected = "containernetworking-plugins" if os.geteuid() == 0 else "expected to run as root"
    with pytest.raises(ConfigError, match=expected):
        await cni.check()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "expected JSON"),
        ("[]", "expected an object"),
        ('{"name": "n", "plugins": []}', "expected plugins"),
        ('{"name": "n", "plugins": [{"type": "../x"}]}', "the name of a program"),
        ('{"name": "n", "cniVersion": "9.0", "plugins": [{"type": "x"}]}', "expected cniVersion"),
        ('{"plugins": [{"type": "x"}]}', "expected a name"),
        ('{"name": "a\\n", "plugins": [{"type": "x"}]}', "expected a name"),
        ('{"name": "n", "plugins": [{"type": "x", "capabilities": [1]}]}', "expected the capabilities of x"),
    ],
)
def test_a_file_that_is_no_network(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "1.conf").write_text(content)
    with pytest.raises(ConfigError, match=words) as failed:
        find(tmp_path)
    assert str(tmp_path / "1.conf") in str(failed.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.conflist")
    with pytest.raises(ConfigError, match="expected a regular file"):
        find(tmp_path)


def test_the_first_file_counts_and_one_plugin_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "20.conflist").write_text("{")
    (tmp_path / "10.conf").write_text('{"name": "n", "cniVersion": "1.0.0", "type": "x", "mtu": 1400}')
    (tmp_path / "00.txt").write_text("{")
    found = find(tmp_path)
    assert found is not None
    assert found.config(found.plugins[0], {}, None) == {
        "name": "n", "cniVersion": "1.0.0", "type": "x", "mtu": 1400
    }  # fmt: skip
    assert parse(found.as_raw()) == parse({"name": "n", "cniVersion": "1.0.0", "plugins": list(found.plugins)})
    assert find(tmp_path / "nothing") is None


def test_capabilities_say_what_a_plugin_is_told() -> None:
    found = parse({"name": "n", "cniVersion": "0.4.0", "plugins": [
        {"type": "a", "capabilities": {"portMappings": True}}, {"type": "b"}]})  # fmt: skip
    runtime = {"portMappings": [{"hostPort": 1}], "bandwidth": {}}
    first, second = (found.config(plugin, runtime, {"ips": []}) for plugin in found.plugins)
    assert first["runtimeConfig"] == {"portMappings": [{"hostPort": 1}]}
    assert "capabilities" not in first
    assert "runtimeConfig" not in second
    assert second["prevResult"] == {"ips": []}


@needs_root
async def test_plugins_are_told_how_much_a_pod_may_receive_and_send(tmp_path: Path) -> None:
    cni = chain(tmp_path, f"cat > {tmp_path}/told; echo '{SAYS}'")
    (tmp_path / "conf" / "1.conflist").write_text(
        json.dumps(
            {"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "one", "capabilities": {"bandwidth": True}}]}
        )
    )
    pod = Pod(
        {
            "metadata": {
                "name": "p",
                "namespace": "ns",
                "uid": "uid-p",
                "annotations": {"kubernetes.io/ingress-bandwidth": "1M", "kubernetes.io/egress-bandwidth": "1.5Mi"},
            },
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
    )
    await cni.add(request_of(pod))
    told = json.loads((tmp_path / "told").read_text())["runtimeConfig"]["bandwidth"]
    most = 2**32 - 1
    assert told == {"ingressRate": 10**6, "ingressBurst": most, "egressRate": 3 * 2**19, "egressBurst": most}
    await cni.remove("uid-p")
    with pytest.raises(NetworkError, match=r"annotation kubernetes\.io/egress-bandwidth: '1' is unreasonably small"):
        await cni.add(request(bandwidth={"egress": "1"}))
    assert await cni.list() == {}
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fast", "expected bits per second as a quantity such as 10M, found 'fast'"),
        ("", "expected bits per second"),
        ("999", r"unreasonably small \(< 1kbit\)"),
        ("-10M", "unreasonably small"),
        ("1001T", r"unreasonably large \(> 1Pbit\)"),
    ],
)
def test_a_bandwidth_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(NetworkError, match=words):
        bandwidth.as_capability({"ingress": text})


def test_bandwidths_from_1k_to_1p() -> None:
    for text, rate in (("1k", 1000), ("1000", 1000), ("10M", 10**7), ("1P", 10**15), ("1e6", 10**6), ("1000.5", 1001)):
        assert bandwidth.as_capability({"ingress": text}) == {"ingressRate": rate, "ingressBurst": 2**32 - 1}
    assert bandwidth.as_capability({}) == {}


@needs_root
async def test_a_pod_is_held_to_its_bandwidth(space: None, tmp_path: Path) -> None:
    assert PLUGINS is not None
    if not (PLUGINS / "bandwidth").exists():
        pytest.skip("there is no CNI plugin bandwidth")
    ptp(tmp_path / "conf", tmp_path / "data")
    file = tmp_path / "conf" / "10-kindnet.conflist"
    raw = json.loads(file.read_text())
    raw["plugins"].append({"type": "bandwidth", "capabilities": {"bandwidth": True}})
    file.write_text(json.dumps(raw))
    cni = network(tmp_path / "cni", tmp_path / "conf", PLUGINS)
    try:
        found = await cni.add(request(bandwidth={"ingress": "8M", "egress": "4M"}))
    except NetworkError as error:
        if "create qdisc" not in str(error):
            raise
        pytest.skip(f"this kernel cannot limit bandwidth: {error}")
    assert found is not None
    limits = [json.loads(line) for line in run("tc", "-j", "qdisc", "show").splitlines()]
    rates = {one["options"]["rate"] for one in limits[0] if one["kind"] == "tbf"}
    assert rates == {10**6, 5 * 10**5}  # bytes per second
    await cni.remove("uid-p")
    assert nothing_left(tmp_path)
    assert "tbf" not in run("tc", "qdisc", "show")


def test_addresses_of_the_pods_own_interfaces() -> None:
    result = {
        "interfaces": [{"name": "veth", "sandbox": ""}, {"name": "eth0", "sandbox": "/run/x"}],
        "ips": [{"interface": 0, "address": "10.0.0.1/24"}, {"interface": 1, "address": "10.0.0.2/24"},
                {"address": "fd00::2/64"}],
    }  # fmt: skip
    assert addresses(result) == ("10.0.0.2", "fd00::2")
