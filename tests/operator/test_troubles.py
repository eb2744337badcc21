"""Pools with which something is wrong: what runs does not end for that, and nodes are not left half emptied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.operator.forged import guest, lone, registers, runs
from tests.operator.harness import NODES, Raw
from wasmlet.operator.pool import LABEL, POOLS
from wasmlet.operator.seen import DRAINING

pytestmark = pytest.mark.timeout(180)


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
