"""The file in which an agent keeps its pods."""

from __future__ import annotations

import os
import random
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
