"""Modules made to harm a compiler: each costs its own container, within limits, and nobody else anything."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import wasmtime
from wasmlet_wasmtime import WasmtimeEngine

from tests.worker.harness import children
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.runtime.images.compiler import CompileError, CompileLimits, Compiler
from wasmlet.runtime.images.images import Images

HEAD = b"\0asm\x01\0\0\0"
NOTHING = b"\x60\0\0"
GOOD = bytes(wasmtime.wat2wasm('(module (func (export "_start")))'))


def number(value: int) -> bytes:
    """As WebAssembly writes it (LEB128)."""
    result = b""
    while value >= 0x80:
        result += bytes([value & 0x7F | 0x80])
        value >>= 7
    return result + bytes([value])


def section(kind: int, *entries: bytes) -> bytes:
    content = number(len(entries)) + b"".join(entries)
    return bytes([kind]) + number(len(content)) + content


def module(code: bytes, before: bytes = b"", local: bytes = b"\0", functions: int = 1) -> bytes:
    """Functions of that code; the first is `_start`."""
    body = local + code + b"\x0b"
    parts = [section(1, NOTHING), section(3, *[b"\0"] * functions), before, section(7, b"\x06_start\0\0")]
    return HEAD + b"".join(parts) + section(10, *[number(len(body)) + body] * functions)


STORES = b"".join(b"\x20%b\x20%b\x36\x02%b" % (number(i % 997), number(i % 991), number(i)) for i in range(120_000))
MEMORY = section(5, b"\0\x10")
LARGE = module(STORES, MEMORY, local=b"\x01" + number(1000) + b"\x7f")


def limits(memory: int) -> CompileLimits:
    return CompileLimits(60, memory, 2**28)


async def compile_it(compiler: Compiler, directory: Path, content: bytes) -> bytes:
    path = directory / "x.wasm"
    path.write_bytes(content)
    found = await Images(True, None, 2**28).find(f"file://{path}")
    async with compiler.artifact(found) as artifact:
        return os.pread(artifact, 4, 0)


BOMBS = {
    "a function of 1 MB": LARGE,
    "blocks 400000 deep": module(b"\x02\x40" * 400_000 + b"\x0b" * 400_000),
    "loops 100000 deep": module(b"\x03\x40" * 100_000 + b"\x0c\0\x0b" + b"\x0b" * 99_999),
    "4294967295 locals": module(b"", local=b"\x01" + number(2**32 - 1) + b"\x7f"),
    "150000 functions": module(b"", functions=150_000),
    "a table of 120000 branches": module(b"\x02\x40\x41\0\x0e" + number(120_000) + b"\0" * 120_001 + b"\x0b"),
    "200000 values on the stack": module(b"\x41\0" * 200_000 + b"\x1a" * 200_000),
    "wide types": HEAD + section(1, *[b"\x60" + number(1000) + b"\x7f" * 1000 + b"\0"] * 5000),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_what_it_takes_is_bounded(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "store", SystemClock())
    store.prepare()
    compiler = Compiler(WasmtimeEngine(), store, limits(2**26))
    with contextlib.suppress(CompileError):
        await compile_it(compiler, tmp_path, BOMBS[name])
    assert children(os.getpid()) == {}
    assert list(store.ingest.iterdir()) == []
    assert await compile_it(compiler, tmp_path, GOOD) == b"\x7fELF"
    compiler.close()


async def test_a_module_that_takes_more_memory_than_allowed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", SystemClock())
    store.prepare()
    compiler = Compiler(WasmtimeEngine(), store, limits(2**26))
    with pytest.raises(CompileError, match=r"takes more memory than the 64 MiB allowed; --compile-memory sets it"):
        await compile_it(compiler, tmp_path, LARGE)
    more = Compiler(WasmtimeEngine(), store, limits(2**31))
    assert await compile_it(more, tmp_path, LARGE) == b"\x7fELF"
    more.close()
