"""A joined agent whose connections break, are cut off and held back while its pods go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.auth import Guard
from wasmlet_agent.join.joining import Joined
from wasmlet_agent.join.links import Links
from wasmlet_agent.server import Server
from wasmlet_remote import RemoteProvider
from wasmlet_remote.host.acceptor import Acceptor
from wasmlet_remote.host.links import Lines, transports

import wasmlet
from tests.node.cluster import NODE, Cluster, running
from tests.remote.agents import PATIENCE
from tests.remote.host.known import KEY, Known
from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane, FaultProxy, ReferenceProvider


@attrs.define
class Far:
    """A node that drives a joined agent, and what is on the way.

    Attributes:
        there: the agent's provider.
        proxy: between the agent and its host.
        lines: the agent's links, at the host.
    """

    cluster: Cluster
    there: ReferenceProvider
    proxy: FaultProxy
    lines: Lines


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    there, known = ReferenceProvider(), Known()
    lines = known.agents["edge-1"][1]
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(node_monitor_grace=None))
        admin = await stack.enter_async_context(Client(await load_identity(plane.kubeconfig)))
        cluster = Cluster(plane, admin, tmp_path, seconds=PATIENCE)
        acceptor = Acceptor(known, None, b"")  # type: ignore[arg-type]
        url = await stack.enter_async_context(acceptor.serving(("127.0.0.1", 0), None))
        proxy = await stack.enter_async_context(FaultProxy("127.0.0.1", int(url.rpartition(":")[2])))
        os.mkdir(tmp_path / "agent", 0o700)
        agent = await stack.enter_async_context(Agent(lambda: there, Places(tmp_path / "agent")))
        runner = Server(agent, Guard(open=True)).runner()
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        links = asyncio.create_task(Links(Joined(proxy.url, "edge-1", KEY), runner.server).run())
        config = RemoteProvider.Config(endpoint="http://edge-1")
        provider = RemoteProvider(config, transports=transports(lines))
        async with wasmlet.Node(provider, cluster.config()):
            yield Far(cluster, there, proxy, lines)
        links.cancel()
        await asyncio.wait([links])


def ended(code: int) -> Callable[[wasmlet.Pod], bool]:
    def look(pod: wasmlet.Pod) -> bool:
        states = [status["state"] for status in pod.status.get("containerStatuses", ())]
        return bool(states) and states[0].get("terminated", {}).get("exitCode") == code

    return look


async def test_ends_are_told_after_every_connection_was_cut(far: Far) -> None:
    cluster, there = far.cluster, far.there
    pods = [await cluster.create(f"p-{n}", restartPolicy="Never") for n in range(10)]
    for pod in pods:
        await cluster.until(running, pod.name)
    far.proxy.partition()
    for number, pod in enumerate(pods[:5]):
        there.finish(pod.key, number + 1)
    far.proxy.cut()
    far.proxy.heal()
    for number, pod in enumerate(pods[:5]):
        await cluster.until(ended(number + 1), pod.name)
    last = await cluster.create("last")
    await cluster.until(running, "last")
    assert sorted(key.uid for key in there.created) == sorted(pod.uid for pod in [*pods, last])
    for pod in pods[5:]:
        assert (await cluster.get(pod.name)).phase == "Running"


async def test_pods_are_made_once_while_connections_break_again_and_again(far: Far) -> None:
    cluster, there = far.cluster, far.there
    creating = [asyncio.create_task(cluster.create(f"p-{n}", nodeName=NODE)) for n in range(30)]
    for _ in range(5):
        async with asyncio.timeout(PATIENCE):
            while not far.lines:  # noqa: ASYNC110 - links tell nobody else
                await asyncio.sleep(0.01)
        far.proxy.cut()
    pods = [await task for task in creating]
    for pod in pods:
        await cluster.until(running, pod.name)
    assert sorted(key.uid for key in there.created) == sorted(pod.uid for pod in pods)
    for pod in pods[:5]:
        await cluster.delete(pod.name)
    far.proxy.cut()
    for pod in pods[:5]:
        await cluster.until_gone(pod.name)
    assert sorted(key.uid for key in there.deleted) == sorted(pod.uid for pod in pods[:5])
