"""A real API server under the tests of the node loop.

    pytest tests/node --kubeconfig admin.kubeconfig --node-credentials ./node-kubeconfig --client-ca-file ca.crt

The cluster should be made for tests: what they create in the namespace `default` is removed before and after each.
Run them one after the other (without -n), because all use the same names.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest

from wasmlet.kube import Client, errors
from wasmlet.kube.client import MERGE_PATCH

SWEPT = (
    "/api/v1/namespaces/default/pods",
    "/api/v1/nodes",
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
    "/api/v1/namespaces/default/events",
    "/api/v1/namespaces/default/configmaps",
    "/apis/node.k8s.io/v1/runtimeclasses",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/certificates.k8s.io/v1/certificatesigningrequests",
)
KEPT = ("kube-root-ca.crt", "system-")


@attrs.frozen
class RealPlane:
    """What tests use of a `ControlPlane`, for a cluster that is there already."""

    kubeconfig: Path
    client_ca_file: Path
    credentials: str

    @classmethod
    def of(cls, config: pytest.Config) -> RealPlane | None:
        kubeconfig = config.getoption("--kubeconfig")
        if not kubeconfig:
            return None
        ca, credentials = config.getoption("--client-ca-file"), config.getoption("--node-credentials")
        if not ca or not credentials:
            raise pytest.UsageError("--kubeconfig needs --client-ca-file and --node-credentials beside it")
        return cls(Path(kubeconfig), Path(ca), credentials)

    def node_kubeconfig(self, name: str) -> Path:
        answer = subprocess.run([self.credentials, name], check=True, capture_output=True, text=True)
        return Path(answer.stdout.strip())

    @property
    def url(self) -> str:
        return pytest.skip("needs the embedded control plane")

    @property
    def ca_file(self) -> Path:
        return pytest.skip("needs the embedded control plane")

    def user_kubeconfig(self, name: str, groups: Sequence[str] = (), *, token: bool = False) -> Path:
        return pytest.skip("needs the embedded control plane, which makes users as it is told")

    def bootstrap_kubeconfig(self) -> Path:
        return pytest.skip("needs the embedded control plane, which gives out bootstrap tokens")

    def grant(self, subject: str, *rules: object) -> None:
        pytest.skip("needs the embedded control plane, which permits what it is told to")

    @property
    def faults(self) -> object:
        return pytest.skip("needs the embedded control plane: nobody breaks a real one on request")


@asynccontextmanager
async def swept(admin: Client) -> AsyncIterator[None]:
    """Nothing of another test is there, before and after."""
    await _sweep(admin)
    try:
        yield
    finally:
        await _sweep(admin)


async def _sweep(admin: Client) -> None:
    for path in SWEPT:
        for item in (await admin.get(path))["items"]:
            name = item["metadata"]["name"]
            if name.startswith(KEPT):
                continue
            with suppress(errors.ObjectNotFound):
                if item["metadata"].get("finalizers"):
                    await admin.patch(f"{path}/{name}", {"metadata": {"finalizers": []}}, MERGE_PATCH)
                await admin.delete(f"{path}/{name}", {"gracePeriodSeconds": 0})
    async with asyncio.timeout(30):
        while (await admin.get(SWEPT[0]))["items"]:
            pass
