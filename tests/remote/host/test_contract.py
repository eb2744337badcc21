"""The contract over joined links: RemoteProvider at a host, and an agent that has dialled it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest_asyncio
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.auth import Guard
from wasmlet_agent.join.joining import Joined
from wasmlet_agent.join.links import Links
from wasmlet_agent.server import Server
from wasmlet_remote import RemoteProvider
from wasmlet_remote.host.acceptor import Acceptor
from wasmlet_remote.host.links import transports

from tests.remote.host.known import KEY, Known
from tests.testing.test_contract_reference import TestReferenceProvider as OfReference
from wasmlet.testing import ReferenceProvider


class TestReferenceThatHasJoined(OfReference):
    """Its pods live as long as the agent, whatever becomes of the node loop."""

    survives = True

    @pytest_asyncio.fixture(autouse=True, loop_scope="function")
    async def _joined(self, tmp_path: Path) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            known = Known()
            self.lines = known.agents["edge-1"][1]
            acceptor = Acceptor(known, None, b"")  # type: ignore[arg-type]
            url = await stack.enter_async_context(acceptor.serving(("127.0.0.1", 0), None))
            os.mkdir(tmp_path / "agent", 0o700)
            agent = await stack.enter_async_context(Agent(ReferenceProvider, Places(tmp_path / "agent")))
            runner = Server(agent, Guard(open=True)).runner()
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            assert runner.server is not None
            links = asyncio.create_task(Links(Joined(url, "edge-1", KEY), runner.server).run())
            yield
            links.cancel()
            await asyncio.wait([links])

    def make_provider(self) -> Any:
        config = RemoteProvider.Config(endpoint="http://edge-1")
        return RemoteProvider(config, transports=transports(self.lines))
