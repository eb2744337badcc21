"""The file in which an agent keeps its pods."""

from __future__ import annotations

import errno
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from wasmlet_agent.pods import journal as journals
from wasmlet_agent.pods.journal import Journal


def found(path: Path) -> dict[str, bytes]:
    """What a new process finds."""
    journal = Journal(path)
    try:
        return {name: content.rstrip() for name, content in journal.records()}
    finally:
        journal.close()


@contextmanager
def full(most: int) -> Iterator[None]:
    """No file may be longer: as on a disk that is full, some of a line may still go there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_newest_record_of_each_name_counts_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes at random, new files, new processes, and lines that were cut off."""
    monkeypatch.setattr(journals, "_SPARE", 2000)
    rng, path, known = random.Random(1), tmp_path / "journal", dict[str, bytes]()
    journal, rewritten, inode = Journal(path), 0, 0
    for turn in range(600):
        changes: dict[str, bytes | None] = {
            f"pod/{rng.randrange(12)}": None if rng.random() < 0.3 else b'{"n":"%s"}' % (b"x" * rng.randrange(200))
            for _ in range(rng.randrange(1, 5))
        }
        journal.append(changes)
        for name, content in changes.items():
            known.pop(name, None)
            if content is not None:
                known[name] = content
        rewritten += path.stat().st_ino != inode
        inode = path.stat().st_ino
        if turn % 20 == 0:
            journal.sync()
            journal.close()
            if turn % 40 == 0:
                with path.open("ab") as file:
                    file.write(b'pod/3 {"n":"never all of it')
            journal = Journal(path)
        assert {name: content.rstrip() for name, content in journal.records()} == known
    journal.close()
    assert found(path) == known
    assert list(found(path)) == list(known), "in the order in which they were written"
    assert rewritten > 5
    assert path.stat().st_size < 2000 + 4 * sum(map(len, known.values())) + 2000
    assert os.listdir(tmp_path) == ["journal"]


@pytest.mark.parametrize(
    "rubbish", [b"\0" * 500, b"\0" * 500 + b"\n", b"pod/b\xff {}\n", b"pod/b []\n", b"pod/b {", b" \n"]
)
def test_rubbish_is_passed_over(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b'pod/a {"n":1}\n' + rubbish)
    journal = Journal(path)
    journal.append({"pod/c": b"{}"})
    journal.close()
    assert found(path) == {"pod/a": b'{"n":1}', "pod/c": b"{}"}


def test_a_file_that_cannot_be_written_anew_grows_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_SPARE", 100)
    path, blocked = tmp_path / "journal", tmp_path / ".journal.new"
    blocked.mkdir()
    journal = Journal(path)
    told = "a file of the state directory grows, for it cannot be written anew"
    with structlog.testing.capture_logs() as log:
        for number in range(20):
            journal.append({"pod/a": b'{"n":"%020d"}' % number})
    assert 1 <= [line["event"] for line in log].count(told) < 10
    blocked.rmdir()
    for number in range(20):
        journal.append({"pod/a": b'{"n":"%020d"}' % number})
    assert path.stat().st_size < 300
    journal.close()
    assert found(path) == {"pod/a": b'{"n":"%020d"}' % 19}


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Not even the first of its lines: what is taken away later was never there, and is not taken away on the disk."""
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append({"pod/o": b"{}"})
    changes: dict[str, bytes | None] = {"pod/b": b'{"n":1}', "pod/c": b'{"n":1,"text":"long"}'}
    for most in range(path.stat().st_size, path.stat().st_size + 40, 4):
        with full(most), pytest.raises(OSError, match="File too large"):
            journal.append(changes)
        assert path.read_bytes() == b"pod/o {}\n"
    journal.append({"pod/b": None, "pod/c": b'{"n":2}'})
    journal.close()
    assert found(path) == {"pod/o": b"{}", "pod/c": b'{"n":2}'}


def test_what_cannot_be_taken_back_at_once_is_before_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, "no more")

    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append({"pod/o": b"{}"})
    with monkeypatch.context() as patch:
        patch.setattr("os.ftruncate", broken)
        with full(path.stat().st_size + 20), pytest.raises(OSError, match="File too large"):
            journal.append({"pod/b": b'{"n":1}', "pod/c": b'{"n":1,"text":"long"}'})
        with pytest.raises(OSError, match="no more"):
            journal.append({"pod/b": None})
    journal.append({"pod/b": None})
    assert path.read_bytes() == b"pod/o {}\n"
    journal.close()


def test_what_was_cut_off_means_the_same_to_every_process(tmp_path: Path) -> None:
    path, new = tmp_path / "journal", b'pod/abc {"n":2}\n'
    for cut in range(1, len(new)):
        path.write_bytes(b'pod/abc {"n":1}\n' + new[:cut])
        assert found(path) == {"pod/abc": b'{"n":1}'}
        journal = Journal(path)
        journal.append({"pod/b": b"{}"})
        journal.close()
        assert found(path) == {"pod/abc": b'{"n":1}', "pod/b": b"{}"}


def test_a_new_file_is_written_to_though_its_name_is_not_on_the_disk_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing counts as on the disk before the name is."""

    def broken(directory: Path) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(journals, "_SPARE", 100)
    path = tmp_path / "journal"
    journal = Journal(path)
    inode = path.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(journals.files, "sync_directory", broken)
        while path.stat().st_ino == inode:
            journal.append({"pod/a": b'{"text":"%s"}' % (b"x" * 50)})
        journal.append({"pod/b": b"{}"})
        with pytest.raises(OSError, match="too many open files"):
            journal.sync()
    synced: list[Path] = []
    monkeypatch.setattr(journals.files, "sync_directory", synced.append)
    journal.sync()
    assert synced == [tmp_path]
    journal.close()
    assert set(found(path)) == {"pod/a", "pod/b"}


def test_a_file_that_the_disk_has_not_taken_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux may say the next time that all is there, though it never was."""

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "no more")

    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append({"pod/a": b"{}"})
    inode = path.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", broken)
        with pytest.raises(OSError, match="no more"):
            journal.sync()
    journal.append({"pod/b": b"{}"})
    assert path.stat().st_ino != inode
    inode = path.stat().st_ino
    journal.sync()
    journal.append({"pod/c": b"{}"})
    assert path.stat().st_ino == inode
    journal.close()


def test_a_new_process_leaves_nothing_of_what_counts_no_more(tmp_path: Path) -> None:
    path, left = tmp_path / "journal", tmp_path / ".journal.new"
    journal = Journal(path)
    journal.append({"pod/a": b'{"text":"confidential"}', "pod/b": b"{}"})
    journal.append({"pod/a": None})
    journal.close()
    left.write_bytes(b"of a process that was killed")
    Journal(path).close()
    assert path.read_bytes() == b"pod/b {}\n"
    assert not left.exists()
    inode = path.stat().st_ino
    Journal(path).close()
    assert path.stat().st_ino == inode, "there was nothing to leave out"
