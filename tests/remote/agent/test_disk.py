"""What an agent keeps on its disk: where that is full, and where the machine loses power."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import structlog
from wasmlet_agent.pods.fences import Fence
from wasmlet_agent.pods.journal import Journal
from wasmlet_agent.pods.store import KeptEnd, KeptPod
from wasmlet_agent.pods.writing import Writing
from wasmlet_agent.protocol.codec import encode
from wasmlet_agent.protocol.messages import EndedLine, PodRequest, StatusLine

from tests.node.trouble import FastClock
from tests.remote.agents import PATIENCE, pod
from tests.remote.beside import claimed
from wasmlet import ContainerStatus, Inputs, PodKey, PodStatus, Running, SystemClock, Terminated
from wasmlet.testing import ReferenceProvider


async def test_what_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    """A file that may not grow is as a disk that is full: some of a line may still go there."""
    journal, told = tmp_path / "state" / "journal", "the state directory cannot be written, trying again"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with structlog.testing.capture_logs() as log:
        async with claimed(tmp_path / "state", ReferenceProvider, FastClock(20)) as agent:
            await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs()))
            await kept(journal, "status/a")
            resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 10, hard))
            try:
                for uid in ("b", "c"):
                    await agent.pods.create(uid, Fence(1, 1), "", PodRequest(pod(uid), Inputs()))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            await kept(journal, *(f"{kind}/{uid}" for kind in ("pod", "status") for uid in ("b", "c")))
            assert {uid for uid in "abc" if agent.pods.key(uid)} == set("abc"), "they run nevertheless"
    events = [line["event"] for line in log]
    assert events.count(told) >= 1
    assert events.count("a pod cannot be kept: it does not outlive this agent") == 2


async def test_a_disk_that_fails_ends_no_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "no more")

    with structlog.testing.capture_logs() as log:
        async with claimed(tmp_path / "state", ReferenceProvider) as agent:
            with monkeypatch.context() as patch:
                patch.setattr("os.fdatasync", broken)
                await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs()))
                await agent.pods.delete(PodKey("default", "a", "a"), Fence(1, 2), 0)
                while not any(isinstance(line, EndedLine) for line in agent.changes.newer(0)):
                    await agent.changes.told.wait()
    events = [line["event"] for line in log]
    assert "a pod cannot be kept: it does not outlive this agent" in events
    assert "the end of a pod cannot be kept" in events


async def test_what_was_told_last_is_kept_by_an_agent_that_stops(tmp_path: Path) -> None:
    provider = ReferenceProvider()
    async with claimed(tmp_path / "state", lambda: provider) as agent:
        await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs()))
        n = agent.changes.n
        provider.finish(PodKey("default", "a", "a"), 7)
        while agent.changes.n <= n:
            await agent.changes.told.wait()
    journal = Journal(tmp_path / "state" / "journal")
    assert b'"exit_code":7' in dict(journal.records())["status/a"]
    journal.close()


async def test_what_the_disk_has_not_taken_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next wait for the disk may pass over it."""
    journal, synced = tmp_path / "state" / "journal", list[bytes]()
    written_again, loop = asyncio.Event(), asyncio.get_running_loop()

    def fdatasync(descriptor: int) -> None:
        synced.append(journal.read_bytes())
        if len(synced) == 1:
            raise OSError(errno.EIO, "no more")
        loop.call_soon_threadsafe(written_again.set)

    with structlog.testing.capture_logs() as log:
        async with claimed(tmp_path / "state", ReferenceProvider, FastClock(20)) as agent:
            monkeypatch.setattr("os.fdatasync", fdatasync)
            await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs()))
            await written_again.wait()
            assert [content.count(b"pod/a {") for content in synced] == [1, 2]
    assert [line["event"] for line in log].count("the state directory does not reach the disk, trying again") == 1


@contextlib.asynccontextmanager
async def writing(path: Path) -> AsyncIterator[Writing]:
    """What writes a journal, once the context has begun to wait for it."""
    disk = Journal(path)
    found = Writing(disk, FastClock(20))
    task = asyncio.create_task(found.run())
    try:
        async with asyncio.timeout(PATIENCE):
            yield found
    finally:
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(found.finish)
        disk.close()


