from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.node.real import RealPlane
from tests.operator.harness import Fleet, open_fleet
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane


@pytest.fixture
async def fleet(request: pytest.FixtureRequest, tmp_path: Path, kubectl: Path) -> AsyncIterator[Fleet]:
    """A cluster without pools: the embedded control plane, or the one that --kubeconfig names."""
    async with AsyncExitStack() as stack:
        plane = RealPlane.of(request.config) or await stack.enter_async_context(ControlPlane())
        admin = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig)))
        yield await stack.enter_async_context(open_fleet(plane, admin, tmp_path, kubectl))
