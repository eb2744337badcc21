"""What a WebAssembly file is, from its bytes; and any bytes at all are read or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.artifacts.modules import EMPTY, leb, module, name, section
from wasmlet.artifacts import wasm
from wasmlet.artifacts.wasm import Extern, read
from wasmlet.artifacts.wasm_reader import NotWasm

HELLO = (Path(__file__).parents[2] / "examples" / "hello" / "hello.wasm").read_bytes()
COMPONENT = b"\0asm\x0d\0\x01\0"
KINDS = {
    "function": b"\x00\x00",
    "table": b"\x01\x70\x00\x01",
    "memory": b"\x02\x01\x01\x02",
    "global": b"\x03\x7f\x00",
    "tag": b"\x04\x00\x00",
}


def vector(items: list[bytes]) -> bytes:
    return leb(len(items)) + b"".join(items)


def core(imports: list[tuple[str, str, str]], exports: list[str]) -> bytes:
    """A module with these imports (module, name, kind), and these exported functions."""
    first = vector([name(m) + name(n) + KINDS[kind] for m, n, kind in imports])
    return EMPTY + section(2, first) + section(7, vector([name(n) + b"\x00\x00" for n in exports]))


def test_a_real_module() -> None:
    found = read(HELLO)
    assert found.kind == "preview 1 command"
    assert Extern("", "_start", "function") in found.exports
    assert Extern("wasi_snapshot_preview1", "fd_write", "function") in found.imports
    assert found.size == len(HELLO)
    assert [title for title, _ in found.sections][:2] == ["type", "import"]


@pytest.mark.parametrize(
    ("imports", "exports", "kind"),
    [
        ([("wasi_snapshot_preview1", "fd_write", "function")], ["_start"], "preview 1 command"),
        ([("wasi_snapshot_preview1", "fd_write", "function")], ["_initialize", "go"], "preview 1 reactor"),
        ([("wasi_unstable", "fd_write", "function")], ["_start"], "preview 0 command"),
        ([], ["_start"], "command"),
        ([("env", "x", "global")], ["add"], "library"),
    ],
)
def test_kinds(imports: list[tuple[str, str, str]], exports: list[str], kind: str) -> None:
    assert read(core(imports, exports)).kind == kind


def component(*names: str) -> bytes:
    exports = [b"\x00" + name(text) + b"\x05\x00\x00" for text in names]
    imports = [
        b"\x00" + name("wasi:cli/environment@0.2.0") + b"\x05\x00",
        b"\x00" + name("f") + b"\x01\x03",
        b"\x00" + name("m") + b"\x00\x11\x00",
        b"\x00" + name("t") + b"\x03\x01",
        b"\x01" + name("u") + b"\x03\x00\x02",
    ]
    return COMPONENT + section(10, vector(imports)) + section(11, vector(exports)) + section(1, EMPTY)


def test_components() -> None:
    found = read(component("wasi:cli/run@0.2.0"))
    assert found.kind == "component (command)"
    assert found.preview == 2
    assert [(extern.name, extern.kind) for extern in found.imports] == [
        ("wasi:cli/environment@0.2.0", "instance"),
        ("f", "function"),
        ("m", "core module"),
        ("t", "type"),
        ("u", "type"),
    ]
    assert read(component("wasi:http/incoming-handler@0.2.0")).kind == "component (HTTP handler)"
    assert read(component("my:own/world")).kind == "component"


words = st.text("aé_:/@", max_size=20)


@given(
    st.lists(st.tuples(words, words, st.sampled_from(sorted(KINDS))), max_size=20),
    st.lists(words, max_size=200),
    st.integers(0, 300),
)
def test_what_is_written_is_read(imports: list[tuple[str, str, str]], exports: list[str], padding: int) -> None:
    data = core(imports, exports) + module(padding)[8:]
    found = read(data)
    assert found.imports == tuple(Extern(*one) for one in imports)
    assert [extern.name for extern in found.exports] == exports
    assert [title for title, _ in found.sections] == ["import", "export", "custom padding"]


@given(st.sampled_from([HELLO[:2000], component("a"), core([("m", "n", "table")], ["x"])]), st.data())
def test_damaged_bytes_are_read_or_refused(base: bytes, data: st.DataObject) -> None:
    content = bytearray(base[: data.draw(st.integers(0, len(base)))])
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(content))
    except NotWasm:
        return
    assert sum(size for _, size in found.sections) <= len(content)


@given(st.binary(max_size=200), st.sampled_from([b"", EMPTY, COMPONENT, EMPTY + b"\x02", COMPONENT + b"\x0b"]))
def test_any_bytes_are_read_or_refused(data: bytes, start: bytes) -> None:
    try:
        found = read(start + data)
    except NotWasm:
        return
    assert found.size == len(start + data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not WebAssembly"),
        (b"#!/bin/sh", "not WebAssembly"),
        (b"\0asm", "found the end"),
        (b"\0asm\x02\0\0\0", "found 02 00 00 00"),
        (EMPTY + b"\x02\xff\xff\xff\xff\x0f", "section of 4294967295 bytes has 0"),
        (EMPTY + section(2, b"\xff\xff\xff\xff\x0f"), "items cannot fit"),
        (EMPTY + b"\x02\xff\xff\xff\xff\x7f", "number is too large"),
        (EMPTY + section(99, b""), "section of number 99"),
        (EMPTY + section(0, leb(1) + b"\xff"), "not UTF-8"),
        (EMPTY + section(7, vector([]) + b"x"), "longer than what it holds"),
    ],
)
def test_what_is_refused_says_why(data: bytes, why: str) -> None:
    with pytest.raises(NotWasm, match=why):
        read(data)


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "x.wasm"
    file.write_bytes(HELLO)
    assert wasm.read_file(file) == read(HELLO)
    for content in (b"", b"x", EMPTY + b"\x02"):
        file.write_bytes(content)
        with pytest.raises(NotWasm):
            wasm.read_file(file)
