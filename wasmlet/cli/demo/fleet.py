"""The pool of `wasmlet demo --pool`: the operator as a process, a machine for the nodes, and a pool of them."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wasmlet.cli.demo import child
from wasmlet.cli.demo.follow import Say
from wasmlet.cli.demo.halves import STORAGE_CLASS, Place, end, flags
from wasmlet.cli.demo.machine import LOG, Machine, Settings
from wasmlet.cli.demo.showing import DemoFailed
from wasmlet.clock import SystemClock, either
from wasmlet.controlplane.control_plane import ControlPlane
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, paths
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.kube.documents import read_all
from wasmlet.node import Node, NodeConfig
from wasmlet.operator.objects import keys_namespace
from wasmlet.operator.pool import POOLS
from wasmlet.runtime.network.config import ADDRESS

MACHINE = "machine"
"""The name of the node on which the pods of the pool's nodes run."""
NAMESPACE = "wasmlet"
READY_SECONDS = 120.0
LOOK_SECONDS = 0.2
LAST_LINES = 5
"""How many lines of a log an error shows."""


def check() -> None:
    """Find out whether the operator can run here.

    Raises:
        ConfigError: it cannot.
    """
    if find_spec("kopf") is None:
        raise ConfigError("--pool runs the operator, which needs kopf; try: pip install 'wasmlet[operator]'")


@asynccontextmanager
async def fleet(
    plane: ControlPlane, client: Client, place: Place, examples: Path, stop: asyncio.Event, say: Say
) -> AsyncGenerator[None, None]:
    """The pool of `pool.yaml`, whose nodes are ready; nothing of it runs any more at the end.

    Args:
        client: an administrator's.
        place: where the nodes and their pods run.
        examples: the directory with the manifests.
        stop: once it is set, nothing more is waited for.

    Raises:
        DemoFailed: the operator ended, or the nodes are not ready in time.
    """
    for name in (NAMESPACE, keys_namespace(NAMESPACE)):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await client.create("/api/v1/namespaces", body)
    for body in await _read(_definition(examples)):
        await client.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    config = NodeConfig(
        kubeconfig=plane.node_kubeconfig(MACHINE),
        node_name=MACHINE,
        node_ip="127.0.0.1",
        port=0,
        client_ca_file=plane.client_ca_file,
        state_dir=place.directory / MACHINE,
        serving_csr=False,
        drain_on_exit=True,
    )
    variables = {
        "WASMLET_ALLOW_LOCAL_MODULES": "true",
        "WASMLET_MODULE_DIR": str(place.modules),
        "WASMLET_NETWORK": ADDRESS,
        "WASMLET_ALLOW_STORAGE_CLASS": STORAGE_CLASS,
    }
    operator_log = place.directory / "operator.log"
    machine = Machine(Settings(plane.url, flags(place.registries), variables))
    async with Node(machine, config):
        # The node registers with its provider's taint. Here it stands for a machine of a cluster, which has none.
        await client.patch(f"{paths.NODES}/{MACHINE}", {"spec": {"taints": None}}, MERGE_PATCH)
        say(f"node           {MACHINE} is Ready, and runs the nodes of pools, each as a process")
        async with _operator(plane, operator_log) as operator:
            say(f"operator       a process of its own, for pools with nodes in namespace {NAMESPACE}")
            for pool in await _read(examples / "pool.yaml"):
                await client.create(POOLS, pool)
                try:
                    await _ready(client, pool["metadata"]["name"], operator, stop, say)
                except DemoFailed as error:  # the logs go with the directory
                    logs = [operator_log, *(place.directory / MACHINE).glob(f"*/{LOG}")]
                    raise DemoFailed("\n".join([str(error), *await asyncio.to_thread(_ends, logs)])) from None
            yield


def _definition(examples: Path) -> Path:
    """The definition of pools: of the checkout, or the copy that the package carries beside the examples."""
    chart = examples.parent / "charts/wasmlet-operator/crds/wasmnodepools.yaml"
    return chart if chart.is_file() else examples / "wasmnodepools.yaml"


async def _read(manifest: Path) -> list[dict[str, Any]]:
    return list(read_all(await asyncio.to_thread(manifest.read_bytes)))


@asynccontextmanager
async def _operator(plane: ControlPlane, file: Path) -> AsyncGenerator[Process, None]:
    with await asyncio.to_thread(file.open, "ab") as log:
        arguments = ["operator", f"--kubeconfig={plane.kubeconfig}", f"--namespace={NAMESPACE}"]
        process = await child.start(arguments, log)
    try:
        yield process
    finally:
        await end(process)


async def _ready(client: Client, name: str, operator: Process, stop: asyncio.Event, say: Say) -> None:
    """Wait until all nodes of the pool are ready, or until `stop` is set."""
    clock, said = SystemClock(), ""
    end = clock.monotonic() + READY_SECONDS
    while not stop.is_set():
        status = (await client.get(f"{POOLS}/{name}")).get("status") or {}
        ready = next((one for one in status.get("conditions") or () if one["type"] == "Ready"), None)
        if ready is not None and ready["message"] != said:
            said = ready["message"]
            say(f"wnp/{name:<10} {said}")
        if ready is not None and ready["status"] == "True":
            return
        if operator.returncode is not None:
            raise DemoFailed(f"the operator ended with exit code {operator.returncode}")
        if clock.monotonic() > end:
            raise DemoFailed(f"the nodes of pool {name} are not ready after {READY_SECONDS:g} s: {said}")
        await either(clock, LOOK_SECONDS, stop)


def _ends(logs: Iterable[Path]) -> list[str]:
    """The last lines of logs, each log with its name; of those that are empty or cannot be read, nothing."""
    found = []
    for file in logs:
        with suppress(OSError):
            lines = file.read_text(errors="replace").splitlines()[-LAST_LINES:]
            name = "the operator" if file.name != LOG else f"a node ({file.parent.name})"
            found += [f"the last lines of {name}:", *(f"  {line}" for line in lines)] if lines else []
    return found
