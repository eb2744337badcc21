from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.node.cluster import Cluster
from tests.node.trouble import troubled_cluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with troubled_cluster(tmp_path) as cluster:
        yield cluster
