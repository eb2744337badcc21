"""What a node is and can give: capacity and allocatable, nodeInfo, addresses, its API's port, labels, taints."""

from __future__ import annotations

from tests.conformance.harness import Kube
from tests.conformance.runtimes import LOCAL
from wasmlet.model.quantity import Quantity


async def test_status(kube: Kube) -> None:
    node, engine = await kube.node_object(), kube.machine.provider.name
    status = node["status"]
    for name in ("cpu", "memory", "pods", "ephemeral-storage"):
        capacity, allocatable = (Quantity.parse(status[kind][name]).value for kind in ("capacity", "allocatable"))
        assert 0 < allocatable <= capacity
    info = status["nodeInfo"]
    assert (info["operatingSystem"], info["architecture"]) == ("wasi", "wasm")
    assert info["containerRuntimeVersion"].startswith(f"{engine}://")
    assert info["kubeletVersion"].startswith("v1.")
    assert all(info[name] for name in ("bootID", "kernelVersion", "osImage"))
    # A kubelet's Hostname is there, too, only where it resolves: an API server may dial it first.
    assert "InternalIP" in {address["type"] for address in status["addresses"]}
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] > 0
    labels = node["metadata"]["labels"]
    assert labels["kubernetes.io/hostname"] == kube.node
    assert (labels["kubernetes.io/os"], labels["kubernetes.io/arch"]) == ("wasi", "wasm")
    name = engine if kube.machine.runtime == LOCAL else "remote"
    taints = [taint for taint in node["spec"]["taints"] if taint["key"] == "wasmlet.dev/provider"]
    assert taints == [{"key": "wasmlet.dev/provider", "value": name, "effect": "NoSchedule"}]
