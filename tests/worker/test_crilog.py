"""The log format: whatever a guest writes, in whatever pieces, can be had back byte for byte."""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmlet.worker.supervisor.crilog import MAX_LINE, LogFile, Splitter, stamp

NOW = 1_700_000_000_123_456_789
ENTRY = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] ")

LINES = st.lists(
    st.one_of(
        st.binary(max_size=20), st.integers(0, 3 * MAX_LINE).map(lambda n: b"x" * n), st.just(b"\r"), st.just(b"")
    ),
    max_size=8,
)


def entries(pieces: list[bytes]) -> list[bytes]:
    splitter = Splitter("stdout")
    log = b"".join([splitter.feed(piece, NOW) for piece in pieces if piece] + [splitter.finish(NOW)])
    assert log == b"" or log.endswith(b"\n")
    return log.split(b"\n")[:-1]


def written(log: list[bytes]) -> bytes:
    out = b""
    for entry in log:
        assert ENTRY.match(entry)
        _, _, tag, text = entry.split(b" ", 3)
        assert len(text) <= MAX_LINE
        out += text + (b"\n" if tag == b"F" else b"")
    return out


@given(LINES, st.booleans(), st.lists(st.integers(0, 200_000), max_size=6))
def test_what_was_written_comes_back(lines: list[bytes], ends: bool, cuts: list[int]) -> None:
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    log = entries(pieces)
    assert written(log) == data
    # As many full entries as lines, wherever the pieces were cut.
    assert sum(entry.split(b" ", 3)[2] == b"F" for entry in log) == data.count(b"\n")


@pytest.mark.parametrize(
    ("data", "tags"),
    [
        (b"x" * MAX_LINE + b"\n", b"F"),
        (b"x" * (MAX_LINE + 1) + b"\n", b"PF"),
        (b"x" * 2 * MAX_LINE + b"\n", b"PF"),
        (b"x" * 2 * MAX_LINE, b"PP"),
        (b"no newline", b"P"),
        (b"\n\n", b"FF"),
        (b"", b""),
    ],
)
def test_tags(data: bytes, tags: bytes) -> None:
    assert b"".join(entry.split(b" ", 3)[2] for entry in entries([data])) == tags


def test_an_unfinished_line_is_bounded() -> None:
    splitter = Splitter("stderr")
    for _ in range(100):
        splitter.feed(b"x" * 65536, NOW)
    assert len(splitter.finish(NOW)) < MAX_LINE + 100


def test_stamps_sort_as_text_and_have_nine_digits() -> None:
    assert stamp(NOW) == b"2023-11-14T22:13:20.123456789Z"
    assert stamp(0) == b"1970-01-01T00:00:00.000000000Z"
    assert stamp(NOW) < stamp(NOW + 1) < stamp(NOW + 10**9)


def test_a_full_disk_loses_whole_entries_and_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "x" / "0.log"
    log = LogFile(str(path))
    log.write(b"first\n")
    descriptor = log._file
    full = os.open("/dev/full", os.O_WRONLY)
    kept = os.dup(descriptor)
    os.dup2(full, descriptor)
    log.write(b"second\n")
    os.dup2(kept, descriptor)
    log.write(b"third\n")
    log.close()
    for other in (full, kept):
        os.close(other)
    assert log.lost == len(b"second\n")
    assert path.read_bytes() == b"first\nthird\n"
    assert path.stat().st_mode & 0o777 == 0o600


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """The kernel takes files of this size from this process, and no byte more: as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_entry_that_the_disk_took_in_part_is_completed_first(tmp_path: Path) -> None:
    """Nothing is taken back: who follows the log may have read it."""
    path = tmp_path / "x" / "0.log"
    log = LogFile(str(path))
    log.write(b"first\n")
    with room_for(9):
        log.write(b"second\nthird\n")
        assert path.read_bytes() == b"first\nsec"
        log.write(b"fourth\n")
    with room_for(11):
        log.write(b"fifth\n")
        assert path.read_bytes() == b"first\nsecon"
    assert log.position == (1, len(b"first\nsecond\n"))
    assert log.lost == len(b"third\nfourth\nfifth\n")
    log.write(b"sixth\n")
    log.close()
    assert path.read_bytes() == b"first\nsecond\nsixth\n"
    assert log.lost == len(b"third\nfourth\nfifth\n")


def test_a_file_is_not_put_aside_before_its_last_entry_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x" / "0.log"
    log = LogFile(str(path), max_size=16)
    with room_for(9):
        log.write(b"first\nsecond\n")
        log.write(b"third\n")
    assert [file.name for file in path.parent.iterdir()] == ["0.log"]
    log.write(b"fourth\n")
    log.close()
    assert (path.parent / "0.log.1").read_bytes() == b"first\nsecond\n"
    assert path.read_bytes() == b"fourth\n"
    assert log.lost == len(b"third\n")


def test_an_entry_that_is_never_completed_is_not_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "x" / "0.log"
    log = LogFile(str(path))
    with room_for(9):
        log.write(b"first\nsecond\n")
        log.close()
    assert path.read_bytes() == b"first\n"
    assert log.lost == len(b"second\n")


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "0.log").symlink_to(tmp_path / "elsewhere")
    log = LogFile(str(tmp_path / "logs" / "0.log"))
    log.open()
    log.write(b"entry\n")
    assert log.lost == len(b"entry\n")
    assert not (tmp_path / "elsewhere").exists()


def numbered(count: int) -> bytes:
    return b"".join(b"entry %05d of twenty-seven\n" % number for number in range(count))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(28, 300), st.integers(2, 5))
def test_full_files_are_put_aside_and_the_oldest_go(writes: list[int], max_size: int, max_files: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x", "0.log")
        compress: list[str] = []
        log = LogFile(str(path), max_size, max_files, compress.append)
        data = numbered(sum(writes))
        begin = 0
        for count in writes:
            log.write(data[begin : begin + 28 * count])
            begin += 28 * count
        log.close()
        assert log.lost == 0
        names = [f"0.log.{number}" for number in range(1, log.rotated + 1)][-(max_files - 1) :]
        assert sorted(os.listdir(path.parent)) == sorted(["0.log", *names])
        contents = [(path.parent / name).read_bytes() for name in [*names, "0.log"]]
        assert all(28 <= len(content) <= max_size for content in contents)
        assert all(len(content) % 28 == 0 for content in contents)  # entries stay whole
        assert data.endswith(b"".join(contents))
        if log.rotated < max_files:
            assert b"".join(contents) == data
        # All but the newest full one, while they are kept.
        assert {f"{path}.{number}" for number in range(1, log.rotated) if max_files > 2} == set(compress)


def test_an_entry_that_is_longer_than_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x" / "0.log"
    log = LogFile(str(path), max_size=10)
    log.write(b"short\n" + b"x" * 50 + b"\nshort\n")
    log.close()
    assert [(path.parent / name).read_bytes() for name in ("0.log.1", "0.log.2", "0.log")] == [
        b"short\n",
        b"x" * 50 + b"\n",
        b"short\n",
    ]


def test_a_log_whose_directory_is_gone_loses_entries_only(tmp_path: Path) -> None:
    path = tmp_path / "x" / "0.log"
    log = LogFile(str(path), max_size=10)
    log.write(b"12345678\n")
    shutil.rmtree(path.parent)
    log.write(b"12345678\n")
    log.write(b"12345678\n")
    log.close()
    assert log.lost == 18
