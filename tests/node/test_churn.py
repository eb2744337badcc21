"""A short churn with a fixed seed. `make churn` runs a long one with a seed of its own, and looks at memory too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.churn import churn

SEED = 7
SECONDS = 15.0


@pytest.mark.timeout(180)
async def test_all_agree_after_a_churn(tmp_path: Path) -> None:
    report = await churn(tmp_path, seed=SEED, seconds=SECONDS)
    assert not report.wrong, "\n".join([*report.log, *report.wrong, f"python -m tests.node.churn --seed {SEED}"])
    # It was a churn: pods ran, nodes ended in both ways, API server and provider failed.
    assert report.counts["pods started"] > 20
    for what in ("create", "delete", "force", "finish", "api rule", "provider fails", "provider breaks its changes"):
        assert report.counts[what] > 0
    assert report.counts.get("node stopped", 0) + report.counts.get("node killed", 0) > 0
