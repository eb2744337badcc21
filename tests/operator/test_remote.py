"""A pool of agents that run elsewhere: its host is made, agents join it, and they are emptied before they go."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from wasmlet_remote.host import manifests

from tests.operator.harness import NODES, Fleet, Raw, condition
from tests.remote.hosts import Program
from wasmlet.operator.objects import keys_namespace
from wasmlet.operator.pool import POOLS

pytestmark = [pytest.mark.needs_root("the pod of the host is put into namespaces"), pytest.mark.timeout(600)]


@asynccontextmanager
async def forwarded(address: str, port: int) -> AsyncIterator[int]:
    """A port of this machine behind which that address is: what a LoadBalancer is in a cloud."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(address, port)
        except OSError:
            writer.close()
            return
        for pair in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(pipe(*pair))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def certificate(fleet: Fleet) -> None:
    """The Secret with the host's certificate, made as docs/host.md says."""
    command = [sys.executable, "-m", "wasmlet_agent", "keys", str(fleet.directory / "keys"), "127.0.0.1"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    files = {"tls.crt": "agent.crt", "tls.key": "agent.key", "ca.crt": "ca.crt"}
    data = {
        key: base64.b64encode((fleet.directory / "keys" / file).read_bytes()).decode() for key, file in files.items()
    }
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "host-tls"}, "data": data}
    await fleet.admin.create(f"/api/v1/namespaces/{fleet.namespace}/secrets", body)


async def token(fleet: Fleet, pool: str = "edge") -> str:
    until = datetime.now(UTC) + timedelta(hours=1)
    namespace = keys_namespace(fleet.namespace)
    manifest, text = manifests.token(namespace, names="*", uses=9, expires=until, pool=pool)
    await fleet.admin.create(f"/api/v1/namespaces/{namespace}/secrets", manifest)
    return text


@asynccontextmanager
async def agent(fleet: Fleet, name: str, port: int, text: str) -> AsyncIterator[Program]:
    """An agent that joins, as a process."""
    state = fleet.directory / f"agent-{name}"
    state.mkdir(mode=0o700)
    found = Program(
        "-m", "tests.remote.joined_agents", f"https://127.0.0.1:{port}", f"--state-dir={state}",
        f"--node-name={name}", f"--token={text}", f"--ca-file={fleet.directory / 'keys/ca.crt'}",
    )  # fmt: skip
    await found.start()
    try:
        yield found
    finally:
        await found.end(signal.SIGKILL)


async def host(fleet: Fleet) -> str:
    """The address of the pod of the host, as soon as it is ready."""

    def ready(found: Mapping[str, Raw]) -> bool:
        return any(
            condition(pod["status"], "Ready") == "True" for name, pod in found.items() if name.startswith("edge-")
        )

    found = await fleet.until(fleet.pods, ready)
    return str(next(pod["status"]["podIP"] for name, pod in found.items() if name.startswith("edge-")))


async def on(fleet: Fleet, node: str, name: str) -> None:
    """A pod on an agent's node, ready."""
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "c", "image": "reference/none"}],
    }
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}
    await fleet.admin.create(fleet.pods, body)
    await fleet.until(fleet.pods, lambda found: condition(found[name]["status"], "Ready") == "True")


async def test_agents_are_a_pool(fleet: Fleet) -> None:
    async with fleet.account() as kubeconfig:
        await certificate(fleet)
        operator = await fleet.operator(kubeconfig=kubeconfig)
        command = [str(Path(sys.prefix, "bin", "wasmlet")), "host"]
        agents = [{"name": name} for name in ("shop-a", "shop-b", "shop-c")]
        await fleet.pool(
            provider="remote",
            config={},
            nodePod={"command": command},
            remote={"agents": agents, "tlsSecret": "host-tls"},
            template={"metadata": {"labels": {"zone": "a"}}},
        )
        text = await token(fleet)
        async with contextlib.AsyncExitStack() as stack:
            port = await stack.enter_async_context(forwarded(await host(fleet), 8443))
            for name in ("shop-a", "shop-b"):
                await stack.enter_async_context(agent(fleet, name, port, text))
            await fleet.until(POOLS, lambda found: (found["edge"].get("status") or {}).get("readyReplicas") == 2)
            assert "shop-c: the agent has not joined" in await fleet.run("describe", "wnp", "edge")
            await fleet.change(remote={"agents": agents[:2]})
            await fleet.ready(2)
            found = await fleet.until(NODES, lambda found: found["shop-a"]["metadata"]["labels"].get("zone") == "a")
            assert [one["key"] for one in found["shop-a"]["spec"]["taints"]] == ["wasmlet.dev/provider"]
            await on(fleet, "shop-a", "stays")
            await on(fleet, "shop-b", "leaves")
            refused = await fleet.run("scale", "wnp", "edge", "--replicas=3")
            assert "as many nodes as spec.remote.agents names" in refused
            other = await stack.enter_async_context(agent(fleet, "other", port, await token(fleet, "another")))
            await other.says("this host is pool edge's")
            await fleet.budget("leaves", minAvailable=1)
            await fleet.change(remote={"agents": agents[:1]})
            await fleet.until(POOLS, lambda found: "Held" in str(found["edge"]["status"]))
            assert await fleet.names(NODES) == ["shop-a", "shop-b"]
            await fleet.admin.delete(f"/apis/policy/v1/namespaces/{fleet.namespace}/poddisruptionbudgets/leaves")
            await fleet.ready(1)
            assert await fleet.names(NODES) == ["shop-a"]
            keys = (await fleet.admin.get(f"/api/v1/namespaces/{keys_namespace(fleet.namespace)}/secrets"))["items"]
            assert [one["metadata"]["name"] for one in keys if one["type"] == "wasmlet.dev/agent-key"] == [
                "agent-shop-a"
            ]
            assert (await fleet.admin.get(f"{fleet.pods}/stays"))["status"]["phase"] == "Running"
            await fleet.remove()
            await fleet.gone()
            assert not [name for name in await fleet.until(NODES, lambda found: True) if name.startswith("shop-")]
        wrong = [line for line in operator.said() if line["level"] in ("warning", "error")]
        assert not wrong
