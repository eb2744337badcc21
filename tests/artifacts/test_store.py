"""The store: shared by processes, whole whatever kills one, and never without what is in use."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.artifacts.modules import left_in, module, sha
from wasmlet.artifacts import collection
from wasmlet.artifacts.collection import Limits
from wasmlet.artifacts.errors import BadContent, StoreError
from wasmlet.artifacts.files import Part
from wasmlet.artifacts.listing import Listed, listed
from wasmlet.artifacts.references import parse
from wasmlet.artifacts.store import Image, Lease, Store
from wasmlet.clock import SystemClock
from wasmlet.testing import FakeClock

MANIFEST = b'{"a manifest": 1}'


async def keep(store: Store, reference: str, data: bytes, manifest: bytes = MANIFEST) -> Image:
    """Have an image in the store, as a pull leaves it."""

    async def bring(content: bytes) -> None:
        await store.add(sha(content), lambda part: part.write(content))

    await bring(data)
    await bring(manifest)
    image = Image(sha(manifest), sha(data), len(data), (sha(manifest), sha(data)))
    store.record(parse(reference), image)
    return image


def age(store: Store, seconds: float) -> None:
    """Make everything in the store that much older."""
    for path in left_in(store):
        found = path.stat().st_mtime - seconds
        os.utime(path, (found, found))


async def test_what_is_kept_is_found_by_tag_and_digest(store: Store) -> None:
    image = await keep(store, "r.example/app:v1", module())
    for reference in ("r.example/app:v1", f"r.example/app@{sha(MANIFEST)}", f"r.example/app:other@{sha(MANIFEST)}"):
        lease = store.find(parse(reference))
        assert lease is not None
        with lease:
            assert lease.image == image
            assert lease.path.read_bytes() == module()
    for reference in ("r.example/app:v2", f"r.example/other@{sha(MANIFEST)}", f"r.example/app:v1@sha256:{'0' * 64}"):
        assert store.find(parse(reference)) is None


async def test_another_node_loop_finds_it(store: Store) -> None:
    image = await keep(store, "r.example/app:v1", module())
    second = Store(store.directory, SystemClock())
    second.prepare()
    with second.find(parse("r.example/app:v1")) or pytest.fail("not found") as lease:
        assert lease.image == image


async def test_what_has_another_digest_does_not_stay(store: Store) -> None:
    with pytest.raises(BadContent, match="another digest"):
        await store.add(sha(b"this"), lambda part: part.write(b"that"))
    assert left_in(store) == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"digest": 1}', b'{"digest": "../../x"}', None])
async def test_damaged_records_are_as_none(store: Store, damage: bytes | None) -> None:
    image = await keep(store, "r.example/app:v1", module())
    record = store.images / image.digest.replace(":", "-")
    if damage is None:
        store.blob(image.module).unlink()
    else:
        record.write_bytes(damage)
    assert store.find(parse("r.example/app:v1")) is None
    await keep(store, "r.example/app:v1", module())
    with store.find(parse("r.example/app:v1")) or pytest.fail("not found") as lease:
        assert lease.image == image


def test_a_store_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o777)
    with pytest.raises(StoreError, match="written by us only"):
        Store(tmp_path / "s", SystemClock()).prepare()


def test_a_store_of_another_format_is_refused(store: Store) -> None:
    (store.directory / "format").write_text("2\n")
    with pytest.raises(StoreError, match="has format '2', expected 1"):
        store.prepare()


BRINGS = """
import asyncio, sys
from pathlib import Path
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from tests.artifacts.modules import module, sha

