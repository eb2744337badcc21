"""One file out of a tar archive, however it was written, is what tarfile would take out."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts.modules import add, tar_of
from wasmlet.artifacts import layers
from wasmlet.artifacts.errors import BadContent

PACKINGS = {"": lambda data: data, "gzip": gzip.compress, "zstd": zstandard.compress}


def extract(layer: bytes, path: str, packing: str = "", limit: int = 10_000_000) -> bytes | None:
    """The file; None where the layer does not have it."""
    out = bytearray()

    def put(data: bytes) -> None:
        if not data:
            out.clear()
        out.extend(data)

    packed = PACKINGS[packing](layer)
    return bytes(out) if layers.extract(io.BytesIO(packed), packing, path, limit, put) else None


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
    for path, data in files.items():
        assert extract(out.getvalue(), path, packing) == data
    assert extract(out.getvalue(), "none/of/them", packing) is None


@given(st.binary(max_size=3000), st.sampled_from(sorted(PACKINGS)))
def test_any_bytes_are_a_layer_or_an_error(data: bytes, packing: str) -> None:
    try:
        layers.extract(io.BytesIO(data), packing, "app.wasm", 100_000, lambda data: None)
    except BadContent:
        return
    assert data.startswith(b"\0" * min(1, len(data))) or packing


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
    with pytest.raises(BadContent, match="removed"):
        extract(tar_of({hide: b""}), "bin/app.wasm")
    assert extract(tar_of({hide: b"", "bin/app.wasm": b"new"}), "bin/app.wasm") == b"new"


def test_a_link_on_the_way_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add(archive, "bin", kind=tarfile.SYMTYPE, link="/usr/bin")
        add(archive, "lib", kind=tarfile.SYMTYPE, link="/usr/lib")
    with pytest.raises(BadContent, match="reached through a symbolic link, 'bin'"):
        extract(out.getvalue(), "bin/app.wasm")
    assert extract(out.getvalue(), "app.wasm") is None


def test_gzip_in_several_members() -> None:
    content = tar_of({"app.wasm": b"x" * 5000})
    packed = gzip.compress(content[:700]) + gzip.compress(content[700:])
    out = bytearray()
    assert layers.extract(io.BytesIO(packed), "gzip", "app.wasm", 100_000, out.extend)
    assert out == b"x" * 5000
