"""How often a whole node asks its API server in an hour in which that answers nothing of use: no loop may flood it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import attrs
import pytest

import wasmlet
from tests.node.cluster import Cluster, running
from tests.node.trouble import KUBELET, FastClock
from wasmlet.controlplane.faults import Drop, Effect, End, ErrorEvent, Fail, Proceed, Rule
from wasmlet.testing.reference import ReferenceProvider

SPEED = 720.0
"""An hour takes five seconds, in which a loop without a pause makes some thousands of requests."""
MOST = 1000
"""Of one kind: the Node is looked at every ten seconds, with a request or two."""
MOST_RENEWALS = 5300
"""While the API server is away, that is asked every 0.7 to 1 seconds: whether it was restored, and for the lease."""


@attrs.define
class Counting:
    """Lets requests go on and counts them by verb and path."""

    asked: Counter[str] = attrs.field(factory=Counter)

    async def apply(self, rule: Rule, request: Any, proceed: Proceed) -> Any:
        self.asked[f"{request.method} {request.path} {request.query.get('watch', '')}"] += 1
        return await proceed()


@pytest.mark.parametrize(
    ("effect", "verb"),
    [
        (ErrorEvent(410), "watch"),
        (End(), "watch"),
        (Fail(401), "*"),
        (Fail(403), "*"),
        (Fail(404), "*"),
        (Fail(429, retry_after=0), "*"),
        (Fail(500), "*"),
        (Drop(), "*"),
    ],
    ids=str,
)
async def test_an_hour_of_trouble(cluster: Cluster, effect: Effect, verb: str) -> None:
    await cluster.admin.create(
        cluster.maps,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}},
    )
    environment = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]
    counting = Counting()
    clock = FastClock(SPEED)
    settings = cluster.config(serving_csr=True)
    async with wasmlet.Node(ReferenceProvider(), settings, clock=clock):
        await cluster.create(containers=[{"name": "c", "image": "file://x", "env": environment}])
        await cluster.until(running)
        cluster.plane.faults.add(counting, user=KUBELET)
        cluster.plane.faults.add(effect, verb=verb, user=KUBELET)
        cluster.plane.faults.disconnect()
        await clock.sleep(3600)
        cluster.plane.faults.clear()
    assert sum(counting.asked.values()) > 50
    once_a_second = re.compile("(PATCH|POST) .*/leases|GET /api/v1/nodes $")
    too_many = {
        what: count
        for what, count in counting.asked.items()
        if count > (MOST_RENEWALS if once_a_second.match(what) else MOST)
    }
    assert too_many == {}
