"""Where a benchmark runs: on an embedded control plane in a process of its own, or on an existing cluster.

`Cluster` has credentials for a node, and an administrator's client. What it creates it also removes.
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
from benchmarks.floor import owned
from benchmarks.processes import BenchmarkFailed, Process, started
from wasmlet.kube import load_identity, paths

CLEANING_SECONDS = 10.0
LOOKS = 50


@attrs.frozen
class RealCluster:
    """An existing cluster.

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
        name: a description for people.
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
    async def running_node(
        self, provider: str, pods: int, *settings: str, phases: Path | None = None
    ) -> AsyncIterator[Process]:
        """A node in a process of its own, registered and ready to take that many pods.

        Args:
            settings: of the provider, NAME=VALUE.
            phases: the file to which the phases of its pods are written, where that is wanted.
        """
        state = self.directory / "state"
        arguments = (provider, self.node, self.node_kubeconfig, self.client_ca_file, state, pods, *settings)
        try:
            what = ("node",) if phases is None else ("observed", str(phases))
            async with started(*what, *map(str, arguments)) as process:
                yield process
        finally:
            await self._remove(f"{paths.NODES}/{self.node}", f"{paths.LEASES}/{self.node}")

    @asynccontextmanager
    async def running_bare(self) -> AsyncIterator[Process]:
        """A bare node (`bare`) in a process of its own, in a node's place."""
        async with owned(self.api, self.node), started("bare", self.node, str(self.node_kubeconfig)) as process:
            yield process

    @asynccontextmanager
    async def namespace(self, name: str) -> AsyncIterator[str]:
        """A namespace in which pods can be created, while the context is open; gives the path of its pods."""
        path = f"/api/v1/namespaces/{name}"
        await self.api.call("POST", "/api/v1/namespaces", _object("Namespace", name))
        # A cluster's controller makes the account a moment later, so it is made here, if it is not there yet.
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
        """Delete these paths. Errors are ignored, as they would hide the result of the benchmark."""
        for name in names:
            with suppress(BenchmarkFailed, aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(CLEANING_SECONDS):
                    await self.api.call("DELETE", name, accept=404)

    async def _until_gone(self, path: str) -> None:
        """Wait until the path is gone, at most `CLEANING_SECONDS`: controllers at work would disturb the next burst."""
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
