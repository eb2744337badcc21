"""Where it is measured: an embedded control plane in a process of its own, or a cluster that is there, and a node.

`Cluster` has a node's credentials and an administrator's client; what is created is removed again.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import attrs

from benchmarks.api import Api, opened
from benchmarks.processes import BenchmarkFailed, Process, started
from wasmlet.kube import load_identity, paths

CLEANING_SECONDS = 10.0
LOOKS = 50


@attrs.frozen
class RealCluster:
    """A cluster that is there already.

    Attributes:
        kubeconfig: administrator's credentials.
        node_credentials: a command that, given a node's name, prints the path of a kubeconfig for it.
        client_ca_file: the CA of the cluster's clients.
    """

    kubeconfig: Path
    node_credentials: str
    client_ca_file: Path


@attrs.frozen
class Cluster:
    """An API server, and what a node needs to join.

    Attributes:
        name: what it is, for people.
        node: the name that a node under test has.
        directory: for files; removed at the end.
    """

    api: Api
    name: str
    node: str
    directory: Path
    node_kubeconfig: Path
    client_ca_file: Path

    @asynccontextmanager
    async def running_node(self, provider: str, pods: int, *settings: str) -> AsyncIterator[Process]:
        """A node in a process of its own, registered and ready to take that many pods.

        Args:
            settings: of the provider, NAME=VALUE.
        """
        state = self.directory / "state"
        arguments = (provider, self.node, self.node_kubeconfig, self.client_ca_file, state, pods, *settings)
        try:
            async with started("node", *map(str, arguments)) as process:
                yield process
        finally:
            await self._remove(f"{paths.NODES}/{self.node}", f"{paths.LEASES}/{self.node}")

    @asynccontextmanager
    async def namespace(self, name: str) -> AsyncIterator[str]:
        """A namespace in which pods can be created; gives the path of its pods."""
        path = f"/api/v1/namespaces/{name}"
        await self.api.call("POST", "/api/v1/namespaces", _object("Namespace", name))
        # A controller would make it in a moment; where there is none, nobody does.
        await self.api.call("POST", f"{path}/serviceaccounts", _object("ServiceAccount", "default"), accept=409)
        try:
            yield f"{path}/pods"
        except BaseException:
            await self._remove(f"{path}/pods?gracePeriodSeconds=0")
            raise
        finally:
            await self._remove(path)
            await self._until_gone(path)

    async def _remove(self, *names: str) -> None:
        """Delete what may be there; that it cannot be deleted is not what somebody wants to hear at the end."""
        for name in names:
            with suppress(BenchmarkFailed, aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(CLEANING_SECONDS):
                    await self.api.call("DELETE", name, accept=404)

    async def _until_gone(self, path: str) -> None:
        """Wait for the cluster's controllers, whose work would fall into the next burst; without any, only a while."""
        with suppress(BenchmarkFailed, aiohttp.ClientError):
            for _ in range(LOOKS):
                if not await self.api.call("GET", path, accept=404):
                    break
                await asyncio.sleep(CLEANING_SECONDS / LOOKS)


def _object(kind: str, name: str) -> Mapping[str, object]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


@asynccontextmanager
async def open_cluster(real: RealCluster | None) -> AsyncGenerator[Cluster, None]:
    """The cluster given, or an embedded control plane."""
    node = f"bench-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="wasmlet-bench-") as name:
        directory = Path(name)
        if real is not None:
            kubeconfig = await _credentials(real.node_credentials, node)
            async with opened(await load_identity(real.kubeconfig)) as api:
                version = (await api.call("GET", "/version"))["gitVersion"]
                yield Cluster(api, f"kube-apiserver {version}", node, directory, kubeconfig, real.client_ca_file)
            return
        async with started("plane", str(directory / "plane"), node) as plane:
            files = {key: Path(plane.said[key]) for key in ("kubeconfig", "node_kubeconfig", "client_ca_file")}
            async with opened(await load_identity(files["kubeconfig"])) as api:
                embedded = "embedded control plane"
                yield Cluster(api, embedded, node, directory, files["node_kubeconfig"], files["client_ca_file"])


async def _credentials(command: str, node: str) -> Path:
    """The kubeconfig whose path the command prints."""
    try:
        process = await asyncio.create_subprocess_exec(command, node, stdout=asyncio.subprocess.PIPE)
    except OSError as error:
        raise BenchmarkFailed(f"--node-credentials {command}: {error.strerror}") from None
    out, _ = await process.communicate()
    path = Path(out.decode().strip())
    if process.returncode != 0 or not await asyncio.to_thread(path.is_file):
        raise BenchmarkFailed(f"--node-credentials {command} {node}: expected the path of a kubeconfig, found {path}")
    return path
