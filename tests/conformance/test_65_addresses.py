"""hostIP, hostIPs and startTime are always there; a guest has no address of its own yet, and no hostNetwork."""

from __future__ import annotations

from datetime import datetime

import pytest

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


@pytest.mark.later
async def test_the_hosts_network(kube: Kube) -> None:
    await kube.refuses("p", "spec.hostNetwork", spec={"hostNetwork": True})
