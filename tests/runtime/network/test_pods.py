"""Pods with an address of 127.0.0.0/8, as any user can have them: real guests, over restarts of the node loop."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.network.ranges import loopback_range

ADDRESS = RuntimeConfig(allow_local_modules=True, network="address")
NODE = Inputs(node_name="node", node_ips=["127.0.0.1"])
DENSE = attrs.evolve(NODE, runtime_handler="wasmlet-dense")


@pytest.fixture
async def networked(tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """A node whose pods have addresses."""
    async with Runtime(WasmtimeProvider, tmp_path / "state", ADDRESS) as started:
        yield started


def written(runtime: Runtime) -> list[str]:
    """The UIDs of the pods whose addresses are written down."""
    directory = runtime.state_dir / "runtime" / "network" / "addresses"
    return sorted(json.loads(file.read_text())["uid"] for file in directory.iterdir())


def annotated(pod: Pod, **annotations: str) -> Pod:
    named = {name.replace("__", "/").replace("_", "."): value for name, value in annotations.items()}
    return Pod({**pod.raw, "metadata": {**pod.raw["metadata"], "annotations": named}})


async def test_a_pod_has_an_address_in_its_status_its_variables_and_its_hosts_file(
    networked: Runtime, image: str
) -> None:
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"status.{name}"}}} for name in ("podIP", "podIPs")]
    pod = pod_of("env", "podIP", "env", "podIPs", "cat", "/etc/hosts", "sleep", "60", image=image, env=env)
    key = await networked.create(pod, NODE)
    await networked.running(key)
    status = await networked.provider.pod_status(key)
    (ip,) = status.pod_ips
    assert ipaddress.ip_address(ip) in loopback_range(networked.state_dir / "runtime")
    said = (await networked.logged(key, b"\tweb\n")).decode()
    assert said.startswith(f"podIP={ip}\npodIPs={ip}\n")
    assert f"{ip}\tweb\n" in said
    assert "127.0.0.1\tweb\n" not in said
    await networked.provider.delete_pod(key, 0)
    assert written(networked) == []
