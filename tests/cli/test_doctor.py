"""`wasmlet doctor` says what would not work, before a node is started, and changes nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

import wasmlet
from wasmlet.cli import diagnosis
from wasmlet.cli.commands import cli
from wasmlet.cli.doctor import Unwell
from wasmlet.clock import SystemClock
from wasmlet.controlplane.faults import Fail
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as plane:
        yield plane


async def doctor(tmp_path: Path, *arguments: Any) -> Result:
    """The command, in a thread: its loop is its own."""
    given = ["doctor", "--provider", "wasmtime", "--state-dir", str(tmp_path / "state"), *map(str, arguments)]
    return await asyncio.to_thread(CliRunner().invoke, cli, given)


async def test_a_node_of_its_own_credentials_is_well(plane: ControlPlane, tmp_path: Path) -> None:
    found = await doctor(tmp_path, "--kubeconfig", plane.node_kubeconfig("box"), "--node-name", "box")
    assert found.exception is None, found.output
    assert "ok     provider wasmtime: can run here" in found.output
    assert "ok     identity: system:node:box" in found.output
    assert "ok     rights: what every node does is allowed" in found.output
    assert "kubectl apply -f examples/runtimeclasses.yaml" in found.output
    async with Client(await load_identity(plane.kubeconfig)) as admin:
        assert (await admin.get("/api/v1/nodes"))["items"] == [], "it has changed nothing"


async def test_credentials_of_another_node_are_told(plane: ControlPlane, tmp_path: Path) -> None:
    found = await doctor(tmp_path, "--kubeconfig", plane.node_kubeconfig("other"), "--node-name", "box")
    assert isinstance(found.exception, Unwell)
    assert "FAILS  identity: system:node:other, expected system:node:box" in found.output
    assert "identity" in str(found.exception)


async def test_credentials_that_may_do_nothing_are_told(plane: ControlPlane, tmp_path: Path) -> None:
    found = await doctor(tmp_path, "--kubeconfig", plane.user_kubeconfig("somebody"), "--node-name", "box")
    assert isinstance(found.exception, Unwell)
    assert "FAILS  rights: it may not create nodes, patch nodes/status, list pods" in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kubeconfig", "/nowhere/at/all"], "FAILS  credentials: kubeconfig /nowhere/at/all: there is no such file"),
        (["--module-dir", "/nowhere"], "FAILS  credentials"),
    ],
)
async def test_what_keeps_a_node_from_starting(
    tmp_path: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    found = await doctor(tmp_path, *arguments)
    assert isinstance(found.exception, Unwell)
    assert said in found.output


async def test_an_api_server_that_is_not_there(plane: ControlPlane, tmp_path: Path) -> None:
    text = plane.kubeconfig.read_text().replace(plane.url, "https://127.0.0.1:1")
    (tmp_path / "kubeconfig").write_text(text)
    found = await doctor(tmp_path, "--kubeconfig", tmp_path / "kubeconfig")
    assert isinstance(found.exception, Unwell)
    assert "FAILS  API server: https://127.0.0.1:1" in found.output
    assert "rights" not in found.output


async def test_whether_the_api_server_reaches_the_node(plane: ControlPlane) -> None:
    """It is asked to get the node's health, as `kubectl get --raw /api/v1/nodes/NAME/proxy/healthz` does."""
    config = wasmlet.NodeConfig(node_name="box")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "box"}}
    async with Client(await load_identity(plane.kubeconfig)) as admin:
        (found,) = await diagnosis.reach(admin, config)
        assert "there is no node box yet" in found.said
        await admin.create("/api/v1/nodes", node)
        for status, body, level, words in (
            (502, "bad gateway", "fails", "--node-ip"),
            (503, "tls: failed to verify certificate: x509: unknown authority", "fails", "kubectl certificate approve"),
            (500, "dial tcp: lookup box: no such host", "fails", "--node-name"),
            (403, "forbidden", "ok", "administrator"),
            (404, "not found", "ok", ""),
        ):
            answer = Fail(status, message=body)
            plane.faults.add(answer, path="/api/v1/nodes/box/proxy/healthz")
            (found,) = await diagnosis.reach(admin, config)
            plane.faults.clear()
            assert (found.level, words in found.cure) == (level, True), found


async def test_a_clock_that_is_wrong_is_told(plane: ControlPlane) -> None:
    @attrs.frozen
    class Late(SystemClock):
        def now(self) -> Any:
            return super().now() - timedelta(hours=1)

    async with Client(await load_identity(plane.kubeconfig)) as admin:
        found = await diagnosis.cluster(admin, wasmlet.NodeConfig(node_name="box"), Late())
    (clock,) = [finding for finding in found if finding.what == "clock"]
    assert clock.level == "fails"
    assert re.search(r"by 3(59|60)\d s", clock.said), clock.said


async def test_who_may_not_impersonate_the_node_is_told_which_right_is_missing(
    plane: ControlPlane, tmp_path: Path
) -> None:
    somebody = plane.user_kubeconfig("somebody")
    found = await doctor(tmp_path, "--kubeconfig", somebody, "--node-name", "box", "--impersonate-node")
    assert isinstance(found.exception, Unwell)
    assert "give them the right to impersonate system:node:box and system:nodes" in found.output


async def test_a_serving_certificate_takes_a_right_of_its_own(plane: ControlPlane, tmp_path: Path) -> None:
    somebody = plane.user_kubeconfig("somebody")
    for option, told in (("--serving-csr", True), ("--no-serving-csr", False)):
        found = await doctor(tmp_path, "--kubeconfig", somebody, "--node-name", "box", option)
        assert ("create certificatesigningrequests" in found.output) == told
