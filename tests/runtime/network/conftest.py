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
from wasmlet.runtime.network import namespaces
from wasmlet.runtime.network.ranges import loopback_range

ADDRESS = RuntimeConfig(allow_local_modules=True, network="address", max_container_restart_period=1.0)
"""The settings of `networked`. What is restarted waits a second at most."""


@pytest.fixture(autouse=True)
def _nothing_stays_in_memory(tmp_path: Path) -> Iterator[None]:
    """A network of a test's own, which nobody closes, has written down in memory which pod has which address."""
    yield
    for link in tmp_path.rglob("memory"):
        if left := Memory(link.parent).existing():
            shutil.rmtree(left)


@pytest.fixture(autouse=True)
def _no_namespace_stays(tmp_path: Path) -> Iterator[None]:
    """A test that fails has not taken back what its pods have, and pytest cannot remove a directory with mounts."""
    yield
    for line in Path("/proc/self/mounts").read_text().splitlines():
        mounted = Path(line.split()[1].encode().decode("unicode_escape"))
        if mounted.is_relative_to(tmp_path) and namespaces.exists(mounted):
            namespaces.remove(mounted)


@pytest.fixture
async def networked(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A node whose pods have addresses of 127.0.0.0/8."""
    async with Runtime(WasmtimeProvider, tmp_path / "state", ADDRESS) as started:
        yield started


@pytest.fixture
def there(networked: Runtime) -> str:
    """An address among those of pods, which is nobody's: others of 127.0.0.0/8 are never dialled."""
    return str(loopback_range(networked.state_dir / "runtime")[-2])
