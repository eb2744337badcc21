"""The guests, and a running provider over wasmtime."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.guests import build
from tests.runtime.harness import Runtime
from tests.runtime.pods.scripted import Script, ScriptedProvider
from wasmlet.runtime import RuntimeConfig
from wasmlet.testing.clock import FakeClock


@pytest.fixture(scope="session")
def driver(compile_guest: Callable[..., None]) -> Path:
    """The module that does what its arguments say; its source lists them."""
    return build("driver", compile_guest)


@pytest.fixture
def image(driver: Path) -> str:
    """The driver as an image."""
    return f"file://{driver}"


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """A wasmtime provider with the machine's clock."""
    async with Runtime(WasmtimeProvider, tmp_path / "state") as started:
        yield started


@pytest.fixture
async def timed(tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """The same with a clock that the test moves."""
    runtime = Runtime(WasmtimeProvider, tmp_path / "state")
    runtime.clock = FakeClock()
    async with runtime as started:
        yield started


@pytest.fixture
async def ungrouped(tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """A node that has no control groups, so that limits of memory are the engine's, with a clock the test moves."""
    runtime = Runtime(WasmtimeProvider, tmp_path / "ungrouped", RuntimeConfig(allow_local_modules=True, cgroups=False))
    runtime.clock = FakeClock()
    async with runtime as started:
        yield started


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """The same, and the test decides what commands answer."""

    class Provider(ScriptedProvider):
        script = Script()

    runtime = Runtime(Provider, tmp_path / "state")
    runtime.clock = FakeClock()
    async with runtime as started:
        yield started
