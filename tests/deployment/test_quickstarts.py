"""The commands of docs/clusters.md, in their order: each is run here, or says that it is not."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import yaml

from tests.deployment.conftest import Deployed
from tests.deployment.image import ROOT, version
from tests.node.real import RealPlane

DOCUMENT = (ROOT / "docs/clusters.md").read_text("utf-8")
NOT_RUN = "# not run here"
CLUSTERS = ("KinD", "Minikube", "k3s", "AKS", "EKS", "GKE", "OpenShift", "Outside the cluster")
FOREIGN = ("kind", "minikube", "k3s", "sudo", "az", "aws", "gcloud", "oc", "helm", "buildah", "docker", "make")
THERE = ("kubeadm", "kubectl certificate approve", "node box", "HOST=")
"""Of what is not here, what does not begin with such a program."""
"""Programs that are not here, or do what tests do in another way."""
TRAPS = (
    "LoadBalancer", "providerID", "cloud controller", "self-signed", "no such host", "502", "outside of the cluster",
    "lease", "OOMKilled", "/dev/shm", "emptyDir itself", "control groups", "podCIDR", "DaemonSet", "sidecar",
    "Prometheus", "NodeRestriction", "metrics-server", "impersonate", "RuntimeClass",
)  # fmt: skip


def commands(text: str) -> list[str]:
    """The commands of the console blocks, those of several lines as one."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            found.append(command.strip().replace("\\\n", " "))
    return found


def section(title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert match is not None, title
    return match[1]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_each_cluster_has_a_handful_of_commands(cluster: str) -> None:
    most = 11 if cluster == "OpenShift" else 8  # it has a registry of its own, and verifies kubelets
    assert 1 <= len(commands(section(cluster))) <= most


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_each_ends_in_a_pod_that_is_seen(cluster: str) -> None:
    """By way of the section that has `kubectl logs` and `curl`; what brings the image logs in first."""
    assert "[see it work](#see-it-work)" in section(cluster).replace("\n", " ")
    lines = commands(section(cluster))
    pushed = [at for at, line in enumerate(lines) if "buildah push" in line and " docker://" in line]
    assert all(any("buildah login" in line for line in lines[:at]) for at in pushed)
    assert pushed or cluster in ("KinD", "Minikube", "k3s", "Outside the cluster")
    shown = commands(section("See it work"))
    assert [line.split()[0] for line in shown if line.startswith(("kubectl logs", "curl"))] == ["kubectl", "curl"]


def test_what_is_not_run_here_cannot_be() -> None:
    for command in commands(DOCUMENT):
        program = command.split()[0]
        foreign = program in FOREIGN or "helm" in command or "wasmlet-wasmtime" in command or "ttl.sh" in command
        assert (NOT_RUN in command) == (foreign or "| sudo" in command or any(one in command for one in THERE)), command


def test_each_trap_has_a_row() -> None:
    """A symptom, a cause, a command that shows it, and a cure."""
    rows = re.findall(r"^\| (.*) \|$", section("Troubles, and what to do"), re.MULTILINE)[1:]
    for row in rows:
        cells = [cell.strip() for cell in row.split(" | ")]
        assert len(cells) == 4, row
        assert all(cells), row
        assert re.fullmatch(r"`kubectl .*`", cells[2]), row
    assert [trap for trap in TRAPS if not any(trap in row for row in rows)] == []


@pytest.mark.needs_root("an image is built, and run in namespaces")
@pytest.mark.timeout(1200)
async def test_the_commands(deployed: Deployed, tmp_path: Path) -> None:
    """As a user types them, in one shell; then each command of the table of troubles."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = [command for command in commands(DOCUMENT) if NOT_RUN not in command]
    at = next(index for index, line in enumerate(lines) if line.startswith("kubectl delete"))
    looks = [look.replace("NODE", "wasmlet-0").replace("POD", "web") for look in troubles()]
    if isinstance(deployed.plane, RealPlane):
        # It takes no loopback address for a node's, which this one's is, and has no metrics-server.
        looks = [look for look in looks if "/proxy/" not in look and "/metrics.k8s.io/" not in look]
    shown = [line for line in lines[:at] if line.startswith(("kubectl logs", "curl"))]
    assert len(shown) == 2
    before = await deployed.objects()
    script = "\n".join([*lines[:at], *looks, *lines[at:]])
    script = script.replace("8080:8080", f"{port}:8080").replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    script = script.replace("wasmlet.yaml", str(tmp_path / "openshift.yaml"))
    output = await deployed.sh("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nset -x\n" + script)
    assert re.search(r"^Hello, world$", output, re.MULTILINE)
    assert re.search(r"^Hello from wasmlet-0: /", output, re.MULTILINE)
    check_openshift((tmp_path / "openshift.yaml").read_text())
    assert await deployed.gone(before) == set()


def check_openshift(text: str) -> None:
    """What was made for OpenShift: its constraints give users and groups, its registry has the image."""
    assert not re.search("runAsUser|runAsGroup|fsGroup", text)
    objects = {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(text)}
    assert "serving-csr = true" in objects["ConfigMap/wasmlet"]["data"]["config.toml"]
    (container,) = objects["StatefulSet/wasmlet"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"image-registry.openshift-image-registry.svc:5000/wasmlet/wasmlet:{version()}"
    assert objects["StatefulSet/wasmlet"]["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def troubles() -> list[str]:
    """The commands of the table that can be asked of any cluster."""
    rows = re.findall(r"^\| (.*) \|$", section("Troubles, and what to do"), re.MULTILINE)[1:]
    return [row.split(" | ")[2].strip().strip("`") for row in rows]