async def test_what_is_written_again_is_no_older_than_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that was taken on and is gone when the disk says that it has not taken it."""
    waits, again, go_on = asyncio.Event(), asyncio.Event(), threading.Event()
    loop, path = asyncio.get_running_loop(), tmp_path / "journal"

    def fdatasync(descriptor: int) -> None:
        if not go_on.is_set():
            loop.call_soon_threadsafe(waits.set)
            assert go_on.wait(PATIENCE)
            raise OSError(errno.EIO, "no more")
        loop.call_soon_threadsafe(again.set)

    async with writing(path) as disk:
        monkeypatch.setattr("os.fdatasync", fdatasync)
        taken_on = disk.put({"pod/a": b"{}", "pod/b": b"{}"}, durable=True)
        await waits.wait()
        await disk.put({"pod/a": None}).written
        go_on.set()
        with pytest.raises(OSError, match="no more"):
            await taken_on.durable
        await again.wait()
    journal = Journal(path)
    assert set(dict(journal.records())) == {"pod/b"}
    journal.close()


async def test_what_is_asked_for_last_is_written_last(tmp_path: Path) -> None:
    """An end comes before the line that its pod is gone, whatever was to be written of the pod before."""
    path = tmp_path / "journal"
    async with writing(path) as disk:
        await disk.put({"pod/a": b"{}"}).written
        disk.put({"pod/a": b"{}", "pod/b": b"{}"})
        await disk.put({"end/a": b"{}", "pod/a": None}).written
        assert path.read_bytes() == b"pod/a {}\npod/b {}\nend/a {}\npod/a\n"


async def test_a_pod_ends_when_it_is_written_that_it_is_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next process starts it again, where this one is killed."""
    waits, ends, go_on = asyncio.Event(), asyncio.Event(), threading.Event()
    loop, provider, append = asyncio.get_running_loop(), ReferenceProvider(), Journal.append
    journal = tmp_path / "state" / "journal"

    def slow(self: Journal, changes: Mapping[str, bytes | None]) -> None:
        if "ending/a" in changes and changes["ending/a"] is not None:
            loop.call_soon_threadsafe(waits.set)
            assert go_on.wait(PATIENCE)
        append(self, changes)

    async def delete_pod(key: PodKey, grace_seconds: float) -> PodStatus | None:
        ends.set()
        assert b"ending/a {" in journal.read_bytes()
        return await delete(key, grace_seconds)

    async with claimed(tmp_path / "state", lambda: provider) as agent:
        delete = provider.delete_pod
        monkeypatch.setattr(provider, "delete_pod", delete_pod)
        monkeypatch.setattr(Journal, "append", slow)
        await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs()))
        await agent.pods.delete(PodKey("default", "a", "a"), Fence(1, 2), 0)
        await waits.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not ends.is_set()
        go_on.set()
        await ends.wait()


async def kept(journal: Path, *names: str) -> None:
    """Wait until these records are in the file."""

    def there() -> bool:
        content = journal.read_bytes()
        return all(name.encode() + b" {" in content for name in names)

    while not await asyncio.to_thread(there):  # noqa: ASYNC110 - a disk tells nobody
        await asyncio.sleep(0.01)


