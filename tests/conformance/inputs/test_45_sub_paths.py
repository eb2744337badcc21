"""subPath and subPathExpr: a part of a volume; nothing outside of it, and what cannot be filled in is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube


def mount(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "v", "mountPath": "/v", **fields}]


EMPTY = {"volumes": [{"name": "v", "emptyDir": {}}]}


async def test_a_part_of_a_volume(kube: Kube) -> None:
    first = kube.container("put", "/v/f", "x", name="first", volumeMounts=mount(subPath="deep/er"))
    await kube.create("cat", "/v/deep/er/f", spec={**EMPTY, "initContainers": [first]}, volumeMounts=mount())
    assert await kube.output() == "x"


async def test_a_single_file(kube: Kube) -> None:
    await kube.config_map("m", a="file\n", b="other\n")
    volumes = {"volumes": [{"name": "v", "configMap": {"name": "m"}}]}
    mounts = [{"name": "v", "mountPath": "/etc/app/a.conf", "subPath": "a"}]
    await kube.create("cat", "/etc/app/a.conf", "open", "/etc/app/b", spec=volumes, volumeMounts=mounts)
    lines = (await kube.output()).splitlines()
    assert lines[0] == "file"
    assert lines[1] != "open"


async def test_one_that_is_made_of_variables(kube: Kube) -> None:
    env = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    first = kube.container("put", "/v/f", "x", name="first", env=env, volumeMounts=mount(subPathExpr="$(POD)/d"))
    await kube.create("cat", "/v/p/d/f", spec={**EMPTY, "initContainers": [first]}, volumeMounts=mount())
    assert await kube.output() == "x"


@pytest.mark.parametrize("value", ["/absolute", "..", "a/../../b"])
async def test_paths_that_lead_out(kube: Kube, value: str) -> None:
    env = [{"name": "V", "value": value}]
    await kube.create("print", "x", env=env, spec=EMPTY, volumeMounts=mount(subPathExpr="$(V)"))
    assert "subPathExpr" in await kube.refused()


async def test_it_goes_on_when_the_annotation_is_mended(kube: Kube) -> None:
    env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['a']"}}}]
    wrong = {"annotations": {"a": "/absolute"}}
    await kube.create("print", "x", env=env, spec=EMPTY, volumeMounts=mount(subPathExpr="$(A)/d"), metadata=wrong)
    await kube.waiting("CreateContainerConfigError")
    await kube.patch({"metadata": {"annotations": {"a": "fine"}}})
    assert await kube.output() == "x\n"
