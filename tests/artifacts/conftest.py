"""Fixtures of these tests: the registry's program, a store, modules, and credentials out of the way."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.artifacts.modules import descriptor, manifest, serve
from tests.artifacts.pulls import WASM
from tests.artifacts.registries import Scripted, scripted
from tests.conftest import need
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock


@pytest.fixture(autouse=True)
def _no_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proxies nor anybody's `docker login` have a say in tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture(scope="session")
def docker_registry() -> Path:
    """The program."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("docker-registry", path=beside) or shutil.which("docker-registry")
    if found is None:
        need("docker-registry", "found none; run `make registry`")
    assert found is not None
    return Path(found)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", SystemClock())
    made.prepare()
    return made


@pytest.fixture
async def servers() -> AsyncIterator[tuple[Scripted, Scripted]]:
    """A registry that has the module, and a server beside it."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(scripted()) for _ in range(2)]
        serve(first, manifest(descriptor(WASM, "application/wasm")), WASM)
        yield first, second
