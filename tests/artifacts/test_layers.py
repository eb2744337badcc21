"""A module out of a layer, which is a tar archive, however it was written: what tarfile would take out."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts.modules import add, tar, tar_of
from wasmlet.artifacts.archives import zstd
from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.trees import TreeMaker, has_other_files, open_file

PACKINGS = {"": lambda data: data, "gzip": gzip.compress, "zstd": zstd.compress}


def extract(layer: bytes, path: str, packing: str = "", limit: int = 10_000_000) -> bytes | None:
    """The file; None where the layer does not have it."""
    with tempfile.TemporaryDirectory() as directory, TreeMaker(Path(directory), limit) as making:
        making.unpack(io.BytesIO(PACKINGS[packing](layer)), None)
        root = os.open(making.files, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = open_file(root, path)
        finally:
            os.close(root)
        if found is None:
            return None
        with os.fdopen(found, "rb") as file:
            return file.read()


names = st.text("ab é.-", min_size=1, max_size=130).filter(lambda n: n not in (".", "..") and not n.startswith(".wh."))
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@given(
    files=st.dictionaries(paths, st.binary(max_size=2000), min_size=1, max_size=5),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    packing=st.sampled_from(sorted(PACKINGS)),
    dot=st.booleans(),
)
def test_every_form_is_read(files: dict[str, bytes], form: int, packing: str, dot: bool) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for path, data in files.items():
            try:
                add(archive, f"./{path}" if dot else path, data)
            except ValueError:  # a name that is too long for this form
                return
    if any(path.startswith(f"{other}/") for path in files for other in files):  # a file that is a directory, too
        return
    for path, data in files.items():
        assert extract(out.getvalue(), path, packing) == data
    assert extract(out.getvalue(), "none/of/them", packing) is None


HEADS = st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"])


@given(HEADS, st.binary(max_size=3000))
def test_any_bytes_are_a_layer_or_an_error(head: bytes, data: bytes) -> None:
    try:
        extract(head + data, "app.wasm", limit=100_000)
    except BadContent:
        return
    assert data.startswith(b"\0" * min(1, len(data))) or head


@given(st.data())
def test_a_damaged_archive_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(tar_of({"a/app.wasm": b"x" * 600, "b" * 120: b"y"}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = extract(bytes(content), "a/app.wasm")
    except BadContent:
        return
    assert found is None or len(found) <= len(content)


def test_the_later_of_two_counts() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add(archive, "app.wasm", b"first")
        add(archive, "app.wasm", b"second")
    assert extract(out.getvalue(), "app.wasm") == b"second"


@pytest.mark.parametrize("hide", ["bin/.wh.app.wasm", ".wh.bin", "bin/.wh..wh..opq", ".wh..wh..opq"])
def test_what_a_layer_hides_is_gone(hide: str) -> None:
    assert extract(tar_of({hide: b""}), "bin/app.wasm") is None
    assert extract(tar_of({hide: b"", "bin/app.wasm": b"new"}), "bin/app.wasm") == b"new"


@pytest.mark.parametrize(
    ("path", "links"),
    [
        ("bin/app.wasm", {"bin": "/usr/bin"}),
        ("bin/app.wasm", {"bin": "usr/bin"}),
        ("bin/app.wasm", {"bin": "../../../usr/bin"}),
        ("a/b/app.wasm", {"a/b": "../c/../usr/bin", "c": "usr"}),
        ("app.wasm", {"app.wasm": "/usr/bin/app.wasm"}),
        ("x/app.wasm", {"x/app.wasm": "app", "x/app": "../usr/bin/app.wasm"}),
    ],
)
def test_links_are_followed_below_the_root(path: str, links: dict[str, str]) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "usr/bin/app.wasm", b"module")
        for name, target in links.items():
            add(archive, name, kind=tarfile.SYMTYPE, link=target)

    assert extract(tar(fill), path) == b"module"


def test_links_lead_to_nothing_outside_and_come_to_an_end() -> None:
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "passwd", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(archive, "up", kind=tarfile.SYMTYPE, link="../" * 30)
        add(archive, "round", kind=tarfile.SYMTYPE, link="round")
        add(archive, "file", b"x")
        add(archive, "hard", kind=tarfile.LNKTYPE, link="/file")

    layer = tar(fill)
    assert Path("/etc/passwd").exists()
    assert [extract(layer, path) for path in ("passwd", "up/etc/passwd", "up", "round/x", "file/x")] == [None] * 5
    assert extract(layer, "hard") == extract(layer, "up/file") == b"x"
    with pytest.raises(BadContent, match="more than 40 links"):
        extract(layer, "round")


@pytest.mark.parametrize(
    "name", ["/app.wasm", "./../app.wasm", "a/../app.wasm", "../../app.wasm", "//app.wasm", "./app.wasm"]
)
def test_names_are_cleaned_and_taken_below_the_root(name: str) -> None:
    assert extract(tar_of({name: b"module"}), "app.wasm") == b"module"


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "\u00b2", "\u0661", "9" * 20, ""])
def test_a_size_that_is_no_number_of_64_bits(size: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        header = tarfile.TarInfo("app.wasm")
        header.pax_headers = {"size": size}
        archive.addfile(header)
    with pytest.raises(BadContent, match="size cannot be read"):
        extract(out.getvalue(), "app.wasm")


@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_a_layer_of_no_bytes_is_an_empty_one(packing: str) -> None:
    """containerd passes over these too (archive/compression, DetectCompression)."""
    assert extract(b"", "app.wasm", packing) is None


def test_what_is_not_the_module_disturbs_nobody() -> None:
    def fill(archive: tarfile.TarFile) -> None:
        for number, kind in enumerate((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V", b"D")):
            add(archive, f"dev/{number}", kind=kind)
        add(archive, "dev/same", kind=tarfile.LNKTYPE, link="dev/1")
        add(archive, "dev/.wh...", b"")
        add(archive, "app.wasm", b"module")

    assert extract(tar(fill), "app.wasm") == b"module"
    with tempfile.TemporaryDirectory() as directory, TreeMaker(Path(directory), 100_000) as making:
        making.unpack(io.BytesIO(tar(fill)), None)
        assert os.listdir(making.files / "dev") == []
        assert not has_other_files(making.files, "app.wasm")
        making.unpack(io.BytesIO(tar_of({"dev/1": b""})), None)
        assert has_other_files(making.files, "app.wasm")


def test_a_device_hides_what_was_there() -> None:
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "app.wasm", b"module")
        add(archive, "app.wasm", kind=tarfile.CHRTYPE)

    assert extract(tar(fill), "app.wasm") is None


def test_gzip_in_several_members() -> None:
    content = tar_of({"app.wasm": b"x" * 5000})
    packed = gzip.compress(content[:700]) + gzip.compress(content[700:])
    assert extract(packed, "app.wasm") == b"x" * 5000


def test_zstd_that_begins_with_a_frame_to_be_skipped() -> None:
    packed = b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstd.compress(tar_of({"app.wasm": b"x"}))
    assert extract(packed, "app.wasm") == b"x"
