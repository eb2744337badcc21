"""What the shim removes a moment after the end of its container: when, how much at once, and what becomes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.harness import Shim, kill, running, wait_gone, wait_removed
from wasmlet.worker.supervisor.records import Record
from wasmlet.worker.supervisor.removals import DELAY_SECONDS, MOST_AT_ONCE, Removals
from wasmlet.worker.supervisor.store import RECORDS, Store

MOUNTS = [{"path": "/dev", "read_only": False}]


class Timers:
    """What is to be called later."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.due.append((seconds, callback))

    def fire(self) -> float:
        """Call what is due first; after how many seconds that was to be."""
        seconds, callback = self.due.pop(0)
        callback()
        return seconds


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _made(directory: Path, count: int, pod: str = "uid") -> list[str]:
    """The files of so many containers of a pod."""
    files = [f"pods/{pod}/c.{number}-1/said" for number in range(count)]
    for file in files:
        (directory / file).parent.mkdir(parents=True)
        (directory / file).touch()
    return files


def test_a_few_at_a_time_and_no_timer_without_need(directory: Path, timers: Timers) -> None:
    removals = Removals(timers.later)
    assert timers.due == []
    for file in _made(directory, 2 * MOST_AT_ONCE + 1):
        removals.add(file)
    left = []
    assert len(os.listdir("pods/uid")) == 2 * MOST_AT_ONCE + 1
    assert [seconds for seconds, _ in timers.due] == [DELAY_SECONDS]
    while timers.due:
        timers.fire()
        assert len(timers.due) <= 1
        left.append(len(list(directory.glob("pods/uid/*"))))
    assert left == [MOST_AT_ONCE + 1, 1, 0]
    assert os.listdir("pods") == []
    assert not removals.waiting


def test_nothing_waits_when_the_shim_leaves(directory: Path, timers: Timers) -> None:
    removals = Removals(timers.later)
    for file in _made(directory, 20):
        removals.add(file)
    removals.finish()
    assert os.listdir("pods") == []
    timers.fire()
    assert timers.due == []


def test_what_is_gone_or_was_added_to_is_no_error(directory: Path, timers: Timers) -> None:
    removals = Removals(timers.later)
    gone, unnamed, more, whole = _made(directory, 4)
    for file in (gone, unnamed, more, whole, "pods/other/c.0-1/said"):
        removals.add(file)
    os.unlink(gone)
    os.rmdir(os.path.dirname(gone))
    os.unlink(unnamed)
    (directory / more).with_name("more").touch()
    timers.fire()
    assert [str(path.relative_to(directory)) for path in directory.rglob("more")] == ["pods/uid/c.2-1/more"]
    assert os.listdir("pods/uid") == ["c.2-1"]


@pytest.mark.parametrize("replaced", ["pods/uid/c.0-1", "pods/uid"])
def test_no_link_leads_elsewhere(directory: Path, timers: Timers, replaced: str) -> None:
    removals = Removals(timers.later)
    (file,) = _made(directory, 1)
    removals.add(file)
    os.rename(replaced, "elsewhere")
    os.symlink(directory / "elsewhere", replaced)
    timers.fire()
    assert len([path for path in Path("elsewhere").rglob("*") if path.name == "said"]) == 1


def test_a_dropped_record_leaves_what_is_to_be_removed_on_file(directory: Path, timers: Timers) -> None:
    removals = Removals(timers.later)
    store = Store(timers.later, removals)
    files = _made(directory, 3)
    records = [Record(f"{number:08x}", {}, "logs/x", leaving=file) for number, file in enumerate(files)]
    for record in records:
        store.save(record, record.encoded())
    for file in files[1:]:
        removals.add(file)
    store.remove([record.id for record in records])
    for _ in range(2):  # the second time, the file was written anew
        later = Removals(timers.later)
        assert Store(timers.later, later).load(rebooted=False) == []
        assert list(later.waiting) == files[1:]


def _message(pod: str, container: str = "c.0-1") -> dict[str, Any]:
    return {
        "message": {"mount": 0, "path": "said", "make": f"pods/{pod}/{container}", "user": None},
        "mounts": MOUNTS,
    }


def _end(shim: Shim, name: str) -> dict[str, Any]:
    shim.running(name)
    shim.connection.ask("stop", id=name, grace=0)
    return shim.ended(name)


def test_the_next_shim_removes_what_one_that_died_has_left(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    kept, dropped = _made(state, 1, "a") + _made(state, 1, "b")
    record = Record("a" * 16, {}, "logs/x/0.log", "ended", leaving=kept)
    lines = [record.encoded(), json.dumps({"gone": ["b" * 16], "leaving": [dropped]}).encode()]
    (state / RECORDS).write_bytes(b"".join(b"\n" + line for line in lines))
    with running(state) as shim:
        wait_removed(state / "pods" / "a")
        wait_removed(state / "pods" / "b")
        assert [item["id"] for item in shim.connection.ask("list")] == [record.id]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_shim_that_is_killed_leaves_nothing(tmp_path: Path, forgotten: bool) -> None:
    with running(tmp_path / "state") as shim:
        (shim.state / "pods").mkdir()
        names = [shim.run("start", "sleep", "1000", **_message(f"uid-{number}")) for number in range(12)]
        for name in names:
            _end(shim, name)
        if forgotten:
            assert shim.connection.ask("forget", ids=names) == {"count": len(names)}
        kill(shim.pid)
        shim.restart()
        for number in range(12):
            wait_removed(shim.state / "pods" / f"uid-{number}")
        assert len(shim.connection.ask("list")) == (0 if forgotten else len(names))


def test_a_shim_that_leaves_removes_at_once(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        (shim.state / "pods").mkdir()
        _end(shim, shim.run("start", "sleep", "1000", **_message("uid")))
        shim.connection.ask("shutdown", force=False)
        wait_gone(shim.pid)
        assert list((shim.state / "pods").iterdir()) == []


def test_a_directory_that_is_wanted_again_is_not_removed(tmp_path: Path) -> None:
    """Its name may come again, with the pod of a manifest file."""
    with running(tmp_path / "state") as shim:
        (shim.state / "pods").mkdir()
        for _ in range(3):
            name = shim.run("start", "sleep", "1000", **_message("uid"))
            _end(shim, name)
            shim.connection.ask("forget", ids=[name])
        last = shim.run("start", "sleep", "1000", **_message("uid"))
        _end(shim, shim.run("start", "sleep", "1000", **_message("other")))
        wait_removed(shim.state / "pods" / "other")
        assert [path.name for path in (shim.state / "pods").rglob("*")] == ["uid", "c.0-1", "said"]
        shim.connection.ask("stop", id=last, grace=0)
        wait_removed(shim.state / "pods" / "uid")
