"""An API server whose definitions are the test's own: the embedded one, or the one that --kubeconfig names.

    pytest tests/controlplane/extensions --kubeconfig admin.kubeconfig --node-credentials ./node-kubeconfig \\
        --client-ca-file ca.crt

What the API server of a cluster answers is what these tests demand; run them there one after the other (without -n).
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.controlplane.client import Api, open_api
from tests.controlplane.extensions.definitions import remove_all
from wasmlet.testing import ControlPlane


def _client(kubeconfig: Path, directory: Path) -> Api:
    """A client of a cluster that is there already."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    files = {}
    for where, name in ((cluster, "certificate-authority"), (user, "client-certificate"), (user, "client-key")):
        files[name] = directory / name
        data = where.get(f"{name}-data")
        files[name].write_bytes(base64.b64decode(data) if data else Path(where[name]).read_bytes())
    context = ssl.create_default_context(cafile=files["certificate-authority"])
    context.load_cert_chain(files["client-certificate"], files["client-key"])
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
    return Api(session, cluster["server"], {})


@pytest.fixture
async def plane(request: pytest.FixtureRequest) -> AsyncIterator[ControlPlane | None]:
    """The embedded control plane; None where the tests have a cluster."""
    if request.config.getoption("--kubeconfig"):
        yield None
        return
    async with ControlPlane() as made:
        yield made


@pytest.fixture
async def api(plane: ControlPlane | None, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Api]:
    """A client that may do everything."""
    if plane is not None:
        async with open_api(plane, plane.kubeconfig) as embedded:
            yield embedded
        return
    real = _client(Path(request.config.getoption("--kubeconfig")), tmp_path)
    async with real.session:
        await remove_all(real)
        yield real
        await remove_all(real)
