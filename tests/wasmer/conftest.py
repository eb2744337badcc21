"""The guests, and a running provider over wasmer. Without a Python that has wasmer there is nothing to test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from wasmlet_wasmer import WasmerProvider

from tests.conftest import wasmer_is_here
from tests.guests import build
from tests.runtime.harness import Runtime
from wasmlet.testing.clock import FakeClock


@pytest.fixture(scope="session")
def wasmer() -> Path:
    """The interpreter that has wasmer."""
    return asyncio.run(wasmer_is_here())


@pytest.fixture(scope="session")
def driver(wasmer: Path, compile_guest: Callable[..., None]) -> Path:
    """The module that does what its arguments say; its source lists them."""
    return build("driver", compile_guest)


@pytest.fixture(scope="session")
def walker(wasmer: Path, compile_guest: Callable[..., None]) -> Path:
    """The module that makes WASI's calls as its arguments say."""
    return build("walker", compile_guest)


@pytest.fixture
def image(driver: Path) -> str:
    """The driver as an image."""
    return f"file://{driver}"


@pytest.fixture
async def runtime(wasmer: Path, tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """A wasmer provider with the machine's clock."""
    async with Runtime(WasmerProvider, tmp_path / "state") as started:
        yield started


@pytest.fixture
async def timed(wasmer: Path, tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """The same with a clock that the test moves."""
    runtime = Runtime(WasmerProvider, tmp_path / "state")
    runtime.clock = FakeClock()
    async with runtime as started:
        yield started
