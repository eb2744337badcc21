"""The container image: what is in it, how large it is, and that it runs as whoever a cluster makes it run as."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.image import ROOT, Built
from tests.node.cluster import Cluster
from tests.shared.pods_as_processes import linux_node
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane

pytestmark = [
    pytest.mark.needs_root("an image is built, and run in namespaces"),
    pytest.mark.timeout(1200),
]

MIB = 2**20
CLUSTERS = ROOT / "docs/clusters.md"
NOT_IN_IT = ("pip", "tests", "test", "_pytest", "mypy", "ruff", "ziglang", "hypothesis")


@pytest.fixture
async def cluster(tmp_path: Path, image: Built) -> AsyncIterator[Cluster]:
    async with (
        ControlPlane() as plane,
        Client(await load_identity(plane.kubeconfig)) as admin,
        linux_node(plane, tmp_path, {"wasmlet": image.image}),
    ):
        yield Cluster(plane, admin, tmp_path)


def size(path: Path) -> int:
    """Bytes of all files below it."""
    return sum(os.lstat(Path(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def test_what_is_in_it(image: Built) -> None:
    assert image.image.root is not None
    (packages,) = (image.image.root / "opt/wasmlet/lib").glob("python3.*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert {"wasmlet", "wasmlet_wasmtime", "wasmlet_remote", "wasmlet_agent", "wasmtime"} <= names
    assert not names & set(NOT_IN_IT)
    assert not list((image.image.root / "opt").rglob("*.a"))
    assert not (image.image.root / "src").exists()
    assert [path.name for path in (image.image.root / "root").iterdir() if path.name == ".cache"] == []
    assert image.config["User"] == "65532:65532"
    assert list(image.config["ExposedPorts"]) == ["10250/tcp"]


def test_how_large_it_is(image: Built) -> None:
    """What the documentation says, give or take a tenth."""
    assert image.image.root is not None
    said = re.search(r"It has (\d+) MiB: half of that is its base, and half is wasmlet", CLUSTERS.read_text())
    assert said is not None
    whole, own = size(image.image.root) / MIB, size(image.image.root / "opt/wasmlet") / MIB
    assert (whole, own) == pytest.approx((int(said[1]), int(said[1]) / 2), rel=0.1)


@pytest.mark.parametrize(
    "security",
    [
        {},
        {"runAsUser": 1000660000, "runAsGroup": 0, "fsGroup": 1000660000},
    ],
    ids=["as it says itself", "as a user that OpenShift makes up"],
)
async def test_it_runs_as_any_user_without_a_capability(
    cluster: Cluster, kubectl: Path, security: dict[str, Any]
) -> None:
    container = {
        "name": "c",
        "image": "wasmlet",
        "command": ["wasmlet", "providers"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    await cluster.create(
        containers=[container],
        nodeName="linux-1",
        restartPolicy="Never",
        securityContext={"runAsNonRoot": True, **security},
        volumes=[{"name": "tmp", "emptyDir": {}}],
    )
    pod = await cluster.until(lambda pod: pod.finished)
    answer = await asyncio.create_subprocess_exec(
        kubectl, "--kubeconfig", cluster.plane.kubeconfig, "logs", "p", stdout=asyncio.subprocess.PIPE
    )
    log = (await answer.communicate())[0].decode()
    assert pod.phase == "Succeeded", log
    assert re.search(r"^wasmtime .*ready", log, re.MULTILINE), log
