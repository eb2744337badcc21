from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.node.cluster import Cluster
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane
from wasmlet.testing.reference import ReferenceProvider


@pytest.fixture
async def cluster(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Cluster]:
    """An API server without a node."""
    async with Client(await load_identity(control_plane.kubeconfig)) as admin:
        yield Cluster(control_plane, admin, tmp_path)


@pytest.fixture
def provider() -> ReferenceProvider:
    return ReferenceProvider()
