"""Which refusals of a module are remembered: by its digest, whatever it is called."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import ClassVar

import pytest

from tests.artifacts.modules import module
from tests.runtime.fake import FakeEngine
from tests.runtime.images.test_compile import HEAD, compiler_in, content, files, module_of
from tests.runtime.images.test_linking import NOWHERE
from tests.runtime.text import START, imports_of, text_module
from wasmlet.artifacts import collection
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.runtime import Links
from wasmlet.runtime.images.compile_process import CompileError, Unfit
from wasmlet.runtime.images.images import Module


class Elsewhere(FakeEngine):
    """The same engine where it can compile nothing."""

    python = NOWHERE  # type: ignore[assignment]


class Other(Elsewhere):
    links: ClassVar[Links | None] = Links({})


async def test_a_refusal_is_remembered(tmp_path: Path) -> None:
    """By the module's digest, whatever it is called, across node loops; not by another version, nor for ever."""
    found = await module_of(tmp_path / "x.wasm", b"bad")
    with pytest.raises(Unfit, match="the module is bad"):
        await content(compiler_in(tmp_path), found)
    assert files(tmp_path) == []
    again = Module("registry.example/other:1", found.digest, found.path)
    with pytest.raises(Unfit, match=r"^module registry\.example/other:1: the module is bad$"):
        await content(compiler_in(tmp_path, Elsewhere()), again)
    for engine in (Elsewhere("2"), Elsewhere(settings="fast")):
        with pytest.raises(CompileError, match="cannot be compiled: No such file"):
            await content(compiler_in(tmp_path, engine), again)
    store = Store(tmp_path / "store", SystemClock())
    (kept,) = store.refused.iterdir()
    old = time.time() - 8 * 86400
    os.utime(kept, (old, old))
    collection.collect(store, collection.Limits(), store.clock, lambda _: 0)
    assert list(store.refused.iterdir()) == []
    assert await asyncio.to_thread(kept.exists) is False


@pytest.mark.parametrize("source", [b"broken", b"crash", b"greedy"])
async def test_what_may_go_well_another_time_is_not_remembered(tmp_path: Path, source: bytes) -> None:
    found = await module_of(tmp_path / "x.wasm", source)
    with pytest.raises(CompileError):
        await content(compiler_in(tmp_path), found)
    with pytest.raises(CompileError, match="cannot be compiled: No such file"):
        await content(compiler_in(tmp_path, Elsewhere()), found)


async def test_an_engine_that_says_nothing_of_its_imports_is_asked(tmp_path: Path) -> None:
    wasm = text_module(f"(module {imports_of(('env', 'a'))} {START})")
    found = await module_of(tmp_path / "x.wasm", wasm.removeprefix(HEAD))
    assert await content(compiler_in(tmp_path), found) == b"compiled " + wasm
    other = await module_of(tmp_path / "y.wasm", wasm.removeprefix(HEAD) + module(1)[8:])
    with pytest.raises(Unfit, match=r"imports what does not exist here: env\.a"):
        await content(compiler_in(tmp_path, Other()), other)
