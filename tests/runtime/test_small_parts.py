"""The small parts: the stream of changes, waiting for the first of several, the machine's capacity, the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop
from wasmlet_wasmtime import WasmtimeEngine, WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from wasmlet.concurrency import first_of
from wasmlet.model.pod import PodKey
from wasmlet.model.status import PodStatus
from wasmlet.provider import PodEvent, StatusChanged
from wasmlet.runtime import machine
from wasmlet.runtime.changes import MAX_EVENTS, Changes
from wasmlet.runtime.shim.instances import Labels

ONE, TWO = PodKey("default", "one", "1"), PodKey("default", "two", "2")


async def test_only_the_newest_status_of_a_pod_is_told() -> None:
    changes = Changes()
    changes.status(ONE, lambda: PodStatus(message="old"))
    changes.status(TWO, lambda: PodStatus(message="two"))
    changes.event(PodEvent(ONE, "Started", "started"))
    changes.status(ONE, lambda: PodStatus(message="new"))
    stream = changes.stream()
    told = [await anext(stream) for _ in range(3)]
    assert told == [
        PodEvent(ONE, "Started", "started"),
        StatusChanged(ONE, PodStatus(message="new")),
        StatusChanged(TWO, PodStatus(message="two")),
    ]
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    changes.status(ONE, lambda: PodStatus(message="newest"))
    assert await following == StatusChanged(ONE, PodStatus(message="newest"))


async def test_a_status_is_worked_out_when_it_is_read_and_told_only_where_it_is_another() -> None:
    changes, news = Changes(), [None, PodStatus(message="two")]
    changes.status(ONE, lambda: news[0])
    changes.status(TWO, lambda: news[1])
    assert await anext(changes.stream()) == StatusChanged(TWO, PodStatus(message="two"))
    changes.status(ONE, lambda: news[0])
    news[0] = PodStatus(message="one")
    assert await anext(changes.stream()) == StatusChanged(ONE, PodStatus(message="one"))


async def test_a_status_that_cannot_be_worked_out_holds_no_other_up() -> None:
    changes = Changes()
    changes.status(ONE, lambda: PodStatus(**{"no such": "field"}))  # type: ignore[arg-type]
    changes.status(TWO, lambda: PodStatus(message="two"))
    assert await anext(changes.stream()) == StatusChanged(TWO, PodStatus(message="two"))


async def test_what_waits_is_bounded() -> None:
    changes = Changes()
    for number in range(MAX_EVENTS + 5):
        changes.event(PodEvent(ONE, "x", str(number)))
    stream = changes.stream()
    first = await anext(stream)
    assert isinstance(first, PodEvent)
    assert first.message == "5"


async def test_a_reader_that_left_misses_nothing() -> None:
    changes = Changes()
    for number in range(3):
        changes.event(PodEvent(ONE, "x", str(number)))
    stream = changes.stream()
    assert (await anext(stream)) == PodEvent(ONE, "x", "0")
    await stream.aclose()
    again = changes.stream()
    assert (await asyncio.wait_for(anext(again), 30)) == PodEvent(ONE, "x", "1")


async def test_first_of() -> None:
    event, other = asyncio.Event(), asyncio.ensure_future(asyncio.sleep(1000))
    event.set()
    await first_of(event.wait(), other)
    assert other.cancelled()

    async def fail() -> None:
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await first_of(fail(), asyncio.sleep(1000))


def test_labels_come_back() -> None:
    labels = Labels(ONE, "main", "main", 3, "file:///x", "sha256:0", 20.0)
    assert Labels.of(labels.as_message()) == labels
    assert Labels.of({}) is None
    assert Labels.of({**labels.as_message(), "pod": "x"}) is None


def test_capacity_is_within_the_machine() -> None:
    capacity = machine.capacity()
    total = int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < int(capacity["memory"].removesuffix("Ki")) <= total
    assert set(capacity) == {"cpu", "memory"}


def test_capacity_respects_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for directory in (one, two):
        directory.mkdir()
    (one / "cpu.max").write_text("50000 100000\n")
    (one / "memory.max").write_text("max\n")
    (two / "memory.limit_in_bytes").write_text(str(64 * 2**20))
    monkeypatch.setattr(machine, "_groups", lambda: iter([("", one), ("memory", two)]))
    assert machine.capacity() == {"cpu": "500m", "memory": "65536Ki"}
    (two / "cpu.cfs_quota_us").write_text("-1")
    (two / "cpu.cfs_period_us").write_text("100000")
    monkeypatch.setattr(machine, "_groups", lambda: iter([("cpu,cpuacct", two), ("x", tmp_path / "none")]))
    assert machine.capacity()["cpu"] == str(int(float(machine.capacity()["cpu"])))


def test_under_uvloop(tmp_path: Path, image: str) -> None:
    async def run() -> None:
        async with Runtime(WasmtimeProvider, tmp_path / "state") as runtime:
            key = await runtime.create(pod_of("print", "up", "sleep", "1000", image=image))
            await runtime.logged(key, b"up\n")
            status = await runtime.provider.delete_pod(key, 30)
            assert status is not None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_the_engine_says_what_it_is() -> None:
    engine = WasmtimeEngine()
    await engine.check()
    assert engine.version.split(".")[0].isdigit()
    assert engine.guest_module.is_file()
