"""Clients of an embedded control plane of the test's own."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.testing.client import Api, Kubectl
from wasmlet.testing import ControlPlane

Login = Callable[[Path], Awaitable[Api]]


@pytest.fixture
async def login(control_plane: ControlPlane) -> AsyncIterator[Login]:
    """Make a client of a kubeconfig."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(kubeconfig: Path) -> Api:
            config = yaml.safe_load(kubeconfig.read_text())
            user = config["users"][0]["user"]
            context = ssl.create_default_context(cafile=str(control_plane.ca_file))
            headers = {}
            if "token" in user:
                headers["Authorization"] = f"Bearer {user['token']}"
            elif user:
                pair = kubeconfig.with_suffix(".pem")
                data = user["client-certificate-data"], user["client-key-data"]
                pair.write_bytes(b"".join(base64.b64decode(part) for part in data))
                context.load_cert_chain(pair)
            connector = aiohttp.TCPConnector(ssl=context)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            return Api(session, control_plane.url, headers)

        yield make


@pytest.fixture
async def api(control_plane: ControlPlane, login: Login) -> Api:
    """A client that may do everything."""
    return await login(control_plane.kubeconfig)


@pytest.fixture
def kube(kubectl: Path, control_plane: ControlPlane, tmp_path: Path) -> Kubectl:
    """kubectl as admin, with a home of its own so that nothing is cached between tests."""
    return Kubectl(kubectl, control_plane.kubeconfig, tmp_path)
