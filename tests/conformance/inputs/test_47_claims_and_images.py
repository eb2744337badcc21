"""Claims are directories that the provider knows of, images are mounted read-only, and drivers are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube
from tests.conformance.images import docker_registry, login, private
from tests.conformance.machine import Machine
from tests.conformance.reading import state
from wasmlet.errors import WasmletError
from wasmlet.model.pod import Pod

__all__ = ["docker_registry", "private"]
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


async def test_a_claim_that_the_api_has(kube: Kube, tmp_path: Path) -> None:
    """It is mounted when it is bound, and waited for until then, as with a kubelet."""
    await kube.create("put", "/v/file", "kept", spec=CLAIM, volumeMounts=MOUNTS)
    await kube.event("FailedMount", part='persistentvolumeclaim "data" not found')


@pytest.mark.refused
async def test_drivers(kube: Kube) -> None:
    csi = {"volumes": [{"name": "v", "csi": {"driver": "example.com"}}]}
    await kube.refuses("csi", "spec.volumes[0].csi", spec=csi, volumeMounts=MOUNTS)


def volume(image: str, **more: str) -> dict[str, Any]:
    return {"volumes": [{"name": "v", "image": {"reference": image, **more}}]}


async def test_an_image(own: Own, private: str) -> None:
    address = private.partition("/")[0]
    pull = {"imagePullSecrets": [{"name": "pull"}]}
    async with own(given={"insecure_registries": (address,)}) as kube:
        await kube.create("ls", "/v", name="without", spec=volume(private), volumeMounts=MOUNTS)
        pod = await kube.waiting("ErrImagePull", "without")
        assert address in state(pod)["waiting"]["message"]
        await kube.waiting("ImagePullBackOff", "without")
        await kube.make(
            "secrets",
            {
                "metadata": {"name": "pull"},
                "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": json.dumps(login(address))},
            },
        )
        for name, policy in (("first", "IfNotPresent"), ("second", "Never")):
            spec = volume(private, pullPolicy=policy) | pull
            await kube.create("ls", "/v", "put", "/v/x", "y", "ls", "/v", name=name, spec=spec, volumeMounts=MOUNTS)
            listed, refused, unchanged = (await kube.output(name)).splitlines()
            assert listed == unchanged == "driver.wasm"
            assert refused.startswith("put /v/x: ")
        await kube.event("Pulled", "first", part=f'Successfully pulled image "{private}"')
        await kube.event("Pulled", "second", part=f'Container image "{private}" already present on machine')
        await kube.create("ls", "/v", name="never", spec=volume(f"{private}x", pullPolicy="Never"), volumeMounts=MOUNTS)
        await kube.waiting("ErrImageNeverPull", "never")
        below = [{"name": "v", "mountPath": "/other/copy.wasm", "subPath": "driver.wasm"}]
        await kube.create("ls", "/other", name="below", spec=volume(private) | pull, volumeMounts=below)
        assert await kube.output("below") == "copy.wasm\n"
        absent = [{"name": "v", "mountPath": "/v", "subPath": "absent"}]
        await kube.create("ls", "/v", name="absent", spec=volume(private) | pull, volumeMounts=absent)
        await kube.event("Failed", "absent", part="absent: No such file or directory")
