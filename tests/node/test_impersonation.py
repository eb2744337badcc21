"""A node whose requests are made with somebody else's credentials, as the node (`--impersonate-node`)."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from tests.node.cluster import NODE, Cluster, running
from wasmlet import ConfigError, NodeConfig
from wasmlet.controlplane.access.rules import Rule
from wasmlet.kube import Client, errors, load_identity
from wasmlet.testing import ControlPlane, ReferenceProvider

HOST = "system:serviceaccount:wasmlet:host"
SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.fixture
async def host(cluster: Cluster) -> Path:
    """Credentials that may do nothing but make requests as the node."""
    if not isinstance(cluster.plane, ControlPlane):
        pytest.skip("rights are granted in the embedded control plane")
    cluster.plane.grant(
        HOST,
        Rule(("impersonate",), ("users",), names=(f"system:node:{NODE}",)),
        Rule(("impersonate",), ("groups",), names=("system:nodes",)),
    )
    return Path(cluster.plane.user_kubeconfig(HOST, token=True))


async def test_a_node_needs_no_credentials_of_its_own(
    cluster: Cluster, provider: ReferenceProvider, host: Path, kubectl: Path
) -> None:
    for name in ("mine", "other"):
        data = {"key": base64.b64encode(name.encode()).decode()}
        await cluster.admin.create(
            SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        )
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "key"}}}]
    container = {"name": "c", "image": "x", "env": env, "command": ["script"], "args": ["print", "hello"]}
    async with cluster.node(provider, kubeconfig=host, impersonate_node=True):
        pod = await cluster.create(containers=[container])
        await cluster.until(running)
        assert set(provider.inputs[pod.uid].secrets) == {"mine"}
        log = await asyncio.create_subprocess_exec(
            str(kubectl), "--kubeconfig", str(cluster.plane.kubeconfig), "logs", "p", stdout=asyncio.subprocess.PIPE
        )
        assert (await log.communicate())[0] == b"hello\n"
        async with Client((await load_identity(host)).as_node(NODE)) as client:
            assert (await client.get(f"{SECRETS}/mine"))["data"]
            with pytest.raises(errors.Forbidden, match="no relationship found"):
                await client.get(f"{SECRETS}/other")
        await cluster.delete()
        await cluster.until_gone()


async def test_another_node_cannot_be_impersonated(cluster: Cluster, provider: ReferenceProvider, host: Path) -> None:
    with pytest.raises(ConfigError, match='cannot impersonate resource "users"'):
        async with cluster.node(provider, kubeconfig=host, impersonate_node=True, node_name="n2"):
            pass


async def test_credentials_read_anew_are_used_as_the_node(cluster: Cluster, host: Path) -> None:
    renewed = await (await load_identity(host)).as_node(NODE).reload()
    headers = await renewed.headers()
    assert (headers["Impersonate-User"], headers["Impersonate-Group"]) == (f"system:node:{NODE}", "system:nodes")


async def test_what_contradicts_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected --impersonate-node or --bootstrap-kubeconfig, found both"):
        NodeConfig(impersonate_node=True, bootstrap_kubeconfig=tmp_path / "b")
    file = tmp_path / "kubeconfig"
    file.write_text(
        "{clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {as: bob}}],"
        "contexts: [{name: x, context: {cluster: c, user: u}}], current-context: x}"
    )
    identity = await load_identity(file)
    with pytest.raises(ConfigError, match="has `as`"):
        identity.as_node("n")
