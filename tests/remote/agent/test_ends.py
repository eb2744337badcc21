"""The end of a pod is kept and told once, whatever the agent does meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from wasmlet_agent.changes import Changes
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.journal import Journal
from wasmlet_agent.pods.pods import Pods
from wasmlet_agent.pods.store import Store
from wasmlet_agent.protocol.messages import EndedLine, PodRequest

from tests.remote.agents import PATIENCE, pod
from tests.remote.beside import claimed
from wasmlet import Inputs, NodeContext, PodKey, SystemClock, Terminated
from wasmlet.testing import ReferenceProvider


async def ended(changes: Changes, uid: str) -> EndedLine:
    """The end of a pod, once it is told; it is told once."""
    while not (lines := [line for line in changes.newer(0) if isinstance(line, EndedLine) and line.uid == uid]):
        await changes.told.wait()
    (line,) = lines
    return line


async def test_an_end_that_is_being_kept_when_the_provider_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping, go_on = asyncio.Event(), threading.Event()
    loop, append = asyncio.get_running_loop(), Journal.append

    def slowly(journal: Journal, records: Mapping[str, bytes | None]) -> None:
        if "end/a" in records:
            loop.call_soon_threadsafe(keeping.set)
            assert go_on.wait(PATIENCE)
        append(journal, records)

    monkeypatch.setattr(Journal, "append", slowly)
    changes, provider, clock = Changes(), ReferenceProvider(), SystemClock()
    await provider.start(NodeContext("n1", "10.0.0.1", 110, tmp_path))
    store = Store(tmp_path, keep_secrets=True, clock=clock)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        writing = group.create_task(store.run())
        pods = Pods(store, changes, clock, group.create_task)
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
        assert not [line for line in changes.newer(0) if isinstance(line, EndedLine)], "it is not on the disk yet"
        go_on.set()
        await leaving
        await pods.attach(provider)
        line = await ended(changes, "a")
        writing.cancel()
    await store.close()
    assert line.status is not None
    state = line.status.containers[0].state
    assert isinstance(state, Terminated)
    assert state.exit_code == 3
    await provider.stop()


@pytest.mark.parametrize("grace", [3e11, 2.0**53])
async def test_a_grace_beyond_the_end_of_time_is_cut(tmp_path: Path, grace: float) -> None:
    async with claimed(tmp_path / "state", ReferenceProvider) as agent:
        await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a", restart="Never"), Inputs()))
        await agent.pods.delete(PodKey("default", "a", "a"), Fence(1, 2), grace)
        await ended(agent.changes, "a")


async def test_an_end_that_fails_ends_neither_the_agent_nor_the_hope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever nobody expects of it is in the log, and the next request begins anew."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("no such thing")

    key, failed = PodKey("default", "a", "a"), "the end of a pod has failed"
    with structlog.testing.capture_logs() as log:
        async with claimed(tmp_path / "state", ReferenceProvider) as agent:
            await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs()))
            with monkeypatch.context() as patch:
                patch.setattr(Store, "keep_ending", broken)
                await agent.pods.delete(key, Fence(1, 2), 5)
                while not any(line["event"] == failed for line in log):  # noqa: ASYNC110 - a log tells nobody
                    await asyncio.sleep(0.01)
            await agent.pods.delete(key, Fence(1, 3), 5)
            await ended(agent.changes, "a")
