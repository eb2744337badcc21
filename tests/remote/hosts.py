"""A host on the embedded control plane, and agents that join it, all of them processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from wasmlet_remote.host import manifests
from wasmlet_remote.host.config import HostConfig

from tests.node.cluster import Cluster
from tests.remote.agents import PATIENCE, ROOT
from wasmlet import NodeConfig
from wasmlet.controlplane.access.rules import Rule
from wasmlet.kube import Client, errors, load_identity
from wasmlet.testing import ControlPlane

NAMESPACE = "wasmlet"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{manifests.ACCOUNT}"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
NODES = "/api/v1/nodes"


class Program:
    """A process whose log is read."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.log: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._told = asyncio.Event()

    async def start(self) -> None:
        paths = [str(ROOT), *filter(None, sys.path)]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *self.command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self.process))

    async def says(self, wanted: str) -> str:
        """The first line of its log, from the present process on, that has this in it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.log:
                    if wanted in line:
                        return line
                self._told.clear()
                if self._reader is not None and self._reader.done():
                    raise AssertionError(f"it never said {wanted!r}:\n" + "".join(self.log))
                await self._told.wait()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; its exit code."""
        assert self.process is not None
        assert self._reader is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end; its exit code."""
        assert self.process is not None
        assert self._reader is not None
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reader
        return code

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        self.log.clear()
        async for line in process.stderr:
            self.log.append(line.decode())
            self._told.set()
        self._told.set()


class Stand:
    """The control plane, and what is needed to join."""

    def __init__(self, plane: ControlPlane, admin: Client, directory: Path) -> None:
        self.plane = plane
        self.admin = admin
        self.directory = directory
        self.cluster = Cluster(plane, admin, directory, seconds=PATIENCE)
        self.url = ""
        self.host: Program | None = None
        self._port = 0
        self._programs: list[Program] = []

    def grant(self, *names: str) -> None:
        """Let the host have nodes of these names, as `wasmlet host rbac` says."""
        self.plane.revoke(ACCOUNT)
        for role in manifests.rights(names, NAMESPACE):
            namespace = role["metadata"].get("namespace", "")
            for rule in role.get("rules", ()):
                verbs, resources = tuple(rule["verbs"]), tuple(rule["resources"])
                named = tuple(rule.get("resourceNames", ()))
                self.plane.grant(ACCOUNT, Rule(verbs, resources, names=named, namespace=namespace))

    @property
    def settings(self) -> tuple[HostConfig, NodeConfig]:
        """Those of a host in this process."""
        common = NodeConfig(
            kubeconfig=self.plane.user_kubeconfig(ACCOUNT, token=True),
            node_ip="127.0.0.1",
            client_ca_file=self.plane.client_ca_file,
            state_dir=self.directory / "host",
            serving_csr=False,
        )
        return HostConfig(listen="127.0.0.1:0", namespace=NAMESPACE), common

    async def start_host(self, *options: str) -> Program:
        """A host as a process, at the same port each time."""
        _, common = self.settings
        host = Program(
            "-c", "from wasmlet.cli import main; main()", "host", f"--listen=127.0.0.1:{self._port}",
            f"--kubeconfig={common.kubeconfig}", "--node-ip=127.0.0.1", f"--client-ca-file={common.client_ca_file}",
            f"--state-dir={common.state_dir}", "--no-serving-csr", f"--namespace={NAMESPACE}", *options,
        )  # fmt: skip
        await self._started(host)
        line = await host.says("the host serves")
        match = re.search(r"https?://[^\s\"]+", line)
        assert match is not None, line
        self.url = match[0]
        self._port = int(self.url.rpartition(":")[2])
        self.host = host
        return host

    async def agent(self, name: str, token: str = "", *options: str, agents: int = 0) -> Program:
        """An agent of this name that joins the host, or many of them in one process."""
        state = self.directory / f"agent-{name}"
        found = Program(
            "-m", "tests.remote.joined_agents", self.url, f"--state-dir={state}", f"--node-name={name}",
            f"--agents={agents}", *([f"--token={token}"] if token else []), *options,
        )  # fmt: skip
        state.mkdir(mode=0o700, exist_ok=True)
        await self._started(found)
        return found

    async def program(self, *command: str) -> Program:
        """Any process, ended with the stand."""
        found = Program(*command)
        await self._started(found)
        return found

    async def token(self, **settings: Any) -> str:
        """A join token that the API has."""
        given = {"names": "*", "uses": 1, "expires": datetime.now(UTC) + timedelta(hours=1), **settings}
        manifest, text = manifests.token(NAMESPACE, **given)
        await self.admin.create(SECRETS, manifest)
        return text

    async def node(self, name: str, wanted: Callable[[Any], bool] = lambda node: True) -> dict[str, Any]:
        """The Node as soon as it is there and as wanted."""
        params = {"watch": "1", "fieldSelector": f"metadata.name={name}", "resourceVersion": ""}
        async with asyncio.timeout(PATIENCE), self.admin.stream(NODES, params) as content:
            async for line in content:
                event = json.loads(line)
                if event["type"] != "DELETED" and wanted(event["object"]):
                    found: dict[str, Any] = event["object"]
                    return found
        raise AssertionError("the watch ended")

    async def secret(self, name: str) -> dict[str, Any] | None:
        """A Secret of the host's namespace."""
        try:
            return await self.admin.get(f"{SECRETS}/{name}")
        except errors.ObjectNotFound:
            return None

    async def close(self) -> None:
        for program in reversed(self._programs):
            if program.process is not None and program.process.returncode is None:
                await program.end(signal.SIGKILL)

    async def _started(self, program: Program) -> None:
        self._programs.append(program)
        await program.start()


def ready(status: str) -> Callable[[Any], bool]:
    """Whether a Node's Ready condition has that status."""
    return lambda node: any(
        item["type"] == "Ready" and item["status"] == status for item in node["status"].get("conditions", ())
    )


@contextlib.asynccontextmanager
async def stand(directory: Path) -> AsyncIterator[Stand]:
    """A control plane without a host; what is started is gone when the context ends."""
    async with (
        ControlPlane(node_monitor_grace=None) as plane,
        Client(await load_identity(plane.kubeconfig)) as admin,
    ):
        await admin.create(
            "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        )
        found = Stand(plane, admin, directory)
        try:
            yield found
        finally:
            await found.close()
