"""Networks by CNI for tests: with the plugins of this machine, and with scripts in their place."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from wasmlet.clock import Clock, SystemClock
from wasmlet.model.pod import PodKey
from wasmlet.runtime.network.cni import CniNetwork
from wasmlet.runtime.network.network import NetworkRequest
from wasmlet.runtime.network.plugins import Plugins

PLUGINS = next((path for path in (Path("/opt/cni/bin"), Path("/usr/lib/cni")) if (path / "bridge").exists()), None)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of the network need root")


def request(name: str = "p", **fields: Any) -> NetworkRequest:
    return NetworkRequest(PodKey("ns", name, f"uid-{name}"), **fields)


def network(directory: Path, conf: Path, plugins: Path, clock: Clock | None = None) -> CniNetwork:
    return CniNetwork(directory, conf, Plugins([plugins], clock or SystemClock()), lambda: ["10.87.0.0/24"])


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


def caller(server: socket.socket) -> str:
    """The address of the next one who connects."""
    sock, (address, _) = server.accept()
    sock.close()
    return str(address)


def nothing_left(tmp_path: Path) -> bool:
    """Whether no file and no address of a pod is left."""
    leases = [file.name for file in (tmp_path / "data").rglob("10.*")]
    return not [*(tmp_path / "cni" / "pods").iterdir(), *(tmp_path / "cni" / "namespaces").iterdir(), *leases]


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
