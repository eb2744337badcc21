"""Pools with which something is wrong: what runs does not end for that, and nodes are not left half emptied."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.operator.forged import guest, lone, registers, runs
from tests.operator.harness import NODES, Raw
from wasmlet.operator.pool import LABEL, POOLS
from wasmlet.operator.seen import DRAINING

pytestmark = pytest.mark.timeout(180)
SECONDS = 6.0
MOST_CHANGES = 12
"""How many there may be in that time: fewer on a slow machine, and ten a second where nobody waits."""


async def test_a_pod_does_not_end_while_its_node_is_not_seen_and_has_pods(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await fleet.pool()
        await runs(fleet, "edge-0", ready=False)
        await registers(fleet, "edge-0", labels={})
        await guest(fleet, "edge-0")
        await fleet.change(replicas=0)
        await fleet.until(POOLS, lambda found: "LabelMissing" in str(found["edge"].get("status")), seconds=60)
        assert "deletionTimestamp" not in (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]
        assert "labeled" in await fleet.run("label", "node", "edge-0", f"{LABEL}=edge")

        def draining(found: Mapping[str, Raw]) -> bool:
            return DRAINING in (found["edge-0"]["metadata"].get("annotations") or {})

        await fleet.until(NODES, draining, seconds=60)
        await fleet.until(fleet.pods, lambda found: "deletionTimestamp" in found["guest"]["metadata"], seconds=60)
        assert "deletionTimestamp" not in (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]


async def test_a_node_is_released_also_where_the_pool_cannot_be_as_it_says(tmp_path: Path, kubectl: Path) -> None:
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await fleet.pool()
        await fleet.until(fleet.pods, lambda found: "edge-0" in found)
        await fleet.change(config={"no-such-option": "1"})
        await fleet.until(POOLS, lambda found: "InvalidConfig" in str(found["edge"].get("status")), seconds=60)
        await runs(fleet, "edge-0")
        await registers(fleet, "edge-0", cordoned=True, annotations={DRAINING: "2026-01-01T00:00:00Z"})
        await fleet.until(NODES, lambda found: not found["edge-0"]["spec"].get("unschedulable"), seconds=60)
        assert DRAINING not in ((await fleet.admin.get(f"{NODES}/edge-0"))["metadata"].get("annotations") or {})


async def test_two_operators_do_not_correct_each_other_for_ever(tmp_path: Path, kubectl: Path) -> None:
    """Each hears of other pods what holds them, and would say so."""
    async with lone(tmp_path, kubectl) as fleet:
        await fleet.operator()
        await fleet.operator()
        await fleet.pool(disruption={"drainTimeout": "1h"})
        await runs(fleet, "edge-0")
        await registers(fleet, "edge-0")
        for app in ("a", "b", "c"):
            await guest(fleet, "edge-0", app, app=app)
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            await fleet.admin.patch(f"{fleet.pods}/{app}/status", {"status": ready})
            await fleet.budget(app, minAvailable=1)
        await fleet.change(replicas=0)
        await fleet.until(POOLS, lambda found: "Held" in str(found["edge"].get("status")), seconds=60)
        changes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS), aclosing(fleet.versions(POOLS)) as versions:
                async for _ in versions:
                    changes += 1
        assert changes <= MOST_CHANGES
        assert "deletionTimestamp" not in (await fleet.admin.get(f"{fleet.pods}/edge-0"))["metadata"]
