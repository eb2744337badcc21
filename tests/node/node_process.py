"""A node loop as a process of its own, which a test may kill: the command line's, with wasmtime, on the embedded plane.

What it runs is looked at from the side: the shim's records and the containers' logs are files in its state directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.node.cluster import NODE, Cluster
from tests.worker.harness import Connection, children, kill, wait_gone, zygote_of
from wasmlet.controlplane.control_plane import ControlPlane
from wasmlet.worker.supervisor.store import RECORDS

ROOT = Path(__file__).parents[2]
GUEST = "wasmlet-guest"
ZYGOTE = "wasmlet-zygote"


class NodeProcess:
    """The node loop of one state directory, started and killed as often as a test likes."""

    def __init__(self, cluster: Cluster, image: str) -> None:
        self._cluster = cluster
        self.image = image
        self.state = cluster.directory / NODE
        self._process: asyncio.subprocess.Process | None = None
        self._markers = 0
        self._shims: set[int] = set()

    async def start(self) -> None:
        """Start one, and return at once; `settled` waits for it."""
        plane = self._cluster.plane
        assert isinstance(plane, ControlPlane)
        command = (
            f"--kubeconfig={plane.node_kubeconfig(NODE)}", f"--node-name={NODE}", "--node-ip=127.0.0.1", "--port=0",
            f"--client-ca-file={plane.client_ca_file}", "--no-serving-csr", f"--state-dir={self.state}",
            "--allow-local-modules", "--no-drain-on-exit", "--log-level=warning",
        )  # fmt: skip
        paths = [str(ROOT), *filter(None, sys.path)]
        with (self._cluster.directory / "node.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from wasmlet_wasmtime import main; main()", *command,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    async def kill(self) -> None:
        """SIGKILL, which leaves no time for anything."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def create(self, name: str, *args: str, restart: str = "Always", **spec: Any) -> None:
        """A pod whose one container, `c`, runs the driver with these arguments."""
        mounts = spec.pop("volumeMounts", [])
        container = {"name": "c", "image": self.image, "args": list(args), "volumeMounts": mounts}
        await self._cluster.create(
            name, containers=[container], restartPolicy=restart, automountServiceAccountToken=False, **spec
        )

    async def settled(self) -> None:
        """Return when the node loop has seen to a pod that was not there when it started."""
        self._markers += 1
        name = f"marker-{self._markers}"
        await self.create(name, "exit", "0", restart="Never")
        await self._cluster.until(lambda pod: pod.phase == "Succeeded", name)
        await self._cluster.delete(name)
        await self._cluster.until_gone(name)

    async def shim(self) -> int:
        """Its pid."""
        connection = Connection(self.state / "runtime")
        try:
            pid = int((await asyncio.to_thread(connection.ask, "hello"))["pid"])
        finally:
            connection.close()
        self._shims.add(pid)
        return pid

    async def kill_shim(self) -> None:
        await asyncio.to_thread(kill, await self.shim())

    async def kill_zygotes(self) -> int:
        """Kill the zygote; how many there were. A child that it has just forked goes by its name, and is left alone."""
        shim = await self.shim()
        if ZYGOTE not in children(shim).values():
            return 0
        await asyncio.to_thread(kill, zygote_of(shim))
        return 1

    async def guests(self) -> set[int]:
        """Processes that run guests."""
        return {pid for pid, name in children(await self.shim()).items() if name == GUEST}

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """What the shim has on file: by the pod's name, of each instance in the order of attempts."""
        found: dict[str, list[dict[str, Any]]] = {}
        newest: dict[str, dict[str, Any]] = {}
        for line in (self.state / "runtime" / RECORDS).read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError):  # the last one may be under way
                record = json.loads(line)
                for name in record.get("gone", ()):
                    newest.pop(name, None)
                if "id" in record:
                    newest[record["id"]] = record
        for record in newest.values():
            found.setdefault(record["labels"]["pod"]["name"], []).append(record)
        for records in found.values():
            records.sort(key=lambda record: int(record["labels"]["attempt"]))
        return found

    def log(self, record: dict[str, Any]) -> list[str]:
        """The lines of an instance's log, without times and streams."""
        text = (self.state / "runtime" / record["log"]).read_text()
        return [line.split(" ", 3)[3] for line in text.splitlines()]

    async def end(self) -> None:
        """End all there is."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()
        with contextlib.suppress(OSError):
            await self.shim()
        below = [child for pid in self._shims for child in children(pid)]
        with contextlib.suppress(OSError, EOFError, RuntimeError):
            connection = Connection(self.state / "runtime")
            await asyncio.to_thread(connection.ask, "shutdown", force=True)
            connection.close()
        for pid in (*self._shims, *below):
            await asyncio.to_thread(wait_gone, pid)


@contextlib.asynccontextmanager
async def started(cluster: Cluster, image: str) -> AsyncIterator[NodeProcess]:
    """A node loop that runs, and whose worker processes are gone at the end."""
    node = NodeProcess(cluster, image)
    try:
        await node.start()
        yield node
    finally:
        await node.end()
