"""Reading logs: every option, over files as the shim writes them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.logs.log_files import LINE, START, Rotating, whole, written
from wasmlet.errors import InvalidInput, NotFound
from wasmlet.runtime.logs.files import Part
from wasmlet.runtime.logs.inotify import Watcher
from wasmlet.runtime.logs.reader import Entries, tail_offset
from wasmlet.worker.supervisor.crilog import MAX_LINE, Splitter


async def test_options(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "0.log"
    long = b"x" * (2 * MAX_LINE + 10)
    written(path, b"one\n", b"two\nthree\n", long + b"\n", b"last")
    assert await whole(path, watcher) == b"one\ntwo\nthree\n" + long + b"\nlast"
    assert await whole(path, watcher, tail_lines=0) == b""
    assert await whole(path, watcher, tail_lines=1) == b"last"
    assert await whole(path, watcher, tail_lines=2) == long + b"\nlast"
    assert await whole(path, watcher, tail_lines=3) == b"three\n" + long + b"\nlast"
    assert await whole(path, watcher, tail_lines=99) == await whole(path, watcher)
    assert await whole(path, watcher, since_time=START + timedelta(seconds=3)) == b"last"
    assert await whole(path, watcher, since_time=START + timedelta(seconds=0.5), limit_bytes=5) == b"two\nt"
    assert await whole(path, watcher, since_time=START + timedelta(seconds=3), tail_lines=5) == b"last"
    assert await whole(path, watcher, since_time=START + timedelta(hours=1)) == b""
    assert await whole(path, watcher, limit_bytes=1) == b"o"
    stamped = await whole(path, watcher, timestamps=True, tail_lines=2)
    assert stamped == b"2026-01-02T03:04:07.000000000Z " + long + b"\n2026-01-02T03:04:09.000000000Z last"


async def test_a_log_that_is_gone(tmp_path: Path, watcher: Watcher) -> None:
    with pytest.raises(NotFound):
        await whole(tmp_path / "none.log", watcher)
    (tmp_path / "empty.log").touch()
    for options in ({}, {"tail_lines": 3}, {"follow": True}, {"since_time": START}):
        assert await whole(tmp_path / "empty.log", watcher, **options) == b""


async def test_what_is_no_entry_is_shown_as_it_is(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"rubbish\n")
    assert await whole(path, watcher, since_time=START) == b"rubbish\n"
    assert await whole(path, watcher, tail_lines=1) == b"rubbish\n"


@given(st.lists(LINE.map(lambda line: line.replace(b"\n", b"")), max_size=12), st.booleans(), st.integers(0, 14))
def test_the_tail_is_the_last_lines(lines: list[bytes], ends: bool, count: int) -> None:
    splitter = Splitter("stdout")
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    file = os.memfd_create("log")
    try:
        os.write(file, splitter.feed(data, 1) + splitter.finish(2))
        offset, _ = tail_offset(Part(1, file, False), count)
        text = Entries(b"", False).feed(os.pread(file, os.fstat(file).st_size, offset or 0))
    finally:
        os.close(file)
    kept = [line + b"\n" for line in data.split(b"\n")]
    kept[-1] = kept[-1][:-1]  # after the last newline there is none
    if not kept[-1]:
        kept.pop()
    assert text == b"".join(kept[len(kept) - min(count, len(kept)) :])


async def test_whatever_a_guest_writes(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("binary", "line", "1000000", "part", "no newline", image=image))
    letters = bytes(ord("a") + i % 26 for i in range(26)) * (1_000_000 // 26 + 1)
    assert await runtime.output(key) == bytes(range(256)) + letters[:1_000_000] + b"\nno newline"


async def test_a_flood(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("flood", "200000", image=image))
    calm = await runtime.create(pod_of("print", "calm", name="calm", image=image))
    assert await runtime.output(calm) == b"calm\n"
    output = await runtime.output(key)
    assert output.count(b"\n") == 200_000
    assert len(set(output.split(b"\n"))) == 2
    assert await runtime.log(key, tail_lines=1) == output[-64:]


async def test_which_log(timed: Runtime, image: str) -> None:
    key = await timed.create(pod_of("print", "x", image=f"{image}.none"))
    await timed.waiting(key, "ErrImagePull")
    with pytest.raises(InvalidInput, match="container main in pod web is waiting to start: ErrImagePull"):
        await timed.log(key)
    with pytest.raises(NotFound, match="previous terminated container main in pod web not found"):
        await timed.log(key, previous=True)
    with pytest.raises(NotFound, match="container other"):
        await timed.log(key, "other")
    again = await timed.create(pod_of("print", "y", "exit", "1", name="again", image=image, restart="Always"))
    await timed.waiting(again, "CrashLoopBackOff")
    # It waits to be run again: the last one to run is the one that both mean.
    assert await timed.log(again) == await timed.log(again, previous=True) == b"y\n"


STEPS = st.lists(
    st.one_of(LINE, st.just(b"\n"), LINE.map(lambda line: line + b"\n"), st.sampled_from(["rotate", "compress"])),
    max_size=24,
)


@settings(max_examples=40)
@given(STEPS, st.integers(0, 12), st.booleans())
def test_the_tail_across_files(steps: list[bytes | str], count: int, newest_empty: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Rotating(Path(directory, "0.log"), 100)
        data = b""
        for step in steps:
            if isinstance(step, bytes):
                log.write(step)
                data += step
            else:
                log.rotate(*([log.log.rotated + 1] if step == "compress" else []))
        log.finish()
        if newest_empty:
            log.rotate()

        async def text(**options: object) -> bytes:
            watcher = Watcher()
            try:
                return await whole(log.path, watcher, **options)
            finally:
                watcher.close()

        assert asyncio.run(text()) == data
        kept = [line + b"\n" for line in data.split(b"\n")]
        kept[-1] = kept[-1][:-1]
        if not kept[-1]:
            kept.pop()
        assert asyncio.run(text(tail_lines=count)) == b"".join(kept[len(kept) - min(count, len(kept)) :])
        size = len(data) // 2
        assert asyncio.run(text(limit_bytes=size)) == data[:size]


async def test_since_across_files(tmp_path: Path, watcher: Watcher) -> None:
    log = Rotating(tmp_path / "0.log")
    for number in range(9):
        log.write(b"%d\n" % number)
        if number % 2:
            log.rotate(*([log.log.rotated] if number < 6 else []))
    log.finish()
    assert set(os.listdir(tmp_path)) == {"0.log", "0.log.1.gz", "0.log.2.gz", "0.log.3", "0.log.4"}
    for first in range(10):
        since = START + timedelta(seconds=first)
        assert await whole(log.path, watcher, since_time=since) == b"".join(b"%d\n" % n for n in range(first, 9))
        both = await whole(log.path, watcher, since_time=since, tail_lines=3)
        assert both == b"".join(b"%d\n" % n for n in range(max(first, 6), 9))
