"""The node's lease lasts 40 s and is renewed every 10 s, however much its pods keep it busy."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.conftest import Own
from tests.conformance.harness import SECONDS
from wasmlet.testing.clock import FakeClock

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


async def test_renewal(own: Own) -> None:
    clock = FakeClock()
    async with own(node_clock=clock) as kube:
        await asyncio.gather(*(kube.create("spin", name=f"p{i}") for i in range(10)))
        lease: dict[str, Any] = await kube.admin.get(f"{LEASES}/{kube.node}")
        assert lease["spec"]["leaseDurationSeconds"] == 40
        assert lease["spec"]["holderIdentity"] == kube.node
        owner = lease["metadata"]["ownerReferences"][0]
        node = await kube.node_object()
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", kube.node, node["metadata"]["uid"])
        for _ in range(3):
            before = lease["spec"]["renewTime"]
            clock.advance(10)
            async with asyncio.timeout(SECONDS):
                while (lease := await kube.admin.get(f"{LEASES}/{kube.node}"))["spec"]["renewTime"] == before:
                    # The node counts from when it has read the answer, which may be after we have seen the renewal.
                    clock.advance(1)
