"""What an agent keeps on its disk: where that is full, and where the machine loses power."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import structlog
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.store import KeptEnd, KeptPod, Store
from wasmlet_agent.protocol.messages import EndedLine, PodRequest, StatusLine

from tests.node.trouble import FastClock
from tests.remote.agents import PATIENCE, pod
from tests.remote.beside import claimed
from wasmlet import ContainerStatus, Inputs, PodKey, PodStatus, Running, SystemClock, Terminated
from wasmlet.testing import ReferenceProvider


async def test_statuses_that_cannot_be_written_are_written_later(tmp_path: Path) -> None:
    directory, away = tmp_path / "state" / "statuses", tmp_path / "away"
    told = "statuses of pods cannot be kept, trying again"
    with structlog.testing.capture_logs() as log:
        async with claimed(tmp_path / "state", ReferenceProvider, FastClock(20)) as agent:
            directory.rename(away)
            for uid in ("a", "b"):
                await agent.pods.create(uid, Fence(1, 1), "", PodRequest(pod(uid), Inputs()))
            while not any(line["event"] == told for line in log):  # noqa: ASYNC110 - nobody else is told
                await asyncio.sleep(0.01)
            await agent.pods.create("c", Fence(1, 1), "", PodRequest(pod("c"), Inputs()))
            away.rename(directory)
            while len(list(directory.glob("*.json"))) < 3:  # noqa: ASYNC110 - a disk tells nobody
                await asyncio.sleep(0.01)
    assert [line["event"] for line in log].count(told) == 1


def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is waited for until it is on the disk, from now on."""
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.partition(".json")[0])

    monkeypatch.setattr("os.fsync", fsync)
    return synced


async def test_what_a_node_loop_was_told_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that was taken on, and the end of one: the file, and then its name."""
    async with claimed(tmp_path / "state", ReferenceProvider) as agent:
        synced = syncs(monkeypatch)
        await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs()))
        assert synced == ["a", "pods"]
        await agent.pods.create("a", Fence(1, 2), "", PodRequest(pod("a"), Inputs()))
        assert synced == ["a", "pods", ".a", "pods"], "what was there is replaced by what is on the disk"
        await agent.pods.delete(PodKey("default", "a", "a"), Fence(1, 3), 0)
        while not any(isinstance(line, EndedLine) for line in agent.changes.newer(0)):
            await agent.changes.told.wait()
        assert synced[4:] == [".a", ".a", "ends"], "that it is to end, whole, and how it has ended"


def test_secrets_that_are_kept_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = syncs(monkeypatch)
    disk, secret = Store(tmp_path, keep_secrets=True), {"s": {"metadata": {"name": "s"}, "data": {"key": "dg=="}}}
    kept = KeptPod(pod("a"), Inputs(secrets=secret), "digest", Fence(1, 1))
    disk.keep("a", kept, durable=False)
    assert synced == []
    disk.sync("a")
    assert synced == ["a", "secrets", "a", "pods"]


async def test_a_pod_starts_while_its_file_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is answered for, and told to run, when it is there: else it might run twice after a loss of power."""
    waits, ended, go_on = asyncio.Event(), asyncio.Event(), threading.Event()
    loop, provider = asyncio.get_running_loop(), ReferenceProvider()
    request = PodRequest(pod("a", "exit", "3", restart="Never"), Inputs())

    def fsync(descriptor: int) -> None:
        loop.call_soon_threadsafe(waits.set)
        assert go_on.wait(PATIENCE)

    def saw(key: PodKey, status: PodStatus) -> None:
        pass_on(key, status)
        if isinstance(status.containers[0].state, Terminated):
            ended.set()

    async with claimed(tmp_path / "state", lambda: provider) as agent:
        pass_on = agent.pods.saw
        monkeypatch.setattr(agent.pods, "saw", saw)
        monkeypatch.setattr("os.fsync", fsync)
        creating = asyncio.create_task(agent.pods.create("a", Fence(1, 1), "", request))
        await waits.wait()
        await ended.wait()
        listing = asyncio.create_task(agent.pods.listed())
        await asyncio.sleep(0)
        assert not creating.done()
        assert not listing.done()
        assert not [line for line in agent.changes.newer(0) if isinstance(line, StatusLine)]
        go_on.set()
        await creating
        (listed,) = await listing
        (line,) = (line for line in agent.changes.newer(0) if isinstance(line, StatusLine))
        assert line.status == listed.status
        assert isinstance(line.status.containers[0].state, Terminated)


async def test_an_end_outweighs_the_pod_that_a_loss_of_power_brought_back(tmp_path: Path) -> None:
    """The end was on the disk; that the pod's own file was removed was not. A pod that came after its end stays."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    now = SystemClock().now()
    end = PodStatus((ContainerStatus("main", Terminated(3, started_at=now, finished_at=now)),))
    disk = Store(directory, keep_secrets=True)
    for uid, sequence in (("old", 1), ("again", 5)):
        disk.end(uid, KeptEnd(end, Fence(1, 2), now))
        disk.keep(uid, KeptPod(pod(uid), Inputs(), "digest", Fence(1, sequence)))
    async with claimed(directory, ReferenceProvider) as agent:
        (listed,) = await agent.pods.listed()
        assert listed.key.uid == "again"
        assert isinstance(listed.status.containers[0].state, Running)
        assert not (directory / "pods" / "old.json").exists()
        told = {line.uid: line.status for line in agent.changes.newer(0) if isinstance(line, EndedLine)}
        assert told["old"] == end
