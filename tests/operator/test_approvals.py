"""Requests for certificates that cannot be decided at once: none is lost, and none holds up the others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.operator.forged import lone
from tests.operator.harness import Fleet
from tests.operator.test_identity import serving
from wasmlet.clock import Pacing, SystemClock
from wasmlet.controlplane.faults import Fail
from wasmlet.kube import Client, load_identity
from wasmlet.kube.certificates import REQUESTS
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.operator import identity
from wasmlet.operator.identity import Approvals

pytestmark = pytest.mark.timeout(120)
SETS = "/apis/apps/v1/namespaces/default/statefulsets"


@asynccontextmanager
async def approving(fleet: Fleet, client: Client) -> AsyncIterator[Approvals]:
    """Approvals at work, on a cluster with a pool and the pod of its node, which has no address yet."""
    await fleet.pool(identity="Certificate", replicas=1)
    labels = {"wasmlet.dev/pool": "edge"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "node", "image": "none"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "serviceName": "edge", "template": template}
    body = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "edge"}, "spec": spec}
    await fleet.admin.create(SETS, body)
    await fleet.until(fleet.pods, lambda found: "edge-0" in found, seconds=60)
    approvals = Approvals(client, "default", Pacing(SystemClock(), random.Random(0)))
    approvals.ask()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(approvals.run())
        yield approvals
        task.cancel()


async def ask(fleet: Fleet, name: str, *hosts: str) -> None:
    """Ask as the node for a certificate of its API."""
    raw = serving(*hosts)
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {key: raw["spec"][key] for key in ("request", "signerName", "usages")},
    }
    async with Client(await load_identity(fleet.plane.node_kubeconfig("edge-0"))) as node:
        await node.create(REQUESTS, body)


async def approved(fleet: Fleet, name: str) -> None:
    await fleet.until(REQUESTS, lambda found: "NodeOfPool" in str((found.get(name) or {}).get("status")), seconds=60)


async def address(fleet: Fleet) -> None:
    """The kubelet says the address of the pod."""
    status = {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
    await fleet.admin.patch(f"{fleet.pods}/edge-0/status", {"status": status}, MERGE_PATCH)


async def test_what_may_not_be_approved_yet_is_looked_at_again(
    tmp_path: Path, kubectl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "AGAIN_SECONDS", 0.2)
    looks: list[str] = []

    class Counting(Client):
        async def get(self, path: str, **params: Any) -> dict[str, Any]:
            looks.append(path)
            return await super().get(path, **params)

    async with (
        lone(tmp_path, kubectl) as fleet,
        Counting(await load_identity(fleet.plane.kubeconfig)) as client,
        approving(fleet, client),
    ):
        await ask(fleet, "early", "edge-0", "10.0.0.1")
        async with asyncio.timeout(60):
            while looks.count(f"{fleet.pods}/edge-0") < 2:  # noqa: ASYNC110 - nothing is written meanwhile
                await asyncio.sleep(0.05)
        await address(fleet)
        await approved(fleet, "early")


async def test_of_requests_for_one_certificate_the_newest_is_looked_at_again(
    tmp_path: Path, kubectl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "AGAIN_SECONDS", 0.2)
    async with (
        lone(tmp_path, kubectl) as fleet,
        Client(await load_identity(fleet.plane.kubeconfig)) as client,
        approving(fleet, client) as approvals,
    ):
        for number in range(10):
            await ask(fleet, f"r{number}", "edge-0", "10.0.0.1")
        async with asyncio.timeout(60):
            while list(approvals._later) != ["r9"]:  # noqa: ASYNC110 - nothing is written meanwhile
                await asyncio.sleep(0.01)
        await address(fleet)
        await approved(fleet, "r9")
        requests = (await fleet.admin.get(REQUESTS))["items"]
        assert [raw["metadata"]["name"] for raw in requests if "NodeOfPool" in str(raw.get("status"))] == ["r9"]


async def test_a_request_that_changes_while_it_is_decided_is_decided_as_it_is_then(
    tmp_path: Path, kubectl: Path
) -> None:
    class Raced(Client):
        """A client before whose first approval somebody changes the request."""

        told: asyncio.Event | None = None

        async def replace(self, path: str, body: Any, *more: Any) -> dict[str, Any]:
            if self.told is None:
                self.told = asyncio.Event()
                await self.patch(f"{REQUESTS}/raced", {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
                await self.told.wait()
            return await super().replace(path, body, *more)

    async with (
        lone(tmp_path, kubectl) as fleet,
        Raced(await load_identity(fleet.plane.kubeconfig)) as client,
        approving(fleet, client) as approvals,
    ):
        heard = approvals.applied

        def applied(item: dict[str, Any]) -> None:
            heard(item)
            if client.told is not None and item["metadata"].get("labels"):
                client.told.set()

        approvals.applied = applied  # type: ignore[method-assign]
        await ask(fleet, "raced", "edge-0")
        await approved(fleet, "raced")


async def test_a_request_that_the_api_server_cannot_take_holds_up_no_other(tmp_path: Path, kubectl: Path) -> None:
    async with (
        lone(tmp_path, kubectl) as fleet,
        Client(await load_identity(fleet.plane.kubeconfig)) as client,
        approving(fleet, client),
    ):
        with fleet.plane.faults.add(Fail(500), path=f"{REQUESTS}/bad/approval") as rule:
            await ask(fleet, "bad", "edge-0")
            await rule.until(1)
            await ask(fleet, "good", "edge-0")
            await approved(fleet, "good")
        await approved(fleet, "bad")


def test_a_name_that_would_lead_elsewhere_is_nobodys() -> None:
    raw = {"spec": {"username": "system:node:../secrets/x"}}
    assert identity.asking(raw) == ""
