"""hostIP, hostIPs and startTime are always there; podIP and podIPs where the node has a network for pods."""

from __future__ import annotations

from datetime import datetime

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube


async def test_host_addresses_and_start_time(kube: Kube) -> None:
    created = await kube.create("print", "x")
    pod = await kube.phase("Succeeded")
    node = await kube.node_object()
    address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
    assert pod["status"]["hostIP"] == address
    assert pod["status"]["hostIPs"] == [{"ip": address}]
    began = datetime.fromisoformat(pod["status"]["startTime"])
    assert began >= datetime.fromisoformat(created["metadata"]["creationTimestamp"])
    # Never the node's, or a service would send its traffic there.
    assert not pod["status"].get("podIP")


async def test_an_address_of_the_pods_own(net: Kube) -> None:
    for name in ("a", "b"):
        await net.serve(name=name)
    pods = [await net.ready(name) for name in ("a", "b")]
    addresses = {pod["status"]["podIP"] for pod in pods}
    assert len(addresses) == 2
    assert [pod["status"]["podIPs"] for pod in pods] == [[{"ip": pod["status"]["podIP"]}] for pod in pods]
    assert not addresses & {pod["status"]["hostIP"] for pod in pods}


async def test_the_hosts_network(net: Kube, own: Own) -> None:
    """Only where the node's owner allows it; then the pod is at the node's address."""
    await net.refuses("p", "spec.hostNetwork", spec={"hostNetwork": True})
    async with own(given={"network": "address", "allow_host_network": True}) as kube:
        await kube.create("sleep", "1000", spec={"hostNetwork": True})
        pod = await kube.ready()
        assert pod["status"]["podIP"] == pod["status"]["hostIP"]
