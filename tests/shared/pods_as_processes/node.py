"""A node of tests that is as a cluster's own: Linux, without a taint, and pods as processes on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wasmlet
from tests.shared.pods_as_processes.images import Image
from tests.shared.pods_as_processes.provider import PodsAsProcesses
from wasmlet.kube import Client, load_identity
from wasmlet.kube.client import MERGE_PATCH


@asynccontextmanager
async def linux_node(
    plane: Any, directory: Path, images: Mapping[str, Image], name: str = "linux-1", **settings: Any
) -> AsyncIterator[wasmlet.Node]:
    """A node that takes every pod that the scheduler would give to a container runtime, while the context is open.

    Args:
        plane: a `ControlPlane`, or a `tests.node.real.RealPlane`.
        directory: below it is the node's state.
        settings: of `NodeConfig`.
    """
    kubeconfig = plane.node_kubeconfig(name)
    given = {
        "kubeconfig": kubeconfig,
        "node_name": name,
        "node_ip": "127.0.0.1",
        "port": 0,
        "client_ca_file": plane.client_ca_file,
        "state_dir": directory / name,
        "serving_csr": False,
    }
    administrator = await load_identity(plane.kubeconfig)
    server = urlsplit(administrator.server)
    provider = PodsAsProcesses(images, (str(server.hostname), int(server.port or 443)))
    async with Client(administrator) as admin:
        async with wasmlet.Node(provider, wasmlet.NodeConfig(**(given | settings))) as node:
            # A node of this library registers with its provider's taint, which only an administrator can take off.
            await admin.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, MERGE_PATCH)
            yield node
        await admin.delete(f"/api/v1/nodes/{name}")  # a cluster that stays has a scheduler, which would go on with it
