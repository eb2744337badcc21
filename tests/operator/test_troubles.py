"""Pools with which something is wrong: what runs does not end for that, and nodes are not left half emptied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.operator.harness import NODES, Fleet, Raw
from wasmlet.kube import Client, load_identity
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.operator.pool import LABEL, POOLS
from wasmlet.operator.seen import DRAINING
from wasmlet.testing import ControlPlane

RUNNING = {"name": "wasmlet", "state": {"running": {}}, "ready": False, "image": "", "imageID": "", "restartCount": 0}


@pytest.mark.timeout(180)
async def test_a_pod_does_not_end_while_its_node_is_not_seen_and_has_pods(tmp_path: Path, kubectl: Path) -> None:
    async with (
        ControlPlane(node_monitor_grace=None) as plane,
        Client(await load_identity(plane.kubeconfig)) as admin,
    ):
        fleet = Fleet(plane, admin, tmp_path, kubectl, "default")
        await fleet.define()
        await fleet.operator()
        try:
            await fleet.pool()
            await fleet.until(fleet.pods, lambda found: "edge-0" in found)
            status = {"status": {"phase": "Running", "containerStatuses": [RUNNING]}}
            await admin.patch(f"{fleet.pods}/edge-0/status", status, MERGE_PATCH)
            await admin.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-0"}})
            guest: dict[str, Any] = {"nodeName": "edge-0", "containers": [{"name": "c", "image": "none"}]}
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "guest"}, "spec": guest}
            await admin.create(fleet.pods, body)
            await fleet.change(replicas=0)
            await fleet.until(POOLS, lambda found: "LabelMissing" in str(found["edge"].get("status")), seconds=60)
            assert "deletionTimestamp" not in (await admin.get(f"{fleet.pods}/edge-0"))["metadata"]
            assert "labeled" in await fleet.run("label", "node", "edge-0", f"{LABEL}=edge")

            def draining(found: Mapping[str, Raw]) -> bool:
                return DRAINING in (found["edge-0"]["metadata"].get("annotations") or {})

            await fleet.until(NODES, draining, seconds=60)
            await fleet.until(fleet.pods, lambda found: "deletionTimestamp" in found["guest"]["metadata"], seconds=60)
            assert "deletionTimestamp" not in (await admin.get(f"{fleet.pods}/edge-0"))["metadata"]
        finally:
            await fleet.end()


@pytest.mark.timeout(180)
async def test_a_node_is_released_also_where_the_pool_cannot_be_as_it_says(tmp_path: Path, kubectl: Path) -> None:
    async with (
        ControlPlane(node_monitor_grace=None) as plane,
        Client(await load_identity(plane.kubeconfig)) as admin,
    ):
        fleet = Fleet(plane, admin, tmp_path, kubectl, "default")
        await fleet.define()
        await fleet.operator()
        try:
            await fleet.pool()
            await fleet.until(fleet.pods, lambda found: "edge-0" in found)
            await fleet.change(config={"no-such-option": "1"})
            await fleet.until(POOLS, lambda found: "InvalidConfig" in str(found["edge"].get("status")), seconds=60)
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            status = {"status": {"phase": "Running", "containerStatuses": [RUNNING], **ready}}
            await admin.patch(f"{fleet.pods}/edge-0/status", status, MERGE_PATCH)
            since = {DRAINING: "2026-01-01T00:00:00Z"}
            metadata = {"name": "edge-0", "labels": {LABEL: "edge"}, "annotations": since}
            body = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"unschedulable": True}}
            await admin.create(NODES, body)
            await admin.patch(f"{NODES}/edge-0/status", {"status": ready}, MERGE_PATCH)
            await fleet.until(NODES, lambda found: not found["edge-0"]["spec"].get("unschedulable"), seconds=60)
            assert DRAINING not in ((await admin.get(f"{NODES}/edge-0"))["metadata"].get("annotations") or {})
        finally:
            await fleet.end()
