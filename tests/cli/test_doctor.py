"""`wasmlet doctor` says what would not work, before a node is started, and changes nothing."""

from __future__ import annotations

import asyncio
import base64
import os
import random
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
from wasmlet.kube.certificates import CLIENT_SIGNER, REQUESTS, SERVING_SIGNER
from wasmlet.kube.keys import Wanted, new_key, request_for
from wasmlet.node.credentials import Credentials
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


async def test_it_makes_no_state_directory(plane: ControlPlane, tmp_path: Path) -> None:
    given = ("--kubeconfig", plane.node_kubeconfig("box"), "--node-name", "box")
    found = await doctor(tmp_path, *given)
    assert f"ok     state directory: {tmp_path}/state, which the node will make" in found.output
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for place, words in (
        (tmp_path / "file/state", f"{tmp_path}/file is not a directory"),
        (tmp_path / "open", "that nobody else may write"),
    ):
        found = await doctor(tmp_path, *given, "--state-dir", place)
        assert isinstance(found.exception, Unwell)
        assert f"FAILS  state directory: state directory {place}: " in found.output
        assert words in found.output


async def test_a_bootstrap_token_gets_the_node_its_certificate(plane: ControlPlane, tmp_path: Path) -> None:
    given = ("--bootstrap-kubeconfig", plane.bootstrap_kubeconfig(), "--node-name", "box")
    found = await doctor(tmp_path, *given)
    assert found.exception is None, found.output
    assert "asks for a certificate of system:node:box when the node starts" in found.output
    assert "ok     rights: asking for a certificate is allowed" in found.output
    assert os.listdir(tmp_path) == []
    # Once the node has its own credentials, they count.
    config = wasmlet.NodeConfig(
        bootstrap_kubeconfig=given[1], node_name="box", state_dir=tmp_path / "state", port=0, node_ip="127.0.0.1"
    )
    (tmp_path / "state").mkdir(mode=0o700)
    credentials = Credentials(config, tmp_path / "state", SystemClock(), random.Random(1))
    await credentials.identity()
    found = await doctor(tmp_path, *given)
    assert found.exception is None, found.output
    assert "ok     identity: system:node:box" in found.output
    assert "ok     rights: what every node does is allowed" in found.output


async def test_a_bootstrap_token_that_has_ended_is_told(plane: ControlPlane, tmp_path: Path) -> None:
    bootstrap = plane.bootstrap_kubeconfig()
    async with Client(await load_identity(plane.kubeconfig)) as admin:
        for secret in (await admin.get("/api/v1/namespaces/kube-system/secrets"))["items"]:
            await admin.delete(f"/api/v1/namespaces/kube-system/secrets/{secret['metadata']['name']}")
    found = await doctor(tmp_path, "--bootstrap-kubeconfig", bootstrap, "--node-name", "box")
    assert isinstance(found.exception, Unwell)
    assert "kubeadm token create makes another" in found.output


@pytest.mark.parametrize(("signer", "level"), [(CLIENT_SIGNER, "FAILS"), (SERVING_SIGNER, "warn ")])
async def test_a_request_that_is_undecided_or_denied_is_told(tmp_path: Path, signer: str, level: str) -> None:
    async with ControlPlane(approve=()) as plane, Client(await load_identity(plane.kubeconfig)) as admin:
        if signer == CLIENT_SIGNER:
            given = ("--bootstrap-kubeconfig", plane.bootstrap_kubeconfig(), "--node-name", "box")
        else:
            given = ("--kubeconfig", plane.node_kubeconfig("box"), "--node-name", "box")
        async with Client(await load_identity(given[1])) as asker:
            for node in ("box", "other"):
                dns = frozenset({node}) if signer == SERVING_SIGNER else frozenset()
                wanted = Wanted(f"system:node:{node}", ("system:nodes",), dns)
                if (node, signer) == ("other", SERVING_SIGNER):
                    continue  # a node asks for none of another
                await asker.create(REQUESTS, csr(f"of-{node}", wanted, signer))
        found = await doctor(tmp_path, *given)
        assert f"{level}  " in found.output
        assert re.search(rf"^{level}  .*: request of-box waits for approval", found.output, re.MULTILINE), found.output
        assert "kubectl certificate approve of-box" in found.output
        assert "of-other" not in found.output
        verdict = {"type": "Denied", "status": "True", "reason": "Stranger", "message": "not one of ours"}
        request = await admin.get(f"{REQUESTS}/of-box")
        request["status"] = {"conditions": [verdict]}
        await admin.replace(f"{REQUESTS}/of-box/approval", request)
        found = await doctor(tmp_path, *given)
        assert "request of-box was denied (Stranger: not one of ours)" in found.output
        assert isinstance(found.exception, Unwell) == (level == "FAILS")
        await admin.delete(f"{REQUESTS}/of-box")
        assert "of-box" not in (await doctor(tmp_path, *given)).output


def csr(name: str, wanted: Wanted, signer: str) -> dict[str, Any]:
    usages = ["digital signature", "client auth" if signer == CLIENT_SIGNER else "server auth"]
    request = base64.b64encode(request_for(new_key(), wanted)).decode()
    return {"metadata": {"name": name}, "spec": {"request": request, "signerName": signer, "usages": usages}}


async def test_credentials_of_another_node_are_told(plane: ControlPlane, tmp_path: Path) -> None:
    found = await doctor(tmp_path, "--kubeconfig", plane.node_kubeconfig("other"), "--node-name", "box")
    assert isinstance(found.exception, Unwell)
    assert "FAILS  identity: system:node:other, expected system:node:box" in found.output
    assert "identity" in str(found.exception)


async def test_credentials_that_may_do_nothing_are_told(plane: ControlPlane, tmp_path: Path) -> None:
    found = await doctor(tmp_path, "--kubeconfig", plane.user_kubeconfig("somebody"), "--node-name", "box")
    assert isinstance(found.exception, Unwell)
    assert "FAILS  rights: these credentials may not create nodes, patch nodes/status, list pods" in found.output


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
