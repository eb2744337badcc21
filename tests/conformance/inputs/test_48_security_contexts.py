"""All that Pod Security "restricted" asks for is accepted; what a guest cannot have is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


async def test_restricted(kube: Kube) -> None:
    pod = {"runAsNonRoot": True, "fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}}
    await kube.create("put", "/file", "x", "print", "ran", securityContext=RESTRICTED, spec={"securityContext": pod})
    text = await kube.output()
    assert text.endswith("ran\n")
    assert not text.startswith("put /file: ok")


async def test_what_openshift_gives_a_pod(kube: Kube) -> None:
    """Its security context constraint "restricted-v2": numbers and an SELinux level of the namespace."""
    own = {"runAsUser": 1000660000, "runAsNonRoot": True, "allowPrivilegeEscalation": False}
    pod = {
        "fsGroup": 1000660000,
        "seLinuxOptions": {"level": "s0:c26,c10"},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    await kube.create("print", "ran", securityContext=own, spec={"securityContext": pod})
    assert await kube.output() == "ran\n"


CONTAINER: dict[str, dict[str, Any]] = {
    "privileged": {"privileged": True},
    "runAsUser": {"runAsUser": 0},
    "capabilities": {"capabilities": {"add": ["NET_ADMIN"]}},
    "seccompProfile": {"seccompProfile": {"type": "Localhost", "localhostProfile": "x.json"}},
    "seLinuxOptions": {"seLinuxOptions": {"level": "s0:c1,c2", "type": "spc_t"}},
}
POD: dict[str, dict[str, Any]] = {
    "sysctls": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]},
    "runAsUser": {"runAsUser": 0},
}


@pytest.mark.refused
@pytest.mark.parametrize("field", CONTAINER)
async def test_what_a_container_cannot_have(kube: Kube, field: str) -> None:
    await kube.refuses("p", f"spec.containers[0].securityContext.{field}", securityContext=CONTAINER[field])


@pytest.mark.refused
@pytest.mark.parametrize("field", POD)
async def test_what_a_pod_cannot_have(kube: Kube, field: str) -> None:
    await kube.refuses("p", f"spec.securityContext.{field}", spec={"securityContext": POD[field]})
