"""Following logs: of guests that still run, over files that are rotated meanwhile, by many at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.logs.log_files import Rotating, never, written
from wasmlet.provider import LogOptions
from wasmlet.runtime.logs import reader
from wasmlet.runtime.logs.files import open_newest
from wasmlet.runtime.logs.inotify import Watcher
from wasmlet.runtime.logs.reader import Entries, Log, read
from wasmlet.worker.supervisor.compression import compress
from wasmlet.worker.supervisor.crilog import LogFile, Splitter

MOST_EVENTS = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_follow_reads_what_is_added_until_the_end(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "0.log"
    written(path, b"old\n", b"first\n")
    ended = asyncio.Event()

    async def wait_ended() -> None:
        await ended.wait()

    pieces = read(Log(path, ended.is_set, wait_ended, watcher), LogOptions(follow=True, tail_lines=1))
    async with contextlib.aclosing(pieces):
        assert await anext(pieces) == b"first\n"
        for text in (b"second\n", b"third\n"):
            following = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)
            written(path, text)
            assert await following == text
        following = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        written(path, b"last words")
        ended.set()
        assert await following == b"last words"
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)
    assert watcher._files == {}


async def test_followers_share_a_watch_and_leave_one_by_one(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "0.log"
    path.touch()
    part = open_newest(path)
    with watcher.watch(part, path) as one:
        with watcher.watch(part, path) as two:
            written(path, b"x\n")
            await asyncio.wait_for(two.changed.wait(), 30)
            assert one.changed.is_set()
            one.changed.clear()
            assert await one.read(0) is await two.read(0)  # what the one has read, the other need not
        written(path, b"y\n")
        await asyncio.wait_for(one.changed.wait(), 30)
        path.unlink()
    part.close()
    assert watcher._files == {}


async def test_who_comes_when_the_provider_stops_reads_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    written(path, b"first\n")
    watcher, waits, ended = Watcher(), asyncio.Event(), asyncio.Event()

    async def wait_ended() -> None:
        waits.set()
        await ended.wait()

    watcher.close()
    pieces = read(Log(path, ended.is_set, wait_ended, watcher), LogOptions(follow=True))
    async with asyncio.timeout(30), contextlib.aclosing(pieces):
        assert await anext(pieces) == b"first\n"
        following = asyncio.ensure_future(anext(pieces))
        await waits.wait()
        written(path, b"last words")
        ended.set()
        assert await following == b"last words"


async def test_follow_a_guest(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("print", "1", "sleep", "1", "print", "2", image=image))
    assert await runtime.logged(key, b"1\n") == b"1\n"
    assert await runtime.output(key) == b"1\n2\n"


async def test_follow_ends_when_the_pod_is_deleted(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("print", "up", "sleep", "1000", image=image))
    await runtime.running(key)
    following = asyncio.ensure_future(runtime.output(key))
    await runtime.logged(key, b"up")
    await runtime.provider.delete_pod(key, 30)
    assert await following == b"up\n"


async def test_follow_across_files(tmp_path: Path, watcher: Watcher) -> None:
    log = Rotating(tmp_path / "0.log", 3)
    log.write(b"0\n")
    ended = asyncio.Event()

    async def wait_ended() -> None:
        await ended.wait()

    source = Log(log.path, ended.is_set, wait_ended, watcher)
    text = b""
    pieces = read(source, LogOptions(follow=True))
    async with asyncio.timeout(30), contextlib.aclosing(pieces):
        text += await anext(pieces)
        for number in range(1, 8):
            following = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)
            log.rotate()
            log.write(b"%d\n" % number)
            text += await following
        assert text == b"".join(b"%d\n" % number for number in range(8))
        # Slower than the log: it goes on with the oldest file that is left.
        for number in range(8, 14):
            log.write(b"%d\n" % number)
            log.rotate()
        log.write(b"last words")
        log.finish()
        ended.set()
        rest = b"".join([piece async for piece in pieces])
        assert rest == b"8\n12\n13\nlast words"  # the file it was in stays readable
    assert watcher._files == {}


async def test_follow_waits_for_the_file_after_a_full_one(tmp_path: Path, watcher: Watcher) -> None:
    """The shim renames a full file first and makes the next one later."""
    log = Rotating(tmp_path / "0.log")
    log.write(b"first\n")
    waits = asyncio.Semaphore(0)

    async def wait_ended() -> None:
        waits.release()  # the reader has seen all that there is
        await asyncio.Event().wait()

    pieces = read(Log(log.path, lambda: False, wait_ended, watcher), LogOptions(follow=True))
    async with asyncio.timeout(30), contextlib.aclosing(pieces):
        assert await anext(pieces) == b"first\n"
        following = asyncio.ensure_future(anext(pieces))
        await waits.acquire()
        os.rename(log.path, f"{log.path}.1")
        await waits.acquire()
        written(log.path, b"last\n")
        assert await following == b"last\n"
    log.log.close()
    assert watcher._files == {}


@pytest.mark.parametrize("most", [2, 3])
async def test_follow_gets_to_the_last_line_however_often_a_log_is_rotated(
    tmp_path: Path, watcher: Watcher, most: int
) -> None:
    """The writer waits for the reader now and then only, and outruns it meanwhile."""
    pauses, count = 40, 30
    read_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def await_reader() -> None:
        asyncio.run_coroutine_threadsafe(read_on.wait(), loop).result()
        loop.call_soon_threadsafe(read_on.clear)

    def flood() -> None:
        log = LogFile(str(tmp_path / "0.log"), 1000, most, compress)
        log.open()
        for pause in range(pauses):
            for line in range(count):
                log.write(b"1 stdout F %d %d %s\n" % (pause, line, b"x" * 300))
            log.write(b"1 stdout F pause %d\n" % pause)
            await_reader()
        log.close()

    (tmp_path / "0.log").touch()
    source = Log(tmp_path / "0.log", lambda: False, never, watcher)
    pieces = read(source, LogOptions(follow=True))
    text = b""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group, contextlib.aclosing(pieces):
        writer = group.create_task(asyncio.to_thread(flood))
        for pause in range(pauses):
            while not text.endswith(b"pause %d\n" % pause):
                text += await anext(pieces)
            read_on.set()
        await writer
    lines = [line.split() for line in text.splitlines() if not line.startswith(b"pause")]
    numbers = [(int(pause), int(line)) for pause, line, _ in lines]
    assert numbers == sorted(set(numbers))
    assert watcher._files == {}


async def test_when_the_kernel_drops_events_every_follower_looks(tmp_path: Path, watcher: Watcher) -> None:
    paths = [tmp_path / name for name in ("0.log", "1.log", "2.log")]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("ab", buffering=0)) for path in paths]
        parts = [stack.enter_context(contextlib.closing(open_newest(path))) for path in paths]
        followers = [stack.enter_context(watcher.watch(*both)) for both in zip(parts, paths, strict=True)]
        for _ in range(MOST_EVENTS // 2 + 1):  # the kernel makes one of two events that are the same
            files[0].write(b"x")
            files[1].write(b"x")
        files[2].write(b"x")
        await asyncio.wait_for(followers[2].changed.wait(), 30)
        assert await followers[2].read(0) == b"x"


async def test_many_followers_read_once(tmp_path: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    pread = os.pread

    def counted(file: int, size: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        return pread(file, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    log = Rotating(tmp_path / "0.log")
    ended = asyncio.Event()

    async def wait_ended() -> None:
        await ended.wait()

    source = Log(log.path, ended.is_set, wait_ended, watcher)
    arrived = asyncio.Semaphore(0)

    async def follow() -> bytes:
        text = b""
        async for piece in read(source, LogOptions(follow=True)):
            text += piece
            arrived.release()
        return text

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        followers = [group.create_task(follow()) for _ in range(200)]
        before = 0
        for number in range(5):
            log.write(b"line %d\n" % number)
            for _ in followers:
                await arrived.acquire()
            if number == 0:
                before = reads  # by now all of them follow
        assert reads - before < len(followers)  # four lines: 800 if each read for itself
        log.finish()
        ended.set()
    assert {follower.result() for follower in followers} == {b"".join(b"line %d\n" % n for n in range(5))}


async def test_a_flood_is_read_while_it_is_rotated(flooded: Runtime, image: str) -> None:
    key = await flooded.create(pod_of("flood", "20000", "print", "the end", image=image))
    text = await flooded.output(key)
    assert text.endswith(b"the end\n")
    files = list((flooded.state_dir / "runtime" / "logs").rglob(f"{key.uid},*"))
    assert len(files) == 3
    assert sum(path.stat().st_size for path in files) <= 3 * 100_000
    assert len(await flooded.log(key, tail_lines=2000)) == 1999 * 64 + 8
    assert (await flooded.log(key)).endswith(b"the end\n")


@pytest.fixture
async def flooded(tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """A provider whose logs are small."""
    config = WasmtimeProvider.Config(allow_local_modules=True, container_log_max_size="100k", container_log_max_files=3)
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as started:
        yield started


async def test_who_follows_reads_on_after_the_disk_was_full(tmp_path: Path, watcher: Watcher) -> None:
    """An entry of which the disk took a part is read once, and so is what comes after it."""
    path = tmp_path / "logs" / "0.log"
    log, splitter = LogFile(str(path)), Splitter("stdout")
    log.open()
    before, entry = splitter.feed(b"before\n", 1), splitter.feed(b"cut in two\n", 2)
    log.write(before)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, limit[1]))
    try:
        log.write(entry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    found, seen = b"", b""
    following = reader.pieces(Log(path, lambda: False, never, watcher), lambda: (open_newest(path), 0), follow=True)
    entries = Entries(b"", False)
    async with asyncio.timeout(30), contextlib.aclosing(following):
        async for _, data in following:
            found, seen = found + data, seen + entries.feed(data)
            if found == (before + entry)[: len(before) + 40]:
                log.write(splitter.feed(b"after\n", 3))
            if b"after\n" in seen:
                break
    log.close()
    assert seen == b"before\ncut in two\nafter\n"
