"""An agent that is killed again and again while its pods run.

    python -m tests.remote.killings --pods 100 --kills 10

`test_agents` is the short form for every day.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from wasmlet_remote import RemoteProvider

import wasmlet
from tests import guests
from tests.node.cluster import Cluster, running
from tests.node.node_process import NodeProcess
from tests.node.trouble import troubled_cluster
from tests.remote.agents import PATIENCE, REAL, AgentProcess
from tests.remote.agents import running as agent_running
from tests.worker.harness import kill

WASMTIME = ("--provider=wasmtime", "--allow-local-modules", "--shim-idle-exit=1")


def provider_of(agent: AgentProcess, **settings: Any) -> RemoteProvider:
    """A provider that drives the agent, which keeps its port from now on."""
    if not any("--listen" in option for option in agent.options):
        agent.options.append(f"--listen={agent.url.removeprefix('http://')}")
    return RemoteProvider(RemoteProvider.Config(endpoint=agent.url), **settings)


@asynccontextmanager
async def wasmtime_agent(cluster: Cluster, image: str) -> AsyncIterator[tuple[AgentProcess, NodeProcess]]:
    """An agent with wasmtime, and its guests seen from the side; they are gone at the end."""
    state = cluster.directory / "agent"
    async with agent_running(state, *WASMTIME, program=REAL) as agent:
        seen = NodeProcess(cluster, image)
        seen.state = state / "provider"
        try:
            yield agent, seen
        finally:
            await seen.end()


async def killed(
    cluster: Cluster, image: str, pods: int, kills: int, say: Callable[[str], None] = lambda line: None
) -> None:
    """Kill the agent so often under so many pods, and a guest after each time.

    Guests go on without it, and one that ends is started again by the agent's next process; no other one is.
    """
    async with AsyncExitStack() as stack:
        agent, seen = await stack.enter_async_context(wasmtime_agent(cluster, image))
        await stack.enter_async_context(wasmlet.Node(provider_of(agent), cluster.config()))
        names = [f"p{number}" for number in range(pods)]
        containers = [{"name": "c", "image": image, "args": ["print", "begun", "sleep", "100000"]}]
        for name in names:
            await cluster.create(name, containers=containers, automountServiceAccountToken=False)
        first = {name: container(await cluster.until(running, name))["containerID"] for name in names}
        say(f"{pods} pods run")
        for name in names[:kills]:
            before, began = await seen.guests(), time.monotonic()
            assert len(before) >= pods
            await agent.restart()
            assert await seen.guests() == before
            await asyncio.to_thread(kill, seen.records()[name][0]["pid"])
            await cluster.until(lambda pod: container(pod)["restartCount"] == 1 and running(pod), name)
            say(f"{name} is started again, {time.monotonic() - began:.1f} s after the agent was killed")
        for name in names[kills:]:
            assert container(await cluster.get(name))["containerID"] == first[name]
            assert container(await cluster.get(name))["restartCount"] == 0
        for name in names:
            await cluster.delete(name, gracePeriodSeconds=0)
        for name in names:
            await cluster.until_gone(name)
        say("all pods are gone")


def container(pod: Any) -> Any:
    """The status of its container."""
    return pod.status["containerStatuses"][0]


async def main(pods: int, kills: int) -> None:
    """The long form."""
    image = f"file://{guests.build('driver', guests.compile_c)}"
    with tempfile.TemporaryDirectory(prefix="wasmlet-killings-") as directory:
        async with troubled_cluster(Path(directory)) as cluster:
            cluster.seconds = 5 * PATIENCE
            await killed(cluster, image, pods, kills, print)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    asyncio.run(main(given.pods, min(given.kills, given.pods)))
