"""A variable from a file that an init container wrote into an emptyDir (fileKeyRef, KEP-3721)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import state

MOUNTS = [{"name": "v", "mountPath": "/v"}]


def spec(kube: Kube, content: str) -> dict[str, Any]:
    first = kube.container("put", "/v/env", content, name="first", volumeMounts=MOUNTS)
    return {"initContainers": [first], "volumes": [{"name": "v", "emptyDir": {}}]}


def from_file(key: str, **more: Any) -> list[dict[str, Any]]:
    reference = {"volumeName": "v", "path": "env", "key": key, **more}
    return [{"name": "KEY", "valueFrom": {"fileKeyRef": reference}}]


async def test_a_key_of_a_file(kube: Kube) -> None:
    await kube.create("env", "KEY", env=from_file("A"), spec=spec(kube, "# a comment\nA='one two'\nB='x'\n"))
    assert await kube.output() == "KEY=one two\n"


async def test_an_optional_key(kube: Kube) -> None:
    await kube.create("env", "KEY", env=from_file("Z", optional=True), spec=spec(kube, "A='1'\n"))
    assert await kube.output() == "KEY is not set\n"


@pytest.mark.parametrize("content", ["A='1'\n", "not a variable\n"])
async def test_a_key_that_is_not_there(kube: Kube, content: str) -> None:
    await kube.create("env", "KEY", env=from_file("Z"), spec=spec(kube, content))
    pod = await kube.waiting("CreateContainerConfigError")
    assert state(pod)["waiting"]["message"]
