"""What stands at both ends of links: an acceptor's agents without nodes, and a server without an agent."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from wasmlet_agent.protocol.joining import hash_of
from wasmlet_remote.host.links import Lines
from wasmlet_remote.host.tokens import Agent

from tests.remote.agents import PATIENCE

KEY = "the agent's key"


class Known:
    """What an acceptor has to know of agents, without nodes."""

    def __init__(self) -> None:
        self.agents: dict[str, tuple[Agent, Lines]] = {}
        self.in_sync = asyncio.Event()
        self.in_sync.set()
        self.add("edge-1", KEY)
        self.add("edge-2", "another key")

    def add(self, name: str, key: str) -> None:
        self.agents[name] = Agent(name, hash_of(key)), Lines()

    def lines(self, name: str, digest: str) -> Lines | None:
        agent, lines = self.agents.get(name, (None, None))
        return lines if agent is not None and agent.has(digest) else None

    def joined(self, agent: Agent) -> None:
        self.agents[agent.name] = agent, Lines()

    def __len__(self) -> int:
        return len(self.agents)


def echoing() -> web.Application:
    """What stands for an agent's server."""

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(400):
            await response.write(b"x" * 65536)
        return response

    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/echo", echo)
    app.router.add_get("/stream", stream)
    return app


async def until(check: Any) -> None:
    """Return when it holds, as events on the loop let it."""
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - connections end in the loop, and tell nobody else
            await asyncio.sleep(0.01)
