"""Another operating system, or a RuntimeClass that is not there or asks for a handler that is not, is turned away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.conformance.harness import Kube

CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


async def test_another_system(kube: Kube) -> None:
    await kube.create("print", "x", spec={"os": {"name": "linux"}})
    pod = await kube.phase("Failed")
    assert pod["status"]["reason"] == "PodOSNotSupported"


@asynccontextmanager
async def runtime_class(kube: Kube, **fields: Any) -> AsyncIterator[str]:
    name = kube.namespace
    await kube.admin.create(CLASSES, {"metadata": {"name": name}, **fields})
    try:
        yield name
    finally:
        if any(item["metadata"]["name"] == name for item in (await kube.admin.get(CLASSES))["items"]):
            await kube.admin.delete(f"{CLASSES}/{name}")


async def test_a_handler_that_is_not_there(kube: Kube) -> None:
    async with runtime_class(kube, handler="runc") as name:
        await kube.create("print", "x", spec={"runtimeClassName": name})
        pod = await kube.phase("Failed")
        assert pod["status"]["reason"] == "RuntimeHandlerNotSupported"
        assert "runc" in pod["status"]["message"]


async def test_a_handler_that_is_there(kube: Kube) -> None:
    """The class brings what the pod needs to land on the node; the node's label says what it offers."""
    label = f"handler.wasmlet.dev/{kube.machine.default_handler}"
    assert (await kube.admin.get(f"/api/v1/nodes/{kube.node}"))["metadata"]["labels"][label] == "true"
    tolerated = [{"key": "wasmlet.dev/provider", "operator": "Exists"}]
    scheduling = {"nodeSelector": {label: "true"}, "tolerations": tolerated}
    async with runtime_class(kube, handler=kube.machine.default_handler, scheduling=scheduling) as name:
        await kube.create("print", "x", spec={"runtimeClassName": name})
        pod = await kube.phase("Succeeded")
        assert pod["spec"]["nodeSelector"] == {label: "true"}


async def test_a_class_that_was_deleted(kube: Kube) -> None:
    async with runtime_class(kube, handler=kube.machine.default_handler) as name:
        body = kube.pod("print", "x", spec={"runtimeClassName": name})
        del body["spec"]["nodeName"]
        body["spec"]["schedulerName"] = "nobody"
        await kube.make("pods", body)
        await kube.admin.delete(f"{CLASSES}/{name}")
        target = {"apiVersion": "v1", "kind": "Node", "name": kube.node}
        await kube.make("pods/p/binding", {"metadata": {"name": "p"}, "target": target})
        pod = await kube.phase("Failed")
        assert pod["status"]["reason"] == "RuntimeClassNotFound"


async def test_a_class_with_overhead(kube: Kube) -> None:
    async with runtime_class(
        kube, handler=kube.machine.default_handler, overhead={"podFixed": {"memory": "1000Gi"}}
    ) as name:
        await kube.create("print", "x", spec={"runtimeClassName": name})
        pod = await kube.phase("Failed")
        assert pod["spec"]["overhead"] == {"memory": "1000Gi"}
        assert pod["status"]["reason"] == "OutOfmemory"
