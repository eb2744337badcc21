"""A plugin that listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.remote.interlink.plugin import StrictPlugin, serving
from tests.remote.interlink.stand import Stand


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    far = StrictPlugin()
    async with serving(far) as url:
        yield Stand(far, url, tmp_path)
