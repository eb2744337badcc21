"""The end of a pod is kept and told once, whatever the agent does meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from wasmlet_agent.changes import Changes
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.pods import Pods
from wasmlet_agent.pods.store import KeptEnd, Store
from wasmlet_agent.protocol.messages import EndedLine, PodRequest

from tests.remote.agents import PATIENCE, pod
from wasmlet import Inputs, NodeContext, PodKey, SystemClock, Terminated
from wasmlet.testing import ReferenceProvider


async def test_an_end_that_is_being_kept_when_the_provider_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping, go_on = asyncio.Event(), threading.Event()
    loop, end = asyncio.get_running_loop(), Store.end

    def slowly(store: Store, uid: str, kept: KeptEnd) -> None:
        loop.call_soon_threadsafe(keeping.set)
        assert go_on.wait(PATIENCE)
        end(store, uid, kept)

    monkeypatch.setattr(Store, "end", slowly)
    changes, provider = Changes(), ReferenceProvider()
    await provider.start(NodeContext("n1", "10.0.0.1", 110, tmp_path))
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        pods = Pods(Store(tmp_path, keep_secrets=True), changes, SystemClock(), group.create_task)
        await pods.attach(provider)
        await pods.create("a", Fence(1, 1), "", PodRequest(pod("a", "exit", "3", restart="Never"), Inputs()))
        stream = provider.changes()
        assert stream is not None
        while not isinstance((await provider.pod_status(PodKey("default", "a", "a"))).containers[0].state, Terminated):
            await anext(stream)
        await pods.delete(PodKey("default", "a", "a"), Fence(1, 2), 0)
        await keeping.wait()
        leaving = asyncio.create_task(pods.detach())
        await asyncio.sleep(0)
        go_on.set()
        await leaving
        await pods.attach(provider)
        while not any(isinstance(line, EndedLine) for line in changes.newer(0)):
            await changes.told.wait()
    (line,) = (line for line in changes.newer(0) if isinstance(line, EndedLine))
    assert line.status is not None
    state = line.status.containers[0].state
    assert isinstance(state, Terminated)
    assert state.exit_code == 3
    await provider.stop()
