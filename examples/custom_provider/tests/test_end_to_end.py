"""The whole way: kubectl, an API server, the node loop, a process, and back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from wasmlet_processes import ProcessProvider

import wasmlet
from wasmlet.testing import ControlPlane

BIN = Path(sys.executable).parent


@pytest.fixture
async def node(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[wasmlet.Node]:
    config = wasmlet.NodeConfig(
        kubeconfig=control_plane.node_kubeconfig("n1"),
        node_name="n1",
        node_ip="127.0.0.1",
        port=0,
        client_ca_file=control_plane.client_ca_file,
        state_dir=tmp_path / "state",
        drain_on_exit=True,
    )
    async with wasmlet.Node(ProcessProvider(), config) as node:
        yield node


class Kubectl:
    """kubectl against the control plane."""

    def __init__(self, control_plane: ControlPlane, directory: Path) -> None:
        program = shutil.which("kubectl", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
        if program is None:
            give_up = pytest.fail if os.environ.get("CI") else pytest.skip
            give_up("kubectl is needed, on PATH or beside python")
        self._command = [program, "--kubeconfig", str(control_plane.kubeconfig)]
        self._directory = directory

    async def __call__(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, f"kubectl {arguments}: {out.decode()}"
        return out.decode()

    async def apply(self, name: str, script: str) -> None:
        """A pod of one container that runs the shell script."""
        manifest: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": "n1",
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "tolerations": [{"key": "wasmlet.dev/provider", "operator": "Exists"}],
                "containers": [{"name": "c", "image": "none", "command": ["sh", "-c", script]}],
            },
        }
        path = self._directory / f"{name}.json"
        path.write_text(json.dumps(manifest))
        await self("apply", "-f", str(path))


async def test_pods_run_end_and_are_deleted(control_plane: ControlPlane, node: wasmlet.Node, tmp_path: Path) -> None:
    kubectl = Kubectl(control_plane, tmp_path)
    await kubectl.apply("good", "echo hello; exit 0")
    await kubectl.apply("bad", "exit 3")
    await kubectl.apply("long", "echo up; exec sleep 100000")
    await kubectl("wait", "pod/good", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s")
    await kubectl("wait", "pod/bad", "--for=jsonpath={.status.phase}=Failed", "--timeout=20s")
    await kubectl("wait", "pod/long", "--for=condition=Ready", "--timeout=20s")
    assert await kubectl("logs", "good") == "hello\n"
    ended = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"
    assert await kubectl("get", "pod", "bad", "-o", ended) == "3"
    await kubectl("delete", "pod", "--all", "--timeout=20s")
    assert await kubectl("get", "pods", "-o", "name") == ""
    assert await node.provider.list_pods() == []


def test_it_is_found_by_its_entry_point_and_has_a_command() -> None:
    """As it is after `pip install`: wasmlet knows the provider, and its own command has its options."""
    listed = subprocess.run([BIN / "wasmlet", "providers"], capture_output=True, text=True, timeout=60, check=True)
    assert "processes  0.1.0  ready" in listed.stdout
    usage = subprocess.run(
        [BIN / "wasmlet-processes", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "--max-log-bytes" in usage.stdout
    assert "WASMLET_MAX_LOG_BYTES" in usage.stdout
