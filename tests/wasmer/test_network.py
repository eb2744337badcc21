"""A node with a network for pods: guests of wasmer have the address and the files, and no sockets."""

from __future__ import annotations

from pathlib import Path

from wasmlet_wasmer import WasmerProvider

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs
from wasmlet.runtime import RuntimeConfig


async def test_an_address_and_no_listeners(wasmer: Path, image: str, tmp_path: Path) -> None:
    config = RuntimeConfig(allow_local_modules=True, network="address")
    async with Runtime(WasmerProvider, tmp_path / "state", config) as runtime:
        words = ("env", "IP", "env", "HOSTNAME", "env", "LISTEN_FDS", "cat", "/etc/hosts", "sleep", "1000")
        variable = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        ports = [{"containerPort": 8080}]
        pod = pod_of(*words, image=image, ports=ports, env=[variable])
        key = await runtime.create(pod, Inputs(node_ips=["127.0.0.1"]))
        said = (await runtime.logged(key, b"\tweb\n")).decode()
        (ip,) = (await runtime.provider.pod_status(key)).pod_ips
        assert said.startswith(f"IP={ip}\nHOSTNAME=web\nLISTEN_FDS is not set\n")
        assert said.endswith(f"{ip}\tweb\n")
        event = await runtime.event(key, "PortNotListenedAt")
        assert event.type == "Warning"
        assert "Port 8080/TCP of container main" in event.message
        assert "gives guests no sockets" in event.message
