"""A field that cannot be honoured is refused by name, whatever container it is of, and then nothing of the pod runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import begun

pytestmark = pytest.mark.refused

POD: dict[str, Any] = {
    "hostPID": True,
    "hostIPC": True,
    "shareProcessNamespace": True,
    "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}],
}
CONTAINER: dict[str, Any] = {
    "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}],
}


@pytest.mark.parametrize("field", POD)
async def test_of_the_pod(kube: Kube, field: str) -> None:
    await kube.refuses("p", f"spec.{field}", spec={field: POD[field]})


@pytest.mark.parametrize("field", CONTAINER)
async def test_of_a_container(kube: Kube, field: str) -> None:
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    message = await refusal(kube, {"volumes": [claim]}, **{field: CONTAINER[field]})
    assert message.startswith("spec.containers[0].volumeDevices")


async def refusal(kube: Kube, spec: dict[str, Any], **container: Any) -> str:
    await kube.create("print", "x", spec=spec, **container)
    return await kube.refused()


async def test_one_of_many_containers(kube: Kube) -> None:
    """The others would be half a pod."""
    bad = kube.container("print", "x", name="bad", securityContext={"privileged": True})
    containers = [kube.container("print", "x"), bad]
    inits = [kube.container("print", "x", name="init")]
    await kube.create(spec={"containers": containers, "initContainers": inits})
    message = await kube.refused(container="bad")
    assert "spec.containers[1].securityContext.privileged" in message
    pod = await kube.get()
    assert not [name for name in ("c", "init", "bad") if begun(pod, name)]
