"""hostPath: every type that a guest can use, below the directories that the node's owner allows, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.harness import Kube

MOUNTS = [{"name": "v", "mountPath": "/v"}]


def host(path: Path, kind: str = "") -> dict[str, Any]:
    return {"volumes": [{"name": "v", "hostPath": {"path": str(path), "type": kind}}]}


async def test_directories(kube: Kube, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("there")
    for kind in ("", "Directory", "DirectoryOrCreate"):
        name = f"a-{kind.lower()}z"
        await kube.create(
            "cat", "/v/file", "put", f"/v/{name}", "x", name=name, spec=host(tmp_path, kind), volumeMounts=MOUNTS
        )
        assert await kube.output(name) == f"thereput /v/{name}: ok\n"
    await kube.create("put", "/v/f", "x", spec=host(tmp_path / "new", "DirectoryOrCreate"), volumeMounts=MOUNTS)
    await kube.phase("Succeeded")
    assert os.listdir(tmp_path / "new") == ["f"]


async def test_a_file(kube: Kube, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("there")
    await kube.create("cat", "/v", spec=host(tmp_path / "file", "File"), volumeMounts=MOUNTS)
    assert await kube.output() == "there"


async def test_what_is_not_of_its_type_is_waited_for(kube: Kube, tmp_path: Path) -> None:
    await kube.create("print", "x", spec=host(tmp_path / "none", "Directory"), volumeMounts=MOUNTS)
    await kube.event("FailedMount", part="hostPath type check failed")


@pytest.mark.refused
async def test_devices_and_other_places(kube: Kube, tmp_path: Path) -> None:
    field = "spec.volumes[0].hostPath"
    await kube.refuses("socket", f"{field}.type", spec=host(tmp_path, "Socket"), volumeMounts=MOUNTS)
    await kube.create("print", "x", name="etc", spec=host(Path("/etc")), volumeMounts=MOUNTS)
    await kube.event("FailedMount", "etc", "--allow-host-path")
