"""What tests of pods' networks share."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.files.memory import Memory
from wasmlet.runtime.network.ranges import loopback_range

ADDRESS = RuntimeConfig(allow_local_modules=True, network="address")
"""The settings of `networked`."""


@pytest.fixture(autouse=True)
def _nothing_stays_in_memory(tmp_path: Path) -> Iterator[None]:
    """A network of a test's own, which nobody closes, has written down in memory which pod has which address."""
    yield
    for link in tmp_path.rglob("memory"):
        if left := Memory(link.parent).existing():
            shutil.rmtree(left)


@pytest.fixture
async def networked(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A node whose pods have addresses of 127.0.0.0/8."""
    async with Runtime(WasmtimeProvider, tmp_path / "state", ADDRESS) as started:
        yield started


@pytest.fixture
def there(networked: Runtime) -> str:
    """An address among those of pods, which is nobody's: others of 127.0.0.0/8 are never dialled."""
    return str(loopback_range(networked.state_dir / "runtime")[-2])
