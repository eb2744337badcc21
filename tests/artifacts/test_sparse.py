"""Sparse members of archives, in each form that GNU tar writes, and what is wrong with some."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.artifacts.modules import sha
from wasmlet.artifacts.archives import Archive
from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.trees import TreeMaker

FORMS = {
    "old GNU": ("--format=gnu",),
    "pax 0.0": ("--format=pax", "--sparse-version=0.0"),
    "pax 0.1": ("--format=pax", "--sparse-version=0.1"),
    "pax 1.0": ("--format=pax", "--sparse-version=1.0"),
}
FILES = {
    "few": (300_000, [(0, b"begin"), (100_000, b"middle" * 100)]),
    "many": (2**20, [(at, b"%d" % at) for at in range(0, 2**20, 2**14)]),
    "ends-in-data": (200_000, [(199_998, b"xy")]),
    "empty": (50_000, []),
}


@pytest.fixture(params=FORMS)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """An archive with sparse files and a plain one behind them."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, (size, parts) in FILES.items():
        with open(folder / name, "wb") as file:
            file.truncate(size)
            for offset, data in parts:
                file.seek(offset)
                file.write(data)
    (folder / "plain").write_bytes(b"plain")
    command = ["tar", "--create", "--sparse", "--hole-detection=raw", *FORMS[request.param], *FILES, "plain"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout


def whole(size: int, parts: list[tuple[int, bytes]]) -> bytes:
    content = bytearray(size)
    for offset, data in parts:
        content[offset : offset + len(data)] = data
    return bytes(content)


def test_what_they_are(archive: bytes, tmp_path: Path) -> None:
    assert len(archive) < 1_000_000  # it has not the holes
    with TreeMaker(tmp_path, 4_000_000) as making:
        making.unpack(io.BytesIO(archive), sha(archive))
        found = {path.name: path.read_bytes() for path in making.files.iterdir()}
    assert found == {name: whole(*what) for name, what in FILES.items()} | {"plain": b"plain"}


def test_members_that_nobody_reads(archive: bytes) -> None:
    assert [entry.path for entry in Archive(io.BytesIO(archive), 4_000_000).entries()] == [*FILES, "plain"]


def test_holes_count(archive: bytes, tmp_path: Path) -> None:
    with TreeMaker(tmp_path, 1_500_000) as making, pytest.raises(BadContent, match="more than the 1500000 bytes"):
        making.unpack(io.BytesIO(archive), sha(archive))


def pax(records: dict[str, str], content: bytes = b"") -> bytes:
    entry = tarfile.TarInfo("x")
    entry.size, entry.pax_headers = len(content), records
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        made.addfile(entry, io.BytesIO(content))
    return out.getvalue()


ONE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"}


def old(*numbers: int, size: int, more: bool = False) -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    for i, number in enumerate(numbers):
        block[386 + 12 * i : 398 + 12 * i] = b"%011o\0" % number
    block[482] = more
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def test_a_number_in_base_256(tmp_path: Path) -> None:
    block = bytearray(old(0, 0, size=0))
    block[483:495] = b"\x80" + (3).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    with TreeMaker(tmp_path, 4_000_000) as making:
        making.unpack(io.BytesIO(bytes(block)), None)
        assert (making.files / "x").read_bytes() == bytes(3)


BAD = [
    (pax({"GNU.sparse.map": "0,5,3,2", "GNU.sparse.size": "10"}, b"x" * 7), "overlap or lead out"),
    (pax({"GNU.sparse.map": "0,11", "GNU.sparse.size": "10"}, b"x" * 11), "overlap or lead out"),
    (pax({"GNU.sparse.map": "0,5,7", "GNU.sparse.size": "10"}, b"x" * 5), "an offset that has no length"),
    (pax({"GNU.sparse.map": "0,x", "GNU.sparse.size": "10"}, b"x"), "'x' where a number is expected"),
    (pax({"GNU.sparse.map": "0,-5", "GNU.sparse.size": "10"}, b"x"), "'-5' where a number is expected"),
    (pax({"GNU.sparse.map": "0,5"}, b"x" * 5), "'' where a number is expected"),
    (pax({"GNU.sparse.map": "0,5", "GNU.sparse.size": "9" * 19}, b"x" * 5), "more than the 4000000 bytes"),
    (pax({"GNU.sparse.map": "0,9", "GNU.sparse.size": "10"}, b"x" * 5), "shorter than its parts"),
    (pax({"GNU.sparse.map": ",".join("0" for _ in range(100_002)), "GNU.sparse.size": "1"}), "more than 50000 parts"),
    (pax({"GNU.sparse.numbytes": "5", "GNU.sparse.offset": "0", "GNU.sparse.size": "10"}), "do not alternate"),
    (pax(ONE, b"1\n0\nx\n".ljust(512, b"\0")), "'x' where a number is expected"),
    (pax(ONE, b"1" * 1024), "list of parts cannot be read"),
    (pax(ONE, b"999999999\n" + b"0\n" * 251), "shorter than its parts"),
    (pax(ONE, b"1\n0"), "shorter than its parts"),
    (old(0, 5, 3, 9, size=10), "overlap or lead out"),
    (old(0, 5, size=10), "shorter than its parts"),
    (old(0, 5, size=10, more=True)[:512], "in the middle of its archive"),
]


@pytest.mark.parametrize(("archive", "why"), BAD, ids=[why for _, why in BAD])
def test_what_is_refused(archive: bytes, why: str, tmp_path: Path) -> None:
    with TreeMaker(tmp_path, 4_000_000) as making, pytest.raises(BadContent, match=why):
        making.unpack(io.BytesIO(archive), None)


def test_an_unknown_version_is_a_plain_file(tmp_path: Path) -> None:
    """As Go's archive/tar has it."""
    data = pax({"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"}, b"as it is")
    with TreeMaker(tmp_path, 4_000_000) as making:
        making.unpack(io.BytesIO(data), None)
        assert (making.files / "x").read_bytes() == b"as it is"
    assert os.listdir(tmp_path) == []