async def main(directory, how):
    store = Store(Path(directory), SystemClock())
    store.prepare()
    data = module(2_000_000)
    async def fill(part):
        await part.write(data[:1_000_000])
        print("half", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await part.write(data[1_000_000:])
    await store.add(sha(data), fill)
    print("whole", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def bring(store: Store) -> asyncio.subprocess.Process:
    """A process that brings a blob, and stands in the middle until it is told."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", BRINGS, store.directory, "", stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[2]
    )


async def said(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def test_two_processes_bring_a_blob_once(store: Store) -> None:
    first = await bring(store)
    assert await said(first) == "half"
    never = []

    async def fill(part: Part) -> None:
        never.append(part)

    data = module(2_000_000)
    waiting = asyncio.create_task(store.add(sha(data), fill))
    assert first.stdin is not None
    first.stdin.write(b"go on\n")
    assert (await waiting).read_bytes() == data
    assert await said(first) == "whole"
    await first.wait()
    assert never == []
    assert left_in(store) == [store.blob(sha(data))]


async def test_a_process_that_is_killed_in_the_middle(store: Store) -> None:
    first = await bring(store)
    assert await said(first) == "half"
    data = module(2_000_000)
    waiting = asyncio.create_task(store.add(sha(data), lambda part: part.write(data)))
    first.send_signal(signal.SIGKILL)
    assert (await waiting).read_bytes() == data
    await first.wait()
    assert len(left_in(store)) == 2  # what it was writing
    age(store, 120)
    store.prepare()
    assert left_in(store) == [store.blob(sha(data))]


KEEPS = """
import asyncio, sys
from pathlib import Path
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from tests.artifacts.modules import module
from tests.artifacts.test_store import keep

async def main(directory):
    store = Store(Path(directory), SystemClock())
    store.prepare()
    for i in range(100_000):
        await keep(store, f"r.example/app:v{i % 7}", module(i % 5), b"manifest %d" % (i % 5))
        if i == 0:
            print("begun", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_process_that_is_killed_at_any_instruction(store: Store) -> None:
    rng = random.Random(7)
    for _ in range(5):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KEEPS, store.directory, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert await said(process) == "begun"
        await asyncio.sleep(rng.random() / 20)  # the instruction it dies at
        process.kill()
        await process.wait()
        store.prepare()
        for i in range(7):
            if (lease := store.find(parse(f"r.example/app:v{i}"))) is not None:
                with lease:
                    assert sha(lease.path.read_bytes()) == lease.image.module
    age(store, 1000)
    collected(store, Limits(), 0)
    assert [path for path in left_in(store) if path.suffix == ".part"] == []


def collected(store: Store, limits: Limits, *usage: float) -> collection.Collected:
    """Collect; the file system is as full as `usage` says, one number for each time that it is asked."""
    asked = list(usage)
    return collection.collect(store, limits, FakeClock(), lambda _: asked.pop(0) if len(asked) > 1 else asked[0])


async def images(store: Store, count: int) -> list[Image]:
    """Some images, the first of them used longest ago, all of them long ago."""
    made = []
    for i in range(count):
        made.append(await keep(store, f"r.example/app:v{i}", module(i), b"manifest %d" % i))
        age(store, 1000)
    return made


def here(store: Store, wanted: list[Image]) -> list[bool]:
    """Which of the images are there, and whole; does not count as use."""
    return [
        (store.images / one.digest.replace(":", "-")).exists() and store.blob(one.module).exists() for one in wanted
    ]


async def test_what_was_not_used_for_long_goes(store: Store) -> None:
    made = await images(store, 3)
    result = collected(store, Limits(max_age=1500), 0)
    assert set(result.images) == {made[0].digest, made[1].digest}
    assert here(store, made) == [False, False, True]
    assert store.find(parse("r.example/app:v0")) is None


async def test_above_the_high_mark_the_oldest_go_until_the_low_one(store: Store) -> None:
    made = await images(store, 4)
    assert collected(store, Limits(high=85, low=80), 85).images == ()
    result = collected(store, Limits(high=85, low=80), 90, 90, 83, 79, 79, 79)
    assert result.images == (made[0].digest, made[1].digest)
    assert here(store, made) == [False, False, True, True]
    assert not result.full


async def test_what_is_in_use_or_young_stays(store: Store) -> None:
    made = await images(store, 2)
    lease = Store(store.directory, SystemClock()).find(parse("r.example/app:v0"))
    assert isinstance(lease, Lease)
    age(store, 1000)
    result = collected(store, Limits(high=50, low=0, max_age=10), 99)
    assert result.images == (made[1].digest,)
    assert result.full
    assert here(store, made) == [True, False]
    lease.close()  # which was its last use
    assert collected(store, Limits(high=50, low=0), 99).images == ()
    age(store, 1000)
    assert collected(store, Limits(high=50, low=0), 99).images == (made[0].digest,)
    assert left_in(store) == []


async def test_blobs_that_images_share_stay_until_the_last_goes(store: Store) -> None:
    first = await keep(store, "r.example/app:v1", module(), b"one")
    age(store, 1000)
    second = await keep(store, "r.example/app:v2", module(), b"two")
    age(store, 1000)
    assert collected(store, Limits(max_age=1500), 0).images == (first.digest,)
    assert here(store, [second]) == [True]


async def test_blobs_that_nothing_names_go(store: Store) -> None:
    await store.add(sha(b"orphan"), lambda part: part.write(b"orphan"))
    collected(store, Limits(), 0)
    assert store.blob(sha(b"orphan")).exists()
    age(store, 100)
    collected(store, Limits(), 0)
    assert left_in(store) == []


async def test_what_is_here_is_listed_the_largest_first(store: Store) -> None:
    small = await keep(store, "r.example/app:v1", module(1), b"small")
    large = await keep(store, "r.example/app:v2", module(1000), b"large")
    store.refer(parse("other.example/app:v3"), large)
    store.refer(parse(f"other.example/app:v4@{large.digest}"), large)
    (store.references / "damaged").write_text("{")
    assert listed(store) == [
        Listed(
            (
                f"other.example/app@{large.digest}",
                f"r.example/app@{large.digest}",
                "other.example/app:v3",
                "r.example/app:v2",
            ),
            large.size,
        ),
        Listed((f"r.example/app@{small.digest}", "r.example/app:v1"), small.size),
    ]
