"""A container whose config map or secret is missing waits with CreateContainerConfigError until it is there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import state


def from_key(source: str, key: str = "key") -> dict[str, Any]:
    return {"env": [{"name": "V", "valueFrom": {source: {"name": "s", "key": key}}}]}


def from_all(source: str) -> dict[str, Any]:
    return {"envFrom": [{source: {"name": "s"}}]}


@pytest.mark.parametrize(
    ("container", "missing"),
    [
        (from_key("configMapKeyRef"), 'configmap "s" not found'),
        (from_key("secretKeyRef"), 'secret "s" not found'),
        (from_all("configMapRef"), 'configmap "s" not found'),
        (from_all("secretRef"), 'secret "s" not found'),
    ],
)
async def test_it_recovers(kube: Kube, container: dict[str, Any], missing: str) -> None:
    await kube.create("print", "started", **container)
    pod = await kube.waiting("CreateContainerConfigError")
    assert missing in state(pod)["waiting"]["message"]
    assert pod["status"]["phase"] == "Pending"
    await (kube.config_map if "configmap" in missing else kube.secret)("s", key="value")
    assert await kube.output() == "started\n"


async def test_a_missing_key_that_is_added(kube: Kube) -> None:
    await kube.config_map("s", other="x")
    await kube.create("env", "V", **from_key("configMapKeyRef"))
    pod = await kube.waiting("CreateContainerConfigError")
    assert "couldn't find key key in ConfigMap" in state(pod)["waiting"]["message"]
    await kube.patch({"data": {"key": "value"}}, "s", "configmaps")
    assert await kube.output() == "V=value\n"
