"""What the tutorial of a fleet tells to type works as it is written, with the operator as a pod of its cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest

from tests.deployment.image import version
from tests.docs.console import ROOT, Reader
from tests.operator.harness import NODES
from tests.shared.pods_as_processes import Image, linux_node
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane


@pytest.mark.needs_root("the pods of wasmlet's nodes run as processes")
@pytest.mark.timeout(900)
async def test_a_fleet(kubectl: Path, tmp_path: Path) -> None:
    programs = f"{Path(sys.executable).parent}:{kubectl.parent}:/usr/bin:/bin"
    image = attrs.evolve(Image.wasmlet(), variables={"PATH": programs})
    async with ControlPlane() as plane, Client(await load_identity(plane.kubeconfig)) as admin:
        own = {"PATH": programs, "KUBECONFIG": str(plane.kubeconfig), "HOME": str(tmp_path)}
        reader = Reader(ROOT, own, seconds=800)
        async with linux_node(plane, tmp_path, {f"wasmlet:{version()}": image}):
            output = await reader.follow((ROOT / "docs/tutorials/fleet.md").read_text("utf-8"))
            left = [item["metadata"]["name"] for item in (await admin.get(NODES))["items"]]
    assert output.count("edge-2") >= 1
    assert left == ["linux-1"]
