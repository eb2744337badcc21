"""A cluster as somebody has it who deploys wasmlet: an API server, a Linux node, a registry, and a shell.

The API server is the embedded one, or that of the options of `tests.node.real`, of a cluster made for tests.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from tests.artifacts import registries
from tests.artifacts.conftest import docker_registry
from tests.deployment.image import ROOT, Built, built, version
from tests.node.real import RealPlane
from tests.shared.pods_as_processes import linux_node
from wasmlet.controlplane.certificates.pki import Authority
from wasmlet.testing import ControlPlane

__all__ = ["docker_registry"]

SYSTEM_AUTHORITIES = "/usr/lib/ssl/cert.pem"
"""Of a Debian, where OpenSSL looks first."""
TRANSIENT = ("events", "events.events.k8s.io", "componentstatuses")
"""Kinds whose objects come and go by themselves, or are none."""


@attrs.frozen
class Deployed:
    """Where the tests deploy to.

    Attributes:
        plane: the API server.
        registry: HOST:PORT of a registry that the image's system trusts.
        variables: of the shell.
    """

    plane: ControlPlane | RealPlane
    registry: str
    variables: dict[str, str]

    async def sh(self, script: str, *, given: str = "", check: bool = True) -> str:
        """What a script of bash writes, to standard output and error; `kubectl` and `wasmlet` are on its PATH.

        Args:
            given: its standard input.
        """
        process = await asyncio.create_subprocess_exec(
            "bash", "-e", "-o", "pipefail", "-c", script, cwd=ROOT, env=self.variables,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output = (await process.communicate(given.encode()))[0].decode()
        assert process.returncode == 0 or not check, f"{script}\n{output}"
        return output

    async def node_ready(self) -> None:
        """Wait for the node of the default deployment."""
        ready = "kubectl -n wasmlet wait --for=jsonpath='{.status.readyReplicas}'=1 statefulset/wasmlet --timeout=180s"
        tell = "{ kubectl -n wasmlet describe pod wasmlet-0; kubectl -n wasmlet logs wasmlet-0; exit 1; }"
        await self.sh(f"{ready} || {tell}")
        await self.sh("kubectl wait --for=condition=Ready node/wasmlet-0 --timeout=120s")

    async def objects(self) -> set[str]:
        """Every object of the cluster, as kind, namespace and name."""
        kinds = (await self.sh("kubectl api-resources --verbs=list -o name")).split()
        kinds = sorted(kind for kind in kinds if kind not in TRANSIENT)
        columns = "KIND:.kind,SPACE:.metadata.namespace,NAME:.metadata.name"
        lines = await self.sh(
            f"kubectl get {','.join(kinds)} -A --no-headers --ignore-not-found -o custom-columns={columns}"
        )
        return {" ".join(line.split()) for line in lines.splitlines() if line.strip()}

    async def gone(self, before: set[str]) -> set[str]:
        """What is there beyond `before` once nothing is, or after a minute; controllers of a real one take a moment."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + 60
        while (left := await self.objects() - before) and clock.time() < deadline:  # noqa: ASYNC110 - of any kind
            await asyncio.sleep(1)
        return left


@pytest.fixture(scope="session")
def image() -> Built:
    """The container image of this checkout."""
    return built()


@pytest.fixture
async def deployed(
    request: pytest.FixtureRequest, tmp_path: Path, image: Built, kubectl: Path, docker_registry: Path
) -> AsyncIterator[Deployed]:
    authority = Authority("registry-ca", datetime.now(UTC))
    authorities = tmp_path / "registry-ca.pem"
    authorities.write_bytes(authority.pem)
    trusting = attrs.evolve(image.image, extra={SYSTEM_AUTHORITIES: authorities})
    async with AsyncExitStack() as stack:
        plane = RealPlane.of(request.config) or await stack.enter_async_context(ControlPlane())
        settings = registries.tls(tmp_path / "registry", authority.server(["127.0.0.1"]))
        registry = await stack.enter_async_context(
            registries.registry(docker_registry, tmp_path / "registry", **settings)
        )
        await stack.enter_async_context(linux_node(plane, tmp_path, {f"wasmlet:{version()}": trusting}))
        path = os.pathsep.join((str(kubectl.parent), str(Path(sys.executable).parent), os.environ["PATH"]))
        own = {
            "PATH": path,
            "KUBECONFIG": str(plane.kubeconfig),
            "SSL_CERT_FILE": str(authorities),
            "HOME": str(tmp_path),
        }
        yield Deployed(plane, registry, {**os.environ, **own, "REGISTRY": registry})
