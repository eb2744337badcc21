"""Where the pods of a node run: in its own process, or behind an agent that it reaches or that has joined it.

The agent is in the test's process too, so that a check can give its provider a clock; its own is the machine's. What
is between both is a socket and the whole protocol, as anywhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.auth import Guard
from wasmlet_agent.join.joining import Joined
from wasmlet_agent.join.links import Links
from wasmlet_agent.server import Server
from wasmlet_remote import RemoteProvider
from wasmlet_remote.host.acceptor import Acceptor
from wasmlet_remote.host.links import transports

from tests.remote.host.known import KEY, Known
from wasmlet import Provider

LOCAL, REMOTE, JOINED = "local", "remote", "joined"


@asynccontextmanager
async def behind_an_agent(
    runtime: str, there: Callable[[], Provider], directory: Path
) -> AsyncIterator[RemoteProvider]:
    """What a node is given instead of the provider `there`, which an agent serves.

    Args:
        runtime: `REMOTE` or `JOINED`.
        directory: of the agent's state; the next agent of that directory goes on with its pods.
    """
    await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(Agent(there, Places(directory)))
        runner = Server(agent, Guard(open=True)).runner()
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if runtime == REMOTE:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield RemoteProvider(RemoteProvider.Config(endpoint=url))
            return
        known = Known()
        lines = known.agents["edge-1"][1]
        acceptor = Acceptor(known, None, b"")  # type: ignore[arg-type]
        url = await stack.enter_async_context(acceptor.serving(("127.0.0.1", 0), None))
        assert runner.server is not None
        links = asyncio.create_task(Links(Joined(url, "edge-1", KEY), runner.server).run())
        try:
            config = RemoteProvider.Config(endpoint="http://edge-1")
            yield RemoteProvider(config, transports=transports(lines))
        finally:
            links.cancel()
            await asyncio.wait([links])
