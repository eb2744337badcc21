"""`examples/edge` as it is: from keys to `kubectl logs`, with the unit's own command line."""

from __future__ import annotations

import asyncio
import configparser
import shlex
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wasmlet_agent.keys import make_keys

from tests.remote.agents import PATIENCE, REAL, ROOT, running
from tests.remote.hosts import stand

EDGE = ROOT / "examples/edge"


def unit() -> configparser.SectionProxy:
    """The section of the unit that says how the agent runs."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((EDGE / "wasmlet-agent.service").read_text().replace("\\\n", ""))
    return parser["Service"]


def test_pods_outlive_the_unit() -> None:
    service = unit()
    assert service["KillMode"] == "process"
    assert service["Delegate"] == "yes"
    assert service["TasksMax"] == service["LimitNOFILE"] == "infinity"
    assert service["StateDirectoryMode"] == "0700"


async def test_from_nothing_to_kubectl_logs(tmp_path: Path, kubectl: Path) -> None:
    program, *options = shlex.split(unit()["ExecStart"])
    assert Path(program).name == "wasmlet-agent"
    keys = tmp_path / "keys"
    make_keys(keys, ["127.0.0.1"], datetime.now(UTC) + timedelta(days=1))
    places = {
        "/etc/wasmlet-agent/": f"{keys}/",
        "/opt/wasmlet/modules": f"{ROOT}/examples/box",
        "/var/lib/wasmlet-agent": str(tmp_path / "state"),
        "0.0.0.0:8443": "127.0.0.1:0",
    }
    for there, here in places.items():
        options = [option.replace(there, here) for option in options]

    async def kube(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            kubectl, "--kubeconfig", there.plane.kubeconfig, *arguments, cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE):
            said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
        return said

    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(stand(tmp_path))
        agent = await stack.enter_async_context(
            running(tmp_path / "state", *options, "--shim-idle-exit=1", program=REAL)
        )
        await there.program(
            "-c", "from wasmlet_remote import main; main()",
            f"--kubeconfig={there.plane.node_kubeconfig('edge-1')}", "--node-name=edge-1", "--node-ip=127.0.0.1",
            "--port=0", f"--client-ca-file={there.plane.client_ca_file}", "--no-serving-csr",
            f"--state-dir={tmp_path / 'node'}", f"--endpoint={agent.url}", f"--tls-ca-file={keys}/ca.crt",
            f"--tls-cert-file={keys}/client.crt", f"--tls-key-file={keys}/client.key",
        )  # fmt: skip
        await kube("apply", "-f", "examples/runtimeclasses.yaml", "-f", "examples/edge/pod.yaml")
        await kube("wait", "pod/sensor", "--for=jsonpath={.status.phase}=Running", f"--timeout={PATIENCE:g}s")
        await kube("wait", "pod/sensor", "--for=condition=Ready", f"--timeout={PATIENCE:g}s")
        assert "all is well" in await kube("logs", "sensor")
        await kube("delete", "pod", "sensor", f"--timeout={PATIENCE:g}s")
