from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.node.cluster import NODE, Cluster
from tests.node.real import RealPlane, Recording, alone
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane
from wasmlet.testing.reference import ReferenceProvider


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """An API server without a node: the embedded one, or the one that --kubeconfig names."""
    async with AsyncExitStack() as stack:
        real = RealPlane.of(request.config)
        # What a node itself answers to a taint is tried; no controller evicts its pods meanwhile.
        plane = real or await stack.enter_async_context(ControlPlane(node_monitor_grace=None))
        kind = Client if real is None else Recording
        admin = await stack.enter_async_context(kind(await load_identity(plane.kubeconfig)))
        if real is not None and isinstance(admin, Recording):
            namespace = await stack.enter_async_context(alone(real, admin, NODE))
            yield Cluster(plane, admin, tmp_path, namespace=namespace)
        else:
            yield Cluster(plane, admin, tmp_path)


@pytest.fixture
def provider() -> ReferenceProvider:
    return ReferenceProvider()
