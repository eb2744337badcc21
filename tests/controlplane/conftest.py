"""Clients of an embedded control plane of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.controlplane.client import Api, Kubectl, open_api
from wasmlet.testing import ControlPlane

Login = Callable[[Path], Awaitable[Api]]


@pytest.fixture
async def login(control_plane: ControlPlane) -> AsyncIterator[Login]:
    """Make a client of a kubeconfig."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(kubeconfig: Path) -> Api:
            return await stack.enter_async_context(open_api(control_plane, kubeconfig))

        yield make


@pytest.fixture
async def api(control_plane: ControlPlane, login: Login) -> Api:
    """A client that may do everything."""
    return await login(control_plane.kubeconfig)


@pytest.fixture
def kube(kubectl: Path, control_plane: ControlPlane, tmp_path: Path) -> Kubectl:
    """kubectl as admin, with a home of its own so that nothing is cached between tests."""
    return Kubectl(kubectl, control_plane.kubeconfig, tmp_path)
