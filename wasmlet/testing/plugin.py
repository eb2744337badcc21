"""The pytest plugin: fixtures for tests of providers.

pytest loads it in every run, so it imports nothing until a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

try:
    import pytest_asyncio as fixtures  # its fixtures work in its strict mode too
except ImportError:
    fixtures = pytest  # type: ignore[misc]

if TYPE_CHECKING:
    from wasmlet.controlplane.control_plane import ControlPlane


@fixtures.fixture
async def control_plane() -> AsyncIterator[ControlPlane]:
    """A `wasmlet.testing.ControlPlane` that is running, of the test's own. Needs pytest-asyncio."""
    from wasmlet.controlplane.control_plane import ControlPlane

    async with ControlPlane() as plane:
        yield plane
