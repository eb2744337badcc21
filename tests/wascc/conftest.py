"""What tests of actors in pods share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession
from wasmlet_wascc import WasccProvider

from tests.runtime.harness import Runtime
from tests.runtime.network.conftest import _nothing_stays_in_memory
from tests.wascc.pods import LATE
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.network.ranges import loopback_range

__all__ = ["_nothing_stays_in_memory"]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A node that runs actors, whose pods have addresses of 127.0.0.0/8."""
    config = RuntimeConfig(allow_local_modules=True, network="address")
    async with Runtime(WasccProvider, tmp_path / "state", config) as started:
        yield started


@pytest.fixture
def there(node: Runtime) -> str:
    """An address among those of pods, which is nobody's: others of 127.0.0.0/8 are never dialled."""
    return str(loopback_range(node.state_dir / "runtime")[-2])


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=LATE) as made:
        yield made
