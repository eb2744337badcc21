"""A control plane that can be made to fail, and an agent in the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.node.cluster import Cluster
from tests.node.trouble import troubled_cluster
from tests.remote.agents import PATIENCE
from tests.remote.beside import Beside, agent_beside


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with troubled_cluster(tmp_path) as cluster:
        cluster.seconds = PATIENCE
        yield cluster


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Beside]:
    async with agent_beside(tmp_path / "agent") as beside:
        yield beside
