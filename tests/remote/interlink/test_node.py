"""A node that runs its pods by a plugin."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from wasmlet_remote.config import Config
from wasmlet_remote.interlink import InterlinkConfig, PluginProvider

from tests.node.cluster import Cluster
from tests.remote.agents import PATIENCE
from tests.remote.interlink.plugin import StrictPlugin, serving
from wasmlet import ConfigError
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane


class Impatient(PluginProvider):
    """The same, and asks its plugin often."""

    poll_seconds = 0.05


async def test_create_to_logs_to_delete_with_a_restart_of_the_node_loop_between(tmp_path: Path, kubectl: Path) -> None:
    far = StrictPlugin()
    async with (
        ControlPlane(node_monitor_grace=None) as plane,
        Client(await load_identity(plane.kubeconfig)) as admin,
        serving(far) as url,
    ):
        cluster = Cluster(plane, admin, tmp_path, seconds=PATIENCE)
        container = {"name": "c", "image": "tool", "env": [{"name": "KEY", "value": "x"}]}

        async with cluster.node(Impatient(InterlinkConfig(endpoint=url))):
            first = await cluster.create("p", containers=[container], restartPolicy="Never")
            await cluster.until(lambda pod: pod.phase == "Running")
            await cluster.create("stays", containers=[container], restartPolicy="Never")
            stays = await cluster.until(lambda pod: pod.phase == "Running", "stays")
        far.end(first.uid, 7)
        async with cluster.node(Impatient(InterlinkConfig(endpoint=url))):
            ended = await cluster.until(lambda pod: pod.phase == "Failed")
            assert ended.status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
            log = await asyncio.create_subprocess_exec(
                str(kubectl), "--kubeconfig", str(plane.kubeconfig), "logs", "stays", stdout=asyncio.subprocess.PIPE
            )
            assert (await log.communicate())[0] == b"one\ntwo\n"
            for name in ("p", "stays"):
                await cluster.delete(name)
                await cluster.until_gone(name)
    assert far.created == [first.uid, stays.uid]
    assert far.jobs == {}


@pytest.mark.parametrize(
    ("args", "variable"),
    [(["--protocol", "interlink"], None), (["--protocol=interlink"], None), ([], "interlink")],
)
async def test_the_command_takes_the_provider_of_the_protocol(args: list[str], variable: str | None) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from wasmlet_remote import main; main()", *args, "--capacity", "nonsense",
        env=os.environ | ({"WASMLET_PROTOCOL": variable} if variable else {}), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().startswith("Error: --capacity: expected a resource")


def test_another_protocol_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="expected wasmlet, found 'smoke'; say interlink with --protocol"):
        Config(protocol="smoke").check()
