"""The watcher that readers of logs share."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from wasmlet.runtime.logs.inotify import Watcher


@pytest.fixture
async def watcher() -> AsyncGenerator[Watcher, None]:
    found = Watcher()
    yield found
    found.close()
