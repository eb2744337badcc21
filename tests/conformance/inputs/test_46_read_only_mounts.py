"""readOnly mounts cannot be written, recursively neither; mount propagation is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import status

EMPTY = {"volumes": [{"name": "v", "emptyDir": {}}]}


def mount(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "v", "mountPath": "/v", **fields}]


@pytest.mark.parametrize("more", [{}, {"recursiveReadOnly": "Enabled"}, {"recursiveReadOnly": "IfPossible"}])
async def test_read_only(kube: Kube, more: dict[str, str]) -> None:
    first = kube.container("put", "/v/f", "x", "mkdir", "/v/d", name="first", volumeMounts=mount())
    script = (
        "cat",
        "/v/f",
        "put",
        "/v/f",
        "y",
        "put",
        "/v/new",
        "y",
        "unlink",
        "/v/f",
        "mkdir",
        "/v/e",
        "rmdir",
        "/v/d",
    )
    mounts = mount(readOnly=True, **more)
    await kube.create(*script, "cat", "/v/f", spec={**EMPTY, "initContainers": [first]}, volumeMounts=mounts)
    lines = (await kube.output()).splitlines()
    assert len(lines) == 6
    assert not [line for line in lines if line.endswith("ok")]
    assert lines[-1] == "x"


async def test_the_status_says_what_has_become_of_each(kube: Kube) -> None:
    paths = {"/a": {}, "/b": {"readOnly": True}, "/c": {"readOnly": True, "recursiveReadOnly": "IfPossible"}}
    mounts = [{"name": "v", "mountPath": path, **fields} for path, fields in paths.items()]
    await kube.create("sleep", "1000", spec=EMPTY, volumeMounts=mounts)
    assert status(await kube.running())["volumeMounts"] == [
        {"name": "v", "mountPath": "/a"},
        {"name": "v", "mountPath": "/b", "readOnly": True, "recursiveReadOnly": "Disabled"},
        {"name": "v", "mountPath": "/c", "readOnly": True, "recursiveReadOnly": "Enabled"},
    ]
    node = await kube.admin.get(f"/api/v1/nodes/{kube.node}")
    handlers = node["status"]["runtimeHandlers"]
    assert handlers
    assert all(handler["features"]["recursiveReadOnlyMounts"] for handler in handlers)


@pytest.mark.refused
@pytest.mark.parametrize("value", ["HostToContainer", "Bidirectional"])
async def test_propagation(kube: Kube, value: str) -> None:
    field = "spec.containers[0].volumeMounts[0].mountPropagation"
    privileged = {"privileged": True} if value == "Bidirectional" else {}
    mounts = mount(mountPropagation=value)
    if privileged:
        await kube.create(spec=EMPTY, volumeMounts=mounts, securityContext=privileged)
        assert "privileged" in await kube.refused()
    else:
        await kube.refuses("p", field, spec=EMPTY, volumeMounts=mounts)
