"""An agent in the test's own process, so that a test sees its provider; the node loop reaches it through trouble."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
from aiohttp import web
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.auth import Guard
from wasmlet_agent.protocol.messages import SessionRequest
from wasmlet_agent.server import Server
from wasmlet_remote import RemoteProvider

import wasmlet
from tests.node.cluster import Cluster
from tests.remote.agents import NODE, PATIENCE
from wasmlet.clock import Clock
from wasmlet.testing import FaultProxy, ReferenceProvider


@attrs.define
class Beside:
    """What a test has of an agent.

    Attributes:
        there: the agent's provider.
        agent: the agent itself.
        proxy: on the way to it.
    """

    there: ReferenceProvider
    agent: Agent
    proxy: FaultProxy

    def provider(self, clock: Clock | None = None) -> RemoteProvider:
        """A provider that drives the agent."""
        return RemoteProvider(RemoteProvider.Config(endpoint=self.proxy.url), clock=clock)

    @asynccontextmanager
    async def started(self, directory: Path, clock: Clock | None = None) -> AsyncIterator[RemoteProvider]:
        """A provider that drives the agent, without a node loop."""
        provider = self.provider(clock)
        try:
            await provider.start(wasmlet.NodeContext("n1", "127.0.0.1", 110, directory))
            yield provider
        finally:
            await provider.stop()

    @asynccontextmanager
    async def node(self, cluster: Cluster, clock: Clock | None = None) -> AsyncIterator[wasmlet.Node]:
        """A node that drives the agent."""
        async with wasmlet.Node(self.provider(clock), cluster.config(), clock=clock) as node:
            yield node


@asynccontextmanager
async def agent_beside(
    directory: Path, there: ReferenceProvider | None = None, clock: Clock | None = None
) -> AsyncIterator[Beside]:
    """An agent with the reference provider, behind a proxy that makes trouble."""
    provider = there or ReferenceProvider()
    os.mkdir(directory, 0o700)
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(Agent(lambda: provider, Places(directory), clock))
        runner = Server(agent, Guard(None, certificates=False, open=True)).runner()
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        proxy = await stack.enter_async_context(FaultProxy("127.0.0.1", port))
        yield Beside(provider, agent, proxy)


@asynccontextmanager
async def claimed(
    directory: Path,
    make: Callable[[], ReferenceProvider],
    clock: Clock | None = None,
    *,
    keep_secrets: bool = False,
) -> AsyncIterator[Agent]:
    """An agent that nobody can reach, in a session that has begun."""
    os.makedirs(directory, 0o700, exist_ok=True)
    async with asyncio.timeout(PATIENCE), Agent(make, Places(directory, keep_secrets), clock) as agent:
        await agent.claim(SessionRequest(NODE, "loop", agent.sessions.newest.number))
        yield agent
