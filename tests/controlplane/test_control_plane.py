"""Starting and stopping, the files it leaves to its clients, discovery and schemas, and the columns of tables."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.client import Api, open_api, pod
from wasmlet.controlplane.http import tables
from wasmlet.testing import ControlPlane


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_files_are_private_and_go_with_it(tmp_path: Path) -> None:
    async with ControlPlane() as plane:
        directory = plane.directory
        plane.node_kubeconfig("n1")
        plane.user_kubeconfig("../../etc/passwd")
        assert mode(directory) == 0o700
        files = list(directory.iterdir())
        assert {mode(path) for path in files} == {0o600}
        assert all(path.parent == directory for path in files)
        config = yaml.safe_load(plane.kubeconfig.read_bytes())
        assert config["current-context"] == config["contexts"][0]["name"]
        assert config["clusters"][0]["cluster"]["server"] == plane.url
        assert plane.url.startswith("https://127.0.0.1:")
    assert not directory.exists()
    async with ControlPlane(directory=tmp_path / "kept") as plane:
        assert mode(tmp_path / "kept") == 0o700
    assert (tmp_path / "kept" / "admin.kubeconfig").exists()


async def test_a_port_that_is_taken_is_said_at_once() -> None:
    async with ControlPlane() as first:
        port = int(first.url.rpartition(":")[2])
        second = ControlPlane(port=port)
        with pytest.raises(OSError, match="in use"):
            await second.__aenter__()
        assert not second.directory.exists()


def test_without_being_started_it_has_no_files() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        ControlPlane().kubeconfig  # noqa: B018


async def test_two_live_side_by_side_and_do_not_know_each_other() -> None:
    async with ControlPlane() as one, ControlPlane() as two, open_api(one, one.kubeconfig) as api:
        await api.ok("POST", "/api/v1/namespaces/default/pods", pod())
        async with open_api(two, two.kubeconfig) as other:
            assert (await other.ok("GET", "/api/v1/pods"))["items"] == []


async def test_generated_names_are_repeatable() -> None:
    async def name() -> str:
        async with ControlPlane(seed=7) as plane, open_api(plane, plane.kubeconfig) as api:
            body = {"metadata": {"generateName": "x-"}}
            made = await api.ok("POST", "/api/v1/namespaces/default/configmaps", body)
            return str(made["metadata"]["name"])

    assert await name() == await name()


def test_the_plugin_costs_nothing_until_it_is_used() -> None:
    code = "import sys, wasmlet.testing.plugin; print(sorted(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'wasmlet.testing.plugin'" in answer.stdout
    assert "'wasmlet.controlplane.control_plane'" not in answer.stdout
    assert "'kubernetes_asyncio" not in answer.stdout


async def test_discovery_old_and_new(api: Api) -> None:
    pods = next(item for item in (await api.ok("GET", "/api/v1"))["resources"] if item["name"] == "pods")
    assert (pods["shortNames"], pods["categories"], pods["namespaced"]) == (["po"], ["all"], True)
    groups = {item["name"] for item in (await api.ok("GET", "/apis"))["groups"]}
    assert {"coordination.k8s.io", "node.k8s.io", "events.k8s.io"} <= groups
    leases = (await api.ok("GET", "/apis/coordination.k8s.io/v1"))["resources"]
    assert leases[0]["verbs"] == ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    assert (await api.ok("GET", "/apis/node.k8s.io"))["preferredVersion"]["version"] == "v1"
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    found = await api.ok("GET", "/api", Accept=accept)
    assert found["kind"] == "APIGroupDiscoveryList"
    names = {item["resource"]: item for item in found["items"][0]["versions"][0]["resources"]}
    assert {sub["subresource"] for sub in names["pods"]["subresources"]} >= {"status", "log", "binding", "eviction"}
    assert (await api.ok("GET", "/version"))["gitVersion"].startswith("v1.3")


async def test_schemas_come_from_the_models(api: Api) -> None:
    index = (await api.ok("GET", "/openapi/v3"))["paths"]
    document = await api.ok("GET", index["api/v1"]["serverRelativeURL"])
    schemas = document["components"]["schemas"]
    container = schemas["v1.Container"]
    assert container["required"] == ["name"]
    assert container["properties"]["env"]["x-kubernetes-patch-merge-key"] == "name"
    assert container["properties"]["env"]["items"]["allOf"] == [{"$ref": "#/components/schemas/v1.EnvVar"}]
    assert schemas["v1.Pod"]["x-kubernetes-group-version-kind"] == [{"group": "", "version": "v1", "kind": "Pod"}]
    operation = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert "fieldValidation" in {parameter["name"] for parameter in operation["parameters"]}
    assert (await api("GET", "/openapi/v3/apis/none/v1"))[0] == 404


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (3600, "60m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 120, "3h2m"),
        (47 * 3600, "47h"),
        (49 * 3600, "2d1h"),
        (9 * 86400, "9d"),
        (800 * 86400, "2y70d"),
    ],
)
def test_ages(seconds: int, text: str) -> None:
    assert tables.duration(seconds) == text


def status(**fields: Any) -> dict[str, Any]:
    return {"phase": "Pending", **fields}


def container(state: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "c", "state": state, **fields}


def ended(**fields: Any) -> list[dict[str, Any]]:
    return [container({"terminated": fields})]


INITIAL = {"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}


@pytest.mark.parametrize(
    ("spec", "state", "ready", "shown"),
    [
        ({}, status(), "0/1", "Pending"),
        ({}, status(containerStatuses=[container({"waiting": {"reason": "ErrImagePull"}})]), "0/1", "ErrImagePull"),
        (
            {},
            status(phase="Running", containerStatuses=[container({"running": {}}, ready=True)]),
            "1/1",
            "Running",
        ),
        (
            {},
            status(phase="Succeeded", containerStatuses=ended(exitCode=0, reason="Completed")),
            "0/1",
            "Completed",
        ),
        (
            {},
            status(phase="Failed", containerStatuses=ended(exitCode=3)),
            "0/1",
            "ExitCode:3",
        ),
        ({}, status(phase="Failed", containerStatuses=ended(signal=9)), "0/1", "Signal:9"),
        ({}, status(phase="Failed", reason="OutOfcpu"), "0/1", "OutOfcpu"),
        (INITIAL, status(initContainerStatuses=[{"name": "i", "state": {"running": {}}}]), "0/1", "Init:0/1"),
        (
            INITIAL,
            status(initContainerStatuses=[{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
            "0/1",
            "Init:CrashLoopBackOff",
        ),
    ],
)
def test_the_status_column(spec: dict[str, Any], state: dict[str, Any], ready: str, shown: str) -> None:
    found = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], **spec}, "status": state}
    cells = tables.cells("pods", found, datetime.now(UTC))
    assert cells[1:3] == [ready, shown]
    leaving = {**found, "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    finished = state["phase"] in ("Succeeded", "Failed")
    assert tables.cells("pods", leaving, datetime.now(UTC))[2] == (shown if finished else "Terminating")


async def test_closing_is_prompt_with_connections_open() -> None:
    async with ControlPlane() as plane, open_api(plane, plane.kubeconfig) as api:
        await api.ok("GET", "/api/v1/pods")
        begin = asyncio.get_running_loop().time()
        await plane.__aexit__(None, None, None)
        assert asyncio.get_running_loop().time() - begin < 20
