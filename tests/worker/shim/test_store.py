"""The file of records: when it is written anew, and what a full disk may take of it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wasmlet.worker import wire
from wasmlet.worker.supervisor.records import Record
from wasmlet.worker.supervisor.removals import Removals
from wasmlet.worker.supervisor.store import RECORDS, Store

Calls = list[Callable[[], None]]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _store(due: Calls | None = None) -> Store:
    """`due` gets what the store wants to have called later."""
    calls = due if due is not None else []
    return Store(lambda _, callback: calls.append(callback), Removals(lambda _, callback: calls.append(callback)))


def _records(count: int, message: str = "") -> list[Record]:
    return [Record(f"{number:08x}", {}, "logs/x/0.log", wire.ENDED, message=message) for number in range(count)]


def _save(store: Store, *records: Record) -> None:
    for record in records:
        store.save(record, record.encoded())


def _on_file() -> dict[str, int]:
    """The exit codes that the next shim would read. The file itself stays: `load` would write another."""
    kept = Path("kept")
    kept.hardlink_to(RECORDS)
    try:
        return {record.id: record.exit_code for record in _store().load(rebooted=False)}
    finally:
        kept.rename(RECORDS)


def _size() -> int:
    return Path(RECORDS).stat().st_size


@contextlib.contextmanager
def _no_file_over(size: int) -> Iterator[None]:
    """In here files end at this size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_file_does_not_grow_without_end() -> None:
    store, sizes = _store(), []
    kept = Record("f" * 16, {"name": "kept"}, "logs/x/0.log", wire.ENDED)
    _save(store, kept)
    for record in _records(5000, "x" * 200):
        _save(store, record)
        store.remove([record.id])
        sizes.append(_size())
    assert max(sizes) < 300 * 1024
    last = Record("e" * 16, {"name": "last"}, "logs/x/0.log", wire.ENDED)
    _save(store, last)
    assert set(_on_file()) == {kept.id, last.id}


@pytest.mark.parametrize("message", ["", "trap " + "x" * 3000, "\x01" * 4000])
def test_the_file_is_written_anew_seldom_however_much_guests_write(message: str) -> None:
    store, records, files = _store(), _records(100, message), [0]
    for _ in range(5):
        for record in records:
            _save(store, record)
            if (file := Path(RECORDS).stat().st_ino) != files[-1]:
                files.append(file)
    assert len(files) < 10
    assert _size() < 5 * max(256 * 1024, sum(len(record.encoded()) for record in records))


def test_what_a_full_disk_has_refused_is_written_once_there_is_room() -> None:
    due: Calls = []
    store, (first, second, third) = _store(due), _records(3)
    _save(store, first, third)
    second.exit_code = 3
    with _no_file_over(_size() + 9):
        _save(store, second)  # a part of it is written
        store.remove([third.id])
    assert _on_file() == {first.id: 0, third.id: 0}
    with _no_file_over(9):
        due.pop()()
    assert not Path(f"{RECORDS}.new").exists()  # it would take the room that is needed
    assert _on_file() == {first.id: 0, third.id: 0}
    due.pop()()
    assert _on_file() == {first.id: 0, second.id: 3}
    second.exit_code = 4
    _save(store, second)
    assert _on_file() == {first.id: 0, second.id: 4}
    assert not due  # there is nothing more to try


def test_a_full_disk_loses_no_line_of_others() -> None:
    store, (first, second, third) = _store(), _records(3)
    _save(store, first)
    with _no_file_over(_size() + 9):
        _save(store, second)
    _save(store, third)
    assert set(_on_file()) == {first.id, third.id}


def test_a_shim_that_leaves_writes_what_it_could_not_write_before() -> None:
    store, (first, second) = _store(), _records(2)
    _save(store, first)
    with _no_file_over(_size()):
        _save(store, second)
    store.finish()
    assert set(_on_file()) == {first.id, second.id}


def test_a_new_file_is_on_disk_before_it_has_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    synced, renamed, fsync, rename = set(), [], os.fsync, os.rename
    store, records = _store(), _records(100, "x" * 4000)

    def note_fsync(file: int) -> None:
        fsync(file)
        synced.add((os.fstat(file).st_ino, os.fstat(file).st_size))

    def note_rename(source: str, target: str) -> None:
        found = os.stat(source)
        renamed.append((found.st_ino, found.st_size) in synced)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    _save(store, *records)
    assert renamed == [True]


def test_the_new_file_is_opened_before_the_old_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    store, records, real = _store(), _records(100, "x" * 4000), os.open

    def none_left(path: Any, *more: Any, **named: Any) -> int:
        if path == RECORDS:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        return real(path, *more, **named)

    before = Path(RECORDS).stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", none_left)
        _save(store, *records)
    assert Path(RECORDS).stat().st_ino != before
    assert Path(RECORDS).stat().st_mode & 0o777 == 0o600
    assert set(_on_file()) == {record.id for record in records}
