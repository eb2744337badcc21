"""A node whose agent is killed, stopped, or taken over by another node loop."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

import wasmlet
from tests.node.cluster import NODE, Cluster, running
from tests.remote.agents import PATIENCE, REFERENCE
from tests.remote.agents import running as agent_running
from tests.remote.killings import container, killed, provider_of, wasmtime_agent
from wasmlet.testing import FakeClock


async def test_an_agent_that_is_killed_again_and_again(cluster: Cluster, image: str) -> None:
    """`tests.remote.killings` has it with more pods, and more often."""
    await killed(cluster, image, pods=5, kills=3)


async def test_an_agent_that_is_killed_while_pods_begin_and_end(cluster: Cluster, image: str) -> None:
    async with AsyncExitStack() as stack:
        agent, _ = await stack.enter_async_context(wasmtime_agent(cluster, image))
        await stack.enter_async_context(wasmlet.Node(provider_of(agent), cluster.config()))
        codes = {}
        for number in range(10):
            codes[f"p{number}"] = number
            containers = [{"name": "c", "image": image, "args": ["print", "begun", "exit", str(number)]}]
            await cluster.create(
                f"p{number}", containers=containers, restartPolicy="Never", automountServiceAccountToken=False
            )
            if number % 4 == 2:
                await agent.restart()
        for name, code in codes.items():
            pod = await cluster.until(lambda pod: pod.finished, name)
            assert container(pod)["state"]["terminated"]["exitCode"] == code
            assert container(pod)["restartCount"] == 0
        for name in codes:
            await cluster.delete(name)
        await agent.restart()
        for name in codes:
            await cluster.until_gone(name)


async def test_an_agent_that_stands_still(cluster: Cluster, tmp_path: Path) -> None:
    """The Node says so when nothing was heard for a while, and that it is back as soon as something is."""
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(agent_running(tmp_path / "agent", program=REFERENCE))
        await stack.enter_async_context(wasmlet.Node(provider_of(agent, clock=clock), cluster.config()))
        await cluster.create()
        await cluster.until(running)
        assert agent.process is not None
        agent.process.send_signal(signal.SIGSTOP)
        try:
            clock.advance(14)
            message = await ready(cluster, "False")
            assert f"agent {agent.url} is away since 14 s" in message
        finally:
            agent.process.send_signal(signal.SIGCONT)
        await ready(cluster, "True")
        assert running(await cluster.get())


async def test_a_second_node_loop_takes_the_agent_over(cluster: Cluster, tmp_path: Path) -> None:
    """The first one ends, with a sentence, and its pods go on; it does not take the agent back."""
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(agent_running(tmp_path / "agent", program=REFERENCE))
        node = wasmlet.Node(provider_of(agent), cluster.config())
        await node.__aenter__()
        pod = await cluster.create()
        await cluster.until(running)
        second = provider_of(agent)
        stack.push_async_callback(second.stop)
        await second.start(wasmlet.NodeContext(NODE, "127.0.0.1", 110, tmp_path))
        with pytest.raises(wasmlet.ConfigError, match="another node loop has taken over the agent") as ended:
            await asyncio.wait_for(node.wait(), PATIENCE)
        assert "\n" not in str(ended.value)
        assert [record.key for record in await second.list_pods()] == [pod.key]


async def test_an_agent_of_another_node_is_not_taken(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(agent_running(tmp_path / "agent", program=REFERENCE))
        for name in ("first", "second"):
            provider = provider_of(agent)
            stack.push_async_callback(provider.stop)
            context = wasmlet.NodeContext(name, "127.0.0.1", 110, tmp_path)
            if name == "first":
                await provider.start(context)
            else:
                with pytest.raises(wasmlet.ConfigError, match="first"):
                    await provider.start(context)


async def test_an_agent_that_lost_its_disk_is_taken_anew(cluster: Cluster, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(agent_running(tmp_path / "agent", program=REFERENCE))
        await stack.enter_async_context(wasmlet.Node(provider_of(agent), cluster.config()))
        for name in ("p", "later"):  # when the later one runs, the answer to the creation of the other has come
            await cluster.create(name)
            await cluster.until(running, name)
        await agent.end(signal.SIGKILL)
        agent.state = tmp_path / "another"
        await agent.start()
        pod = await cluster.until(lambda pod: running(pod) and container(pod)["restartCount"] == 1)
        assert container(pod)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"


async def ready(cluster: Cluster, wanted: str) -> str:
    """Return when the Node's Ready condition is this; its message."""
    async with asyncio.timeout(PATIENCE), cluster.admin.stream("/api/v1/nodes", {"watch": "1"}) as lines:
        async for line in lines:
            conditions = orjson.loads(line)["object"]["status"].get("conditions", ())
            for condition in conditions:
                if condition["type"] == "Ready" and condition["status"] == wanted:
                    return str(condition["message"])
    raise AssertionError("the watch ended")
