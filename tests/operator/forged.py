"""A cluster with pools on which nothing runs: what kubelets would say of the pods of nodes is written by the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.operator.harness import NODES, Fleet
from wasmlet.kube import Client, load_identity
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.operator.pool import LABEL
from wasmlet.testing import ControlPlane

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
RUNNING = {"name": "wasmlet", "state": {"running": {}}, "ready": False, "image": "", "imageID": "", "restartCount": 0}


@asynccontextmanager
async def lone(directory: Path, kubectl: Path) -> AsyncIterator[Fleet]:
    """A cluster that knows pools; the operators that a test has started end with it."""
    async with (
        ControlPlane(node_monitor_grace=None) as plane,
        Client(await load_identity(plane.kubeconfig)) as admin,
    ):
        fleet = Fleet(plane, admin, directory, kubectl, "default")
        await fleet.define()
        try:
            yield fleet
        finally:
            await fleet.end()


async def runs(fleet: Fleet, name: str, *, ready: bool = True) -> None:
    """Have the container of a node's pod run, as its kubelet would say, as soon as the pod is there."""
    await fleet.until(fleet.pods, lambda found: name in found)
    status = {"phase": "Running", "containerStatuses": [RUNNING], **(READY if ready else {})}
    await fleet.admin.patch(f"{fleet.pods}/{name}/status", {"status": status}, MERGE_PATCH)


async def registers(fleet: Fleet, name: str, *, cordoned: bool = False, **metadata: Any) -> None:
    """Make a Node that is ready, as a node of the pool `edge` would."""
    given = {"name": name, "labels": {LABEL: "edge"}, **metadata}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": given, "spec": {"unschedulable": True} if cordoned else {}}
    await fleet.admin.create(NODES, body)
    await fleet.admin.patch(f"{NODES}/{name}/status", {"status": READY}, MERGE_PATCH)


async def guest(fleet: Fleet, node: str, name: str = "guest", **labels: str) -> None:
    """Make a pod on a Node."""
    spec: dict[str, Any] = {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}
    metadata = {"name": name, "labels": labels}
    await fleet.admin.create(fleet.pods, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
