"""Pods as processes are what their manifests say; what they cannot be is refused by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.cluster import Cluster, condition, running
from tests.shared.pods_as_processes import Image, linux_node
from wasmlet import Pod
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane

pytestmark = pytest.mark.needs_root("pods as processes are put into namespaces")

NODE = "linux-1"
IMAGES = {"shell": Image(entrypoint=("/bin/sh", "-c"), command=("exit 9",), user=7, group=8)}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with (
        ControlPlane() as plane,
        Client(await load_identity(plane.kubeconfig)) as admin,
        linux_node(plane, tmp_path, IMAGES),
    ):
        yield Cluster(plane, admin, tmp_path)


async def ran(
    cluster: Cluster, kubectl: Path, script: str, *, container: dict[str, Any] | None = None, **spec: Any
) -> str:
    """What kubectl shows of the log of a pod of one container, which runs that script to its end."""
    shell = {"name": "c", "image": "shell", "args": [script], **(container or {})}
    await cluster.create(containers=[shell], restartPolicy="Never", nodeName=NODE, **spec)
    pod = await cluster.until(lambda pod: pod.finished)
    answer = await asyncio.create_subprocess_exec(
        str(kubectl), "--kubeconfig", str(cluster.plane.kubeconfig), "logs", "p", stdout=asyncio.subprocess.PIPE
    )
    log = (await answer.communicate())[0].decode()
    assert pod.phase == "Succeeded", log
    return log


def ready(pod: Pod) -> bool:
    return (condition(pod.raw, "Ready") or {}).get("status") == "True"


async def test_who_and_where_a_container_is(cluster: Cluster, kubectl: Path) -> None:
    log = await ran(
        cluster,
        kubectl,
        "id -u; id -g; id -G; hostname; grep -E 'CapBnd|CapEff|NoNewPrivs' /proc/self/status; echo $$$$;"
        "touch /here 2>&1; stat -f -c %T /dev/shm; cat /etc/hosts",
        container={"securityContext": RESTRICTED},
        hostname="web-0",
        subdomain="web",
        securityContext={"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65531, "fsGroup": 65530},
    )
    lines = log.splitlines()
    assert lines[:4] == ["65532", "65531", "65531 65530", "web-0"]
    assert [line.split() for line in lines[4:7]] == [["CapEff:", "0" * 16], ["CapBnd:", "0" * 16], ["NoNewPrivs:", "1"]]
    assert lines[7:10] == ["1", "touch: cannot touch '/here': Read-only file system", "tmpfs"]
    pod = await cluster.get()
    assert pod.raw["status"]["podIP"].startswith("127.")
    assert f"{pod.raw['status']['podIP']}\tweb-0.web.default.svc.cluster.local\tweb-0" in lines


async def test_variables_and_volumes(cluster: Cluster, kubectl: Path) -> None:
    await cluster.admin.create(cluster.maps, {"metadata": {"name": "m"}, "data": {"key": "of the map"}})
    secrets = "/api/v1/namespaces/default/secrets"
    await cluster.admin.create(secrets, {"metadata": {"name": "s"}, "stringData": {"key": "of the secret"}})
    field = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    names = ("map", "secret", "down", "disk", "memory")
    log = await ran(
        cluster,
        kubectl,
        "cat /map/key /secret/key /down/name; echo; echo $POD_IP; echo x > /disk/x && echo y > /memory/y;"
        "stat -c '%u %g %a' /disk /memory; stat -f -c %T /memory; ls /var/run/secrets/kubernetes.io/serviceaccount;"
        "touch /map/x || echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT",
        container={
            "env": [{"name": "POD_IP", **field}],
            "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in names],
        },
        securityContext={"fsGroup": 5},
        volumes=[
            {"name": "map", "configMap": {"name": "m"}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "down", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    )
    pod = await cluster.get()
    lines = log.splitlines()
    assert lines[0] == "of the mapof the secretp"
    assert lines[1:5] == [pod.raw["status"]["podIP"], "0 5 2777", "0 5 2777", "tmpfs"]
    assert lines[5:8] == ["ca.crt", "namespace", "token"]
    assert lines[-1] == cluster.plane.url.removeprefix("https://")


async def test_the_end_of_a_pod(cluster: Cluster) -> None:
    async def end(script: str, grace: int) -> dict[str, Any]:
        container = {"name": "c", "image": "shell", "args": [script]}
        await cluster.create(containers=[container], nodeName=NODE, metadata={"finalizers": ["wasmlet.dev/test"]})
        await cluster.until(running)
        await cluster.delete(gracePeriodSeconds=grace)
        pod = await cluster.until(lambda pod: pod.finished)
        await cluster.admin.patch(f"{cluster.pods}/p", {"metadata": {"finalizers": None}})
        await cluster.until_gone()
        return pod.raw["status"]["containerStatuses"][0]["state"]["terminated"]

    assert (await end("trap 'exit 3' TERM; while :; do sleep 0.1; done", 60))["exitCode"] == 3
    assert (await end("trap '' TERM; while :; do sleep 0.1; done", 1))["exitCode"] == 137
    assert not list((cluster.directory / NODE / "pods").iterdir())


async def test_probes_and_restarts(cluster: Cluster) -> None:
    probe = {"httpGet": {"path": "/ok", "port": 8080}, "periodSeconds": 1}
    container = {
        "name": "c",
        "image": "shell",
        "args": ["cd /served; touch ok; exec python3 -m http.server --bind $IP 8080"],
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "startupProbe": {**probe, "failureThreshold": 60},
        "readinessProbe": {**probe, "failureThreshold": 60},
        "livenessProbe": {**probe, "failureThreshold": 1},
        "volumeMounts": [{"name": "served", "mountPath": "/served"}],
    }
    volumes = [{"name": "served", "emptyDir": {}}]
    await cluster.create(containers=[container], nodeName=NODE, terminationGracePeriodSeconds=1, volumes=volumes)
    first = await cluster.until(ready)
    (served,) = (cluster.directory / NODE / "pods" / first.uid).rglob("ok")
    served.unlink()
    again = await cluster.until(lambda pod: pod.raw["status"]["containerStatuses"][0]["restartCount"] > 0)
    assert again.raw["status"]["podIP"] == first.raw["status"]["podIP"]
    await cluster.until(ready)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"hostNetwork": True}, "spec.hostNetwork"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "spec.volumes[0].hostPath"),
        ({"securityContext": {"runAsUser": 0, "runAsNonRoot": True}}, "runAsNonRoot"),
    ],
)
async def test_what_cannot_be_had_is_refused(cluster: Cluster, spec: dict[str, Any], field: str) -> None:
    await cluster.create(containers=[{"name": "c", "image": "shell"}], nodeName=NODE, **spec)
    pod = await cluster.until(lambda pod: pod.raw["status"].get("containerStatuses"))
    assert field in json.dumps(pod.raw["status"])
