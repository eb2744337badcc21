"""wasi:filesystem of our own world: what each function does, its errors, and that nothing leads out of a mount."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wasmlet_wasmtime.p2 import files, streams, world
from wasmlet_wasmtime.p2.instances import Failed

from tests.shared.descriptors import open_descriptors

NONE: frozenset[str] = frozenset()
FOLLOW = frozenset(("symlink-follow",))
READ, WRITE = frozenset(("read",)), frozenset(("read", "write"))
CREATE = frozenset(("create",))


class Guest:
    """Calls functions of the interface as a component does."""

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        mount = {"directory": str(directory), "path": "/data", "read_only": read_only}
        self.instance: Any = SimpleNamespace(host=SimpleNamespace(mounts=[mount]))
        ((self.root, path),) = world.functions["wasi:filesystem/preopens.get-directories"](self.instance)
        assert path == "/data"
        self.open_files: list[files.Descriptor] = [self.root]

    def call(self, name: str, *arguments: Any, on: Any = None) -> Any:
        """The result, or the error code."""
        try:
            return world.functions[f"wasi:filesystem/types.[method]descriptor.{name}"](
                self.instance, on or self.root, *arguments
            )
        except Failed as failed:
            return failed.payload

    def open(self, path: str, flags: frozenset[str] = READ, how: frozenset[str] = NONE, follow: Any = FOLLOW) -> Any:
        found = self.call("open-at", follow, path, how, flags)
        if isinstance(found, files.Descriptor):
            self.open_files.append(found)
        return found

    def close(self) -> None:
        for descriptor in self.open_files:
            descriptor.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    made = tmp_path / "mount"
    (made / "sub").mkdir(parents=True)
    (made / "file").write_text("content")
    (made / "out").symlink_to("../secret")
    (made / "absolute").symlink_to("/etc/passwd")
    (made / "in").symlink_to("file")
    (made / "up").symlink_to("..")
    (made / "round").symlink_to("round")
    return made


@pytest.fixture
def guest(directory: Path) -> Iterator[Guest]:
    before = open_descriptors()
    made = Guest(directory)
    yield made
    made.close()
    assert open_descriptors() <= before


def test_reading_and_writing(guest: Guest, directory: Path) -> None:
    file = guest.open("new", WRITE, CREATE)
    assert guest.call("write", b"hello", 0, on=file) == 5
    assert guest.call("read", 100, 1, on=file) == (b"ello", False)
    assert guest.call("read", 100, 5, on=file) == (b"", True)
    assert guest.call("set-size", 3, on=file) is None
    assert guest.call("sync", on=file) is None
    assert guest.call("sync-data", on=file) is None
    assert guest.call("advise", 0, 3, "sequential", on=file) is None
    assert (directory / "new").read_bytes() == b"hel"
    stream = guest.call("append-via-stream", on=file)
    stream.write(b"p!")
    stream.close()
    stream = guest.call("read-via-stream", 1, on=file)
    assert stream.read(100) == b"elp!"
    with pytest.raises(Failed) as ended:
        stream.read(1)
    assert ended.value.payload == streams.CLOSED
    stream.close()
    assert guest.call("get-flags", on=file) == WRITE
    assert guest.call("get-type", on=file) == "regular-file"
    kind, links, size, *times = guest.call("stat", on=file)
    assert (kind, links, size, len(times)) == ("regular-file", 1, 5, 3)
    assert guest.call("set-times", ("timestamp", (7, 9)), ("timestamp", (8, 0)), on=file) is None
    assert guest.call("stat", on=file)[3:5] == ((7, 9), (8, 0))
    assert guest.call("set-times", ("no-change", None), ("timestamp", (8, 10**9)), on=file) == "invalid"


def test_directories(guest: Guest, directory: Path) -> None:
    assert guest.call("create-directory-at", "made") is None
    assert guest.call("create-directory-at", "made") == "exist"
    assert guest.call("create-directory-at", "none/made") == "no-entry"
    assert guest.call("rename-at", "file", guest.root, "made/moved") is None
    assert guest.call("remove-directory-at", "made") == "not-empty"
    assert guest.call("link-at", NONE, "made/moved", guest.root, "linked") is None
    assert guest.call("unlink-file-at", "made/moved") is None
    assert guest.call("unlink-file-at", "made") == "is-directory"
    assert guest.call("remove-directory-at", "linked") == "not-directory"
    assert guest.call("remove-directory-at", "made/") is None
    assert guest.call("symlink-at", "linked", "link") is None
    assert guest.call("readlink-at", "link") == "linked"
    assert guest.call("readlink-at", "linked") == "invalid"
    entries = guest.call("read-directory")
    found = set()
    while (entry := entries.read()) is not None:
        found.add(entry)
    entries.close()
    kinds = {"out": "symbolic-link", "sub": "directory", "linked": "regular-file"}
    assert {(kind, name) for name, kind in kinds.items()} <= found
    assert {name for _, name in found} == {entry.name for entry in directory.iterdir()}
    same = guest.open("link"), guest.open("linked")
    is_same = world.functions["wasi:filesystem/types.[method]descriptor.is-same-object"]
    assert is_same(guest.instance, *same)
    assert guest.call("metadata-hash", on=same[0]) == guest.call("metadata-hash-at", FOLLOW, "link")
    assert guest.call("metadata-hash-at", NONE, "link") != guest.call("metadata-hash", on=same[0])


@pytest.mark.parametrize(
    "path", ["..", "../secret", "sub/../../secret", "/etc/passwd", "out", "absolute", "up/secret", "up"]
)
def test_no_path_leads_out(guest: Guest, directory: Path, path: str) -> None:
    no = "not-permitted"
    assert guest.open(path) == no
    assert guest.call("stat-at", FOLLOW, path) == no
    assert guest.call("metadata-hash-at", FOLLOW, path) == no
    assert guest.call("set-times-at", FOLLOW, path, ("now", None), ("now", None)) == no
    for name in ("create-directory-at", "remove-directory-at", "unlink-file-at", "readlink-at"):
        if path not in ("out", "up", "absolute"):  # links that are there, and are the guest's own
            assert guest.call(name, path) == no, name
    if path != "up":
        assert guest.call("rename-at", "file", guest.root, f"{path}/x") in (no, "not-directory")
        assert guest.call("link-at", NONE, "file", guest.root, f"{path}/x") in (no, "not-directory")
        assert guest.call("symlink-at", "file", f"{path}/x") in (no, "not-directory")
    assert (directory.parent / "secret").read_text() == "secret"
    assert sorted(entry.name for entry in directory.parent.iterdir()) == ["mount", "secret"]


def test_a_directory_that_is_moved_away_while_it_is_open(guest: Guest, directory: Path) -> None:
    sub = guest.open("sub", READ, frozenset(("directory",)))
    (directory / "sub").rename(directory.parent / "moved")
    assert guest.call("open-at", FOLLOW, "../secret", NONE, READ, on=sub) == "not-permitted"
    assert guest.call("open-at", FOLLOW, "..", NONE, READ, on=sub) == "not-permitted"


def test_errors_of_opening(guest: Guest) -> None:
    assert guest.open("none") == "no-entry"
    assert guest.open("file", READ, frozenset(("directory",))) == "not-directory"
    assert guest.open("sub", WRITE) == "is-directory"
    assert guest.open("file", WRITE, frozenset(("create", "exclusive"))) == "exist"
    assert guest.open("in", READ, NONE, NONE) == "loop"
    assert guest.open("round") == "loop"
    assert guest.open("file/") == "not-directory"
    assert guest.open("a\0b") == "invalid"
    assert guest.open("x" * 300) == "name-too-long"
    assert guest.open("") == "no-entry"
    assert guest.open("file", frozenset(("read", "requested-write-sync"))) == "unsupported"
    file = guest.open("file")
    assert guest.call("write", b"x", 0, on=file) == "bad-descriptor"
    assert guest.call("read", 1, 0) == "bad-descriptor"
    assert guest.call("open-at", FOLLOW, "x", NONE, READ, on=file) == "not-directory"
    assert guest.call("read", 1, 2**63, on=file) == "invalid"
    assert guest.call("link-at", FOLLOW, "file", guest.root, "x") == "invalid"
    assert guest.call("symlink-at", "/etc/passwd", "x") == "not-permitted"


def test_a_pipe_keeps_nobody_waiting(guest: Guest, directory: Path) -> None:
    os.mkfifo(directory / "pipe")
    pipe = guest.open("pipe")
    assert guest.call("get-type", on=pipe) == "fifo"
    assert stat.S_ISFIFO(os.stat(directory / "pipe").st_mode)


def test_what_is_to_be_read_only(directory: Path) -> None:
    guest = Guest(directory, read_only=True)
    no = "not-permitted"
    assert guest.call("get-flags") == READ
    file = guest.open("file")
    assert guest.call("read", 100, 0, on=file) == (b"content", False)
    assert guest.open("file", WRITE) == no
    assert guest.open("new", READ, CREATE) == no
    assert guest.call("create-directory-at", "x") == no
    assert guest.call("unlink-file-at", "file") == no
    assert guest.call("rename-at", "file", guest.root, "x") == no
    assert guest.call("set-times", ("now", None), ("now", None), on=file) == no
    sub = guest.open("sub", READ, frozenset(("directory",)))
    assert guest.call("create-directory-at", "x", on=sub) == no
    guest.close()


def test_a_file_from_before_1970_is_of_1970(tmp_path: Path) -> None:
    """The interface has no word for an earlier time."""
    file = tmp_path / "old"
    file.touch()
    os.utime(file, ns=(-5_000_000_000, -1))
    *_, accessed, modified, _ = files._stat(file.stat())
    assert (accessed, modified) == ((0, 0), (0, 0))
