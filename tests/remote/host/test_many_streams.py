"""Logs and commands of an agent that has joined: however many there are, its node loop has links of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.auth import Guard
from wasmlet_agent.join.joining import Joined
from wasmlet_agent.join.links import Links
from wasmlet_agent.server import Server
from wasmlet_remote import RemoteProvider
from wasmlet_remote.host.acceptor import Acceptor
from wasmlet_remote.host.links import transports

import wasmlet
from tests.remote.agents import PATIENCE, pod
from tests.remote.host.known import KEY, Known
from wasmlet.testing import ReferenceProvider

LINKS, STREAMS = 12, 6


@pytest.fixture
async def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RemoteProvider]:
    """One that drives an agent which makes few links."""
    monkeypatch.setattr("wasmlet_agent.join.links.MOST_LINKS", LINKS)
    monkeypatch.setattr("wasmlet_remote.provider.MOST_STREAMS", STREAMS)
    async with AsyncExitStack() as stack:
        known = Known()
        acceptor = Acceptor(known, None, b"")  # type: ignore[arg-type]
        url = await stack.enter_async_context(acceptor.serving(("127.0.0.1", 0), None))
        os.mkdir(tmp_path / "agent", 0o700)
        agent = await stack.enter_async_context(Agent(ReferenceProvider, Places(tmp_path / "agent")))
        runner = Server(agent, Guard(open=True)).runner()
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        links = asyncio.create_task(Links(Joined(url, "edge-1", KEY), runner.server).run())
        config = RemoteProvider.Config(endpoint="http://edge-1")
        found = RemoteProvider(config, transports=transports(known.agents["edge-1"][1]))
        try:
            await found.start(wasmlet.NodeContext("edge-1", "127.0.0.1", 110, tmp_path))
            yield found
        finally:
            await found.stop()
            links.cancel()
            await asyncio.wait([links])


async def test_pods_begin_and_end_however_many_logs_are_followed(provider: RemoteProvider) -> None:
    key = wasmlet.PodKey("default", "a", "a")
    async with asyncio.timeout(PATIENCE):
        await provider.create_pod(wasmlet.Pod(pod("a", "print", "one")), wasmlet.Inputs())
        logs = [provider.logs(key, "main", wasmlet.LogOptions(follow=True)) for _ in range(STREAMS + 1)]
        *followed, last = logs
        assert await asyncio.gather(*map(anext, followed)) == [b"one\n"] * STREAMS
        with pytest.raises(wasmlet.WasmletError, match=f"{STREAMS} logs, execs and port-forwards are open"):
            await anext(last)
        names = [f"p{number}" for number in range(STREAMS)]
        await asyncio.gather(
            *(provider.update_pod(wasmlet.Pod(pod("a", "print", "one")), wasmlet.Inputs()) for _ in names)
        )
        await asyncio.gather(*(provider.create_pod(wasmlet.Pod(pod(name)), wasmlet.Inputs()) for name in names))
        assert await provider.delete_pod(key, 0) is not None
        for log in followed:  # which end with the pod
            assert [piece async for piece in log] == []
        other = wasmlet.PodKey("default", names[0], names[0])
        assert await provider.pod_status(other)
