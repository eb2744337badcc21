"""Claims are directories that the provider knows of; storage drivers and image volumes are refused by name.

Image volumes need a registry, which is to come.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube, Machine
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Pod

MOUNTS = [{"name": "v", "mountPath": "/v"}]
CLAIM = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}


async def test_a_claim(own: Own, machine: Machine, tmp_path: Path) -> None:
    class WithClaims(machine.provider):
        async def claim_directory(self, pod: Pod, claim: str) -> Path:
            if claim != "data":
                raise WasmletError(f"no such claim: {claim}")
            return tmp_path

    async with own(kind=WithClaims) as kube:
        await kube.create("put", "/v/file", "kept", name="writer", spec=CLAIM, volumeMounts=MOUNTS)
        await kube.phase("Succeeded", "writer")
        await kube.remove("writer")
        await kube.create("cat", "/v/file", name="reader", spec=CLAIM, volumeMounts=MOUNTS)
        assert await kube.output("reader") == "kept"
        other = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "other"}}]}
        await kube.create("print", "x", spec=other, volumeMounts=MOUNTS)
        await kube.event("FailedMount", part="no such claim: other")


@pytest.mark.refused
async def test_drivers(kube: Kube) -> None:
    await kube.refuses("claim", "spec.volumes[0].persistentVolumeClaim", spec=CLAIM, volumeMounts=MOUNTS)
    csi = {"volumes": [{"name": "v", "csi": {"driver": "example.com"}}]}
    await kube.refuses("csi", "spec.volumes[0].csi", spec=csi, volumeMounts=MOUNTS)
