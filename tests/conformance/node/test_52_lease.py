"""The node's lease lasts 40 s and is renewed every 10 s, however much its pods keep it busy."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson

from tests.conformance.conftest import Own
from wasmlet.model.times import rfc3339_micro
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
        selector = {"watch": "1", "fieldSelector": f"metadata.name={kube.node}"}
        since = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        async with kube.patience(), kube.admin.stream(LEASES, selector | since) as events:
            for _ in range(3):
                clock.advance(10)
                while (renewed := await renew_time(events)) < rfc3339_micro(clock.now()):
                    continue
                assert renewed == rfc3339_micro(clock.now())


async def renew_time(events: aiohttp.StreamReader) -> str:
    """That of the next version of a lease that is watched."""
    lease = orjson.loads(await events.readline())["object"]
    found: str = lease["spec"]["renewTime"]
    return found
