"""What a module is known not to use, by its imports: sockets and files."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import attrs
import pytest

from tests.runtime.images.test_compile import HEAD
from tests.runtime.text import START, imports_of, text_module
from wasmlet.runtime import linking
from wasmlet.runtime.images import imports as imports_module
from wasmlet.runtime.images.images import Images
from wasmlet.runtime.images.imports import Imports
from wasmlet.runtime.wasi import PREVIEW0, PREVIEW1


@pytest.mark.parametrize(
    ("wasm", "may"),
    [
        (text_module(f"(module {START})"), False),
        (text_module(f"(module {imports_of((PREVIEW1, 'fd_write'), (PREVIEW1, 'poll_oneoff'))} {START})"), False),
        (text_module(f"(module {imports_of((PREVIEW1, 'fd_write'), (PREVIEW1, 'sock_accept'))} {START})"), True),
        (text_module(f"(module {imports_of(('wasi_experimental_http', 'req'))} {START})"), True),
        (HEAD[:4] + b"\x0d\0\1\0", True),
        (HEAD + b"\x01\xff", True),
    ],
    ids=["nothing", "no sockets", "sockets", "something else", "component", "damaged"],
)
async def test_what_imports_no_functions_for_sockets_is_known_not_to_use_them(
    tmp_path: Path, wasm: bytes, may: bool
) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(wasm)
    found, imports = await Images(True, None, 2**20).find(f"file://{path}"), Imports(2**20)
    uses = await imports.uses_of(found)
    assert (uses.sockets, uses.plain) == (may, not may)
    # What has this digest is known; another file in its place is another module.
    path.write_bytes(text_module(f"(module {START})"))
    assert (await imports.uses_of(found)).sockets is may
    assert (await Imports(2**20).uses_of(attrs.evolve(found, digest="0" * 64))).sockets


COMPONENT = '(component (import "{}" (instance)))'


@pytest.mark.parametrize(
    ("wasm", "may"),
    [
        (text_module(f"(module {imports_of((PREVIEW1, 'fd_write'), (PREVIEW1, 'sock_send'))} {START})"), False),
        (text_module(f"(module {imports_of((PREVIEW1, 'fd_write'), (PREVIEW1, 'path_open'))} {START})"), True),
        (text_module(f"(module {imports_of((PREVIEW1, 'fd_readdir'))} {START})"), True),
        (text_module(f"(module {imports_of((PREVIEW1, 'fd_prestat_get'))} {START})"), True),
        (text_module(f"(module {imports_of((PREVIEW0, 'fd_write'))} {START})"), True),
        (text_module(COMPONENT.format("wasi:cli/stdout@0.2.0")), False),
        (text_module(COMPONENT.format("wasi:filesystem/preopens@0.2.0")), True),
        (text_module(COMPONENT.format("some:thing/files@0.1.0")), True),
        (HEAD + b"\x01\xff", True),
    ],
    ids=["none", "path_open", "readdir", "prestat", "preview 0", "component", "filesystem", "unknown", "damaged"],
)
def test_what_can_find_no_file_is_known_not_to_use_files(tmp_path: Path, wasm: bytes, may: bool) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(wasm)
    assert linking.uses_of(path).files is may


async def test_a_module_that_cannot_be_read_now_keeps_no_other_one_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, reads, read = threading.Event(), [], imports_module.read

    def slow(path: Path, max_bytes: int, copy: int) -> str:
        reads.append(path.name)
        if path.name == "hung.wasm":
            assert hung.wait(60)
            raise OSError
        return read(path, max_bytes, copy)

    monkeypatch.setattr(imports_module, "read", slow)
    images, imports, found = Images(True, None, 2**20), Imports(2**20), []
    for name_, text in (("hung", f"(module {START})"), ("other", f"(module (memory 1) {START})")):
        path = tmp_path / f"{name_}.wasm"
        path.write_bytes(text_module(text))
        found.append(await images.find(f"file://{path}"))
    waiting = [asyncio.create_task(imports.uses_of(found[0])) for _ in range(20)]
    try:
        others = await asyncio.wait_for(asyncio.gather(*(imports.uses_of(found[1]) for _ in range(20))), 50)
    finally:
        hung.set()
    assert [uses.sockets for uses in others] == [False] * 20
    await asyncio.gather(*waiting)
    assert sorted(reads) == ["hung.wasm", "other.wasm"]