def syncs(journal: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was in the journal whenever it was on the disk, from now on."""
    synced: list[bytes] = []
    monkeypatch.setattr("os.fdatasync", lambda _: synced.append(journal.read_bytes()))
    return synced


async def test_what_a_node_loop_was_told_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that was taken on, one that was handed over again, and the end of one."""
    journal = tmp_path / "state" / "journal"
    async with claimed(tmp_path / "state", ReferenceProvider) as agent:
        synced = syncs(journal, monkeypatch)
        await agent.pods.create("a", Fence(1, 1), "first", PodRequest(pod("a"), Inputs()))
        assert b'"first"' in synced[-1]
        await agent.pods.create("a", Fence(1, 2), "second", PodRequest(pod("a"), Inputs()))
        assert b'"second"' in synced[-1]
        await agent.pods.delete(PodKey("default", "a", "a"), Fence(1, 3), 0)
        while not any(isinstance(line, EndedLine) for line in agent.changes.newer(0)):
            await agent.changes.told.wait()
        assert b"end/a {" in synced[-1]


async def test_many_pods_wait_for_the_disk_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uids = [f"u{number}" for number in range(50)]
    async with claimed(tmp_path / "state", ReferenceProvider) as agent:
        synced = syncs(tmp_path / "state" / "journal", monkeypatch)
        async with asyncio.TaskGroup() as group:
            for uid in uids:
                group.create_task(agent.pods.create(uid, Fence(1, 1), "", PodRequest(pod(uid), Inputs())))
        assert len(synced) <= 3
        for uid in uids:
            await agent.pods.delete(PodKey("default", uid, uid), Fence(1, 2), 0)
        while sum(isinstance(line, EndedLine) for line in agent.changes.newer(0)) < len(uids):
            await agent.changes.told.wait()
        assert len(synced) <= 8


async def test_secrets_that_are_kept_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, and then its name."""
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.partition(".json")[0])

    secret = {"s": {"metadata": {"name": "s"}, "data": {"key": "dg=="}}}
    async with claimed(tmp_path / "state", ReferenceProvider, keep_secrets=True) as agent:
        monkeypatch.setattr("os.fsync", fsync)
        await agent.pods.create("a", Fence(1, 1), "", PodRequest(pod("a"), Inputs(secrets=secret)))
        assert synced == [".a", "secrets"]
        monkeypatch.undo()


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
        monkeypatch.setattr("os.fdatasync", fsync)
        creating = asyncio.create_task(agent.pods.create("a", Fence(1, 1), "", request))
        await waits.wait()
        await ended.wait()
        listing = asyncio.create_task(agent.pods.listed())
        await asyncio.sleep(0)
        assert not creating.done()
        assert not listing.done()
        assert not [line for line in agent.changes.newer(0) if isinstance(line, StatusLine)]
        # A process that is killed now leaves to the next one that the pod has ended.
        await kept(tmp_path / "state" / "journal", "status/a")
        go_on.set()
        await creating
        (listed,) = await listing
        (line,) = (line for line in agent.changes.newer(0) if isinstance(line, StatusLine))
        assert line.status == listed.status
        assert isinstance(line.status.containers[0].state, Terminated)


async def test_an_end_outweighs_the_pod_that_a_loss_of_power_brought_back(tmp_path: Path) -> None:
    """The end was on the disk; that the pod is gone was not. A pod that came after its end stays."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    now = SystemClock().now()
    end = PodStatus((ContainerStatus("main", Terminated(3, started_at=now, finished_at=now)),))
    disk = Journal(directory / "journal")
    for uid, sequence in (("old", 1), ("again", 5)):
        pods = KeptPod(pod(uid), Inputs(), "digest", Fence(1, sequence))
        disk.append({f"end/{uid}": encode(KeptEnd(end, Fence(1, 2), now)), f"pod/{uid}": encode(pods)})
    disk.close()
    async with claimed(directory, ReferenceProvider) as agent:
        (listed,) = await agent.pods.listed()
        assert listed.key.uid == "again"
        assert isinstance(listed.status.containers[0].state, Running)
        told = {line.uid: line.status for line in agent.changes.newer(0) if isinstance(line, EndedLine)}
        assert told["old"] == end
    disk = Journal(directory / "journal")
    assert "pod/old" not in dict(disk.records())
    disk.close()


async def test_nothing_stays_of_a_pod_that_was_dropped_when_the_machine_went_off(tmp_path: Path) -> None:
    """Its record was taken away, and not yet what had been written of its status and of its end."""
    directory = tmp_path / "state"
    async with claimed(directory, ReferenceProvider) as agent:
        await agent.pods.create("a", Fence(1, 1), "digest", PodRequest(pod("a"), Inputs()))
    disk = Journal(directory / "journal")
    ending = b'{"ends_at": "2026-05-01T12:00:00Z", "keeps": false}'
    disk.append({"pod/a": None, "ending/a": ending, "ending/b": ending})
    assert {name for name, _ in disk.records()} == {"ending/a", "ending/b", "status/a"}
    disk.close()
    async with claimed(directory, ReferenceProvider) as agent:
        assert await agent.pods.listed() == ()
    disk = Journal(directory / "journal")
    assert list(disk.records()) == []
    disk.close()
