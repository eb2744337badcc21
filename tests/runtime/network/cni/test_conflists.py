"""CNI configuration that changes under pods that run, and node loops that are killed: real plugins, and real guests."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.guests import build
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.network.cni.networks import (
    PLUGINS,
    SAYS,
    caller,
    chain,
    needs_root,
    network,
    nothing_left,
    ptp,
    request,
)
from tests.runtime.network.spaces import run
from tests.runtime.network.test_serving import answer
from wasmlet.model.inputs import Inputs
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.network import namespaces
from wasmlet.runtime.network.network import NetworkError
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.runtime.network.pod_networks import PodNetworks

FILE = "10-kindnet.conflist"
NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])


def rewrite(conf: Path, data: Path) -> None:
    """Another network in the same file, as when a cluster changes from one CNI provider to another."""
    bridge: dict[str, Any] = {
        "type": "bridge",
        "bridge": "other0",
        "isGateway": True,
        "ipam": {"type": "host-local", "dataDir": str(data), "ranges": [[{"subnet": "10.89.3.0/24"}]]},
    }
    (conf / FILE).write_text(json.dumps({"cniVersion": "1.0.0", "name": "other", "plugins": [bridge]}))


def leases(data: Path) -> list[str]:
    """Which addresses of which networks are taken."""
    return sorted(f"{file.parent.name} {file.name.rpartition('.')[0]}" for file in data.rglob("10.*"))


@needs_root
async def test_pods_keep_the_network_that_they_were_added_with(space: None, tmp_path: Path) -> None:
    assert PLUGINS is not None
    conf, data = tmp_path / "conf", tmp_path / "data"
    ptp(conf, data)
    cni = network(tmp_path / "cni", conf, PLUGINS)
    first = await cni.add(request("first"))
    assert first is not None
    with namespaces.socket_in(first.namespace, socket.AF_INET) as server:
        server.bind(("0.0.0.0", 8080))
        server.listen()
        rewrite(conf, data)
        second = await cni.add(request("second"))
        assert second is not None
        assert second.ips[0].startswith("10.89.3.")
        # For the node loop that goes on as for one that comes back, and by CHECK of the plugins that the pod knows.
        for known in (cni, network(tmp_path / "cni", conf, PLUGINS)):
            assert await known.add(request("first")) == first
            assert await known.list() == {"uid-first": first, "uid-second": second}
        _, writer = await asyncio.open_connection(first.ips[0], 8080)
        assert caller(server)
        writer.close()
    assert leases(data) == ["kindnet 10.88.3", "other 10.89.3"]
    await cni.remove("uid-first")
    assert leases(data) == ["other 10.89.3"]
    assert run("ip", "-br", "link").count("veth") == 1
    await cni.remove("uid-second")
    assert nothing_left(tmp_path)
    assert "veth" not in run("ip", "-br", "link")


NOWHERE = '{"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "ptp"}, {"type": "nowhere"}]}'


@needs_root
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"cniVersion": "0.4.0", "na', "expected JSON"),
        ('{"cniVersion": "0.4.0", "name": "n", "plugins": []}', "expected plugins"),
        (NOWHERE, "wants CNI plugin nowhere, which is not there"),
        (None, "it is gone"),
    ],
    ids=["torn", "empty", "unknown-plugin", "gone"],
)
async def test_pods_that_run_need_no_configuration(
    space: None, tmp_path: Path, content: str | None, words: str
) -> None:
    """New pods wait for one: the network that is built in is for nodes that have never had another."""
    assert PLUGINS is not None
    conf = tmp_path / "conf"
    ptp(conf, tmp_path / "data")
    good = (conf / FILE).read_text()
    cni = network(tmp_path / "cni", conf, PLUGINS)
    first = await cni.add(request("first"))
    assert first is not None
    (conf / FILE).unlink()
    if content is not None:
        (conf / FILE).write_text(content)
    with pytest.raises(NetworkError, match=words) as failed:
        await cni.add(request("second"))
    assert str(conf / FILE) in str(failed.value)
    assert await cni.add(request("first")) == first
    assert await cni.list() == {"uid-first": first}
    await cni.remove("uid-first")
    assert nothing_left(tmp_path)
    (conf / FILE).write_text(good)
    second = await cni.add(request("second"))
    assert second is not None
    assert second.ips[0].startswith("10.88.3.")
    await cni.remove("uid-second")
    assert nothing_left(tmp_path)
    assert "veth" not in run("ip", "-br", "link")


@needs_root
async def test_guests_serve_on_and_new_pods_wait_for_a_configuration(
    space: None, tmp_path: Path, compile_guest: Callable[..., None]
) -> None:
    conf, data = tmp_path / "conf", tmp_path / "data"
    ptp(conf, data)
    good = (conf / FILE).read_text()
    image = f"file://{build('server', compile_guest)}"
    config = RuntimeConfig(allow_local_modules=True, network="cni", cni_conf_dir=conf)
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:

        async def serving(name: str) -> Any:
            pod = pod_of("turn", image=image, name=name, ports=[{"containerPort": 8080}])
            return await runtime.create(pod, NODE)

        first = await serving("first")
        await runtime.running(first)
        (ip,) = (await runtime.provider.pod_status(first)).pod_ips
        assert b"200 OK" in await answer(ip, 8080)
        (conf / FILE).write_text("{")
        second = await serving("second")
        event = await runtime.event(second, "FailedCreatePodSandBox", "expected JSON")
        assert f"CNI network {conf / FILE}" in event.message
        assert b"200 OK" in await answer(ip, 8080)
        (conf / FILE).write_text(good)
        await runtime.running(second)
        (other,) = (await runtime.provider.pod_status(second)).pod_ips
        assert b"200 OK" in await answer(other, 8080)
        for key in (first, second):
            await runtime.provider.delete_pod(key, 0)
        assert leases(data) == []
        assert "veth" not in run("ip", "-br", "link")


@needs_root
async def test_a_plugin_that_removes_the_namespace(tmp_path: Path) -> None:
    cni = chain(tmp_path, f"umount \"$CNI_NETNS\"; echo '{SAYS}'")
    with pytest.raises(NetworkError, match="the CNI plugins have removed the pod's network namespace"):
        await cni.add(request())
    assert (tmp_path / "plugins" / "calls").read_text().split("\n")[:-1] == ["ADD one", "DEL one"]
    assert await cni.list() == {}
    assert not list((tmp_path / "cni" / "namespaces").iterdir())


@needs_root
async def test_what_a_killed_node_loop_was_adding_is_taken_back(space: None, tmp_path: Path) -> None:
    """Its plugins go on without it. They are ended first, or they would do what nobody undoes."""
    assert PLUGINS is not None
    conf, data, plugins = tmp_path / "conf", tmp_path / "data", tmp_path / "plugins"
    ptp(conf, data)
    plugins.mkdir()
    (plugins / "host-local").symlink_to(PLUGINS / "host-local")
    told = tmp_path / "told"
    os.mkfifo(told)
    script = f"""#!/bin/sh
[ "$CNI_CONTAINERID $CNI_COMMAND" = "uid-second ADD" ] && {{ echo $$ > {told}; sleep 1000 & wait; }}
exec {PLUGINS}/ptp
"""
    (plugins / "ptp").write_text(script)
    (plugins / "ptp").chmod(stat.S_IRWXU)
    arguments = [
        "-m",
        "tests.runtime.network.cni.adding",
        *map(str, (tmp_path / "cni", conf, plugins)),
        "first",
        "second",
    ]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"first\n"
    left = os.pidfd_open(int(await asyncio.to_thread(told.read_text)))
    process.kill()
    await process.wait()
    networks = PodNetworks(network(tmp_path / "cni", conf, plugins), NodeNetwork(on=True), {})
    await networks.start({"uid-first"})
    assert select.select([left], [], [], 0)[0]
    os.close(left)
    assert sorted(file.name for file in (tmp_path / "cni" / "namespaces").iterdir()) == ["uid-first"]
    assert leases(data) == ["kindnet 10.88.3"]
    await networks.remove("uid-first")
    assert nothing_left(tmp_path)
    assert "veth" not in run("ip", "-br", "link")
