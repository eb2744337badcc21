"""What a module imports and exports is checked before it is compiled."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
import wasmtime
from wasmlet_wasmer import WasmerEngine
from wasmlet_wasmtime import WasmtimeEngine

from tests.artifacts.modules import EMPTY, leb, name, section
from tests.runtime.images.test_compile import content
from tests.runtime.text import START, imports_of, text_module
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.runtime import Engine, Links, linking
from wasmlet.runtime.images.compile_process import Unfit
from wasmlet.runtime.images.compiler import CompileLimits, Compiler
from wasmlet.runtime.images.images import Images
from wasmlet.runtime.wasi import PREVIEW1

NOWHERE = Path("/nonexistent/python")


class Idle(WasmtimeEngine):
    """One that can compile nothing, so that what it refuses was refused before."""

    python = NOWHERE  # type: ignore[assignment]


class IdleWasmer(WasmerEngine):
    python = NOWHERE  # type: ignore[assignment]


async def refusal(engine: Engine, directory: Path, wasm: bytes, *, dense: bool = False) -> str:
    """Why the engine refuses it, without compiling it."""
    store = Store(directory / "store", SystemClock())
    store.prepare()
    path = directory / "x.wasm"
    path.write_bytes(wasm)
    compiler = Compiler(engine, store, CompileLimits(60, 2**29, 2**26), dense=dense)
    with pytest.raises(Unfit) as raised:
        await content(compiler, await Images(True, None, 2**26).find(f"file://{path}"))
    assert str(raised.value) == f"module file://{path}: {raised.value.why}"
    return raised.value.why


@pytest.mark.parametrize(("engine", "dense"), [(Idle, False), (Idle, True), (IdleWasmer, False)])
async def test_what_is_missing_is_named_before_anything_is_compiled(
    tmp_path: Path, engine: type[Engine], dense: bool
) -> None:
    names = [("env", "a"), ("env", "b"), ("env", "c"), ("x", "d"), ("x", "e"), ("x", "f"), ("x", "g")]
    why = await refusal(engine(), tmp_path, text_module(f"(module {imports_of(*names)} {START})"), dense=dense)
    assert why.startswith("the module imports what does not exist here: env.a, env.b, env.c, x.d, x.e and 2 more; ")
    assert "build it for WASI preview 1 (target wasm32-wasip1)" in why


@pytest.mark.parametrize("interface", ["wasi:http/types@0.3.0", "wasi:http/client@0.3.0-rc-2026-01-06"])
@pytest.mark.parametrize("exported", ["wasi:http/incoming-handler@0.2.0", "wasi:http/handler@0.3.0"])
async def test_a_component_for_wasi_0_3_is_refused_before_anything_is_compiled(
    tmp_path: Path, exported: str, interface: str
) -> None:
    """By the names of what it imports and exports; the same component with an import of 0.2 is not."""
    text = f"""(component
      (import "{interface}" (instance (export "fields" (type (sub resource)))))
      (core module $m (func (export "handle")))
      (core instance $i (instantiate $m))
      (func $handle (canon lift (core func $i "handle")))
      (instance (export "{exported}") (export "handle" (func $handle))))"""
    why = await refusal(Idle(), tmp_path, text_module(text))
    assert why.startswith(f"the component imports what does not exist here: {interface}; ")
    assert "has WASI 0.2 here, and no newer one: build it for WASI 0.2 (target wasm32-wasip2)" in why
    newer = f"{Idle().version} does not have: it exports {exported}"
    assert (newer in why) is ("@0.3" in exported)
    links = Idle.links
    assert links is not None
    fits = tmp_path / "fits.wasm"
    fits.write_bytes(
        text_module(text.replace(interface, "wasi:http/types@0.2.0").replace("/handler@0.3", "/incoming-handler@0.2"))
    )
    assert linking.unfit(fits, links, "this") == ""


@pytest.mark.parametrize("engine", [Idle(), IdleWasmer()])
async def test_a_large_module_is_refused_in_no_time(tmp_path: Path, engine: Engine) -> None:
    parts = [
        section(1, b"\x01\x60\x00\x00"),
        section(2, b"\x01" + name("env") + name("conjure") + b"\x00\x00"),
        section(3, leb(60_000) + b"\x00" * 60_000),
        section(5, b"\x01\x00\x01"),
        section(7, b"\x02" + name("_start") + b"\x00\x01" + name("memory") + b"\x02\x00"),
        section(10, leb(60_000) + (leb(503) + b"\x00" + b"\x01" * 501 + b"\x0b") * 60_000),
    ]
    wasm = EMPTY + b"".join(parts)
    assert len(wasm) > 30_000_000
    wasmtime.Module.validate(wasmtime.Engine(), wasm)
    path = tmp_path / "big.wasm"
    path.write_bytes(wasm)
    links = engine.links
    assert links is not None
    began = time.process_time()
    why = linking.unfit(path, links, "this")
    assert time.process_time() - began < 0.25
    assert "env.conjure" in why
    assert await refusal(engine, tmp_path, wasm) == why


@pytest.mark.parametrize(
    ("imports", "advice"),
    [
        ([("wasi", "thread-spawn"), ("env", "f")], "a guest has one thread here: build it without threads"),
        ([("gojs", "runtime.wasmExit")], "build it with GOOS=wasip1 GOARCH=wasm"),
        ([("wbg", "__wbindgen_throw")], "it is built for a JavaScript host"),
        ([("wasix_32v1", "proc_fork")], "it is built for WASIX"),
        ([("wasi_unstable", "fd_write")], "wasmtime 1 does not have WASI preview 0: build it with newer tools"),
        ([(PREVIEW1, "conjure")], "wasmtime 1 does not have it: build it without, or use another engine"),
        ([(PREVIEW1, "conjure"), (PREVIEW1, "sock_bind"), (PREVIEW1, "sing")], "wasmtime 1 does not have them"),
    ],
)
def test_what_to_do(tmp_path: Path, imports: list[tuple[str, str]], advice: str) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(text_module(f"(module {imports_of(*imports)} {START})"))
    links = WasmtimeEngine.links
    assert links is not None
    assert advice in linking.unfit(path, links, "wasmtime 1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'(module (import "env" "m" (memory 1)) (import "env" "t" (tag)) {START})', "env.m, env.t"),
        (f'(module (import "{PREVIEW1}" "fd_close" (global i32)) {START})', f"here: {PREVIEW1}.fd_close"),
        (
            f'(module (import "{PREVIEW1}" "fd_close" (func (param i64) (result i32))) {START})',
            f"incompatible import type: {PREVIEW1}.fd_close is (i64) -> (i32), expected (i32) -> (i32)",
        ),
        (f'(module (import "env" "{"x" * 1000}\\0a" (func)) {START})', f"here: env.{'x' * 76}...; "),
        (f'(module (import "env" "a\\0ab" (func)) {START})', "here: env.a?b; "),
        ("(module)", "has no _start function without parameters and results: expected a WASI command"),
        ('(module (func (export "_start") (result i32) unreachable))', "found one that is () -> (i32)"),
        ('(module (func (export "_initialize") (param i32)))', "no _initialize function without parameters"),
        ('(module (func (export "") (param i32)) (func (export "_initialize")))', "no default function without"),
        ('(module (import "env" "f" (func)))', "has no _start function"),
        ("(component)", "found a library that exports nothing"),
        (
            '(component (import "wasi:keyvalue/store@0.2.0" (instance (export "bucket" (type (sub resource)))))'
            ' (import "own:plugin/api" (instance (export "f" (func)))) (import "g" (func)))',
            "the component imports what does not exist here: wasi:keyvalue/store@0.2.0, own:plugin/api, g; ",
        ),
    ],
)
async def test_what_else_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in await refusal(Idle(), tmp_path, text_module(text))


@pytest.mark.parametrize(
    "text",
    [
        f"(module (type (struct)) (rec (type $a (sub (func))) (type (sub $a (func)))) (type $f (func)) {START})",
        '(module (type (func (param (ref null func)))) (func (export "_start")))',
        '(module (func (export "_initialize")))',
        '(module (func (export "")))',
        "(module (func $f) (start $f))",
        f'(module (import "{PREVIEW1}" "sched_yield" (func (result i32))) {START})',
    ],
)
def test_what_is_left_to_the_engine(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(text_module(text))
    links = WasmtimeEngine.links
    assert links is not None
    assert linking.unfit(path, links, "this") == ""


def test_what_cannot_be_read_is_left_to_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "x.wasm"
    whole = text_module(f"(module {imports_of(('env', 'a'))} {START})")
    nested = b"\x42\x01\x01" * 10_000
    for wasm in (whole[:-3], whole + b"\x63\x00", b"\0asm\x0d\0\x01\0" + section(7, b"\x01" + nested)):
        path.write_bytes(wasm)
        assert "imports" not in linking.unfit(path, Links({}), "this")


@pytest.mark.parametrize(
    "content",
    [
        section(1, leb(2_000_000) + b"\x60\x00\x00" * 2_000_000),
        section(1, b"\x01\x60" + leb(30_000_000) + b"\x7f" * 30_000_000 + b"\x00"),
        section(3, leb(30_000_000) + b"\x00" * 30_000_000),
        section(2, leb(1_000_000) + b"\x00\x00\x02\x00\x00" * 1_000_000),
        section(7, leb(1_000_000) + b"\x00\x00\x00" * 1_000_000),
        b"\x00\x01\x00" * 2_000_000,
    ],
    ids=["types", "parameters", "functions", "imports", "exports", "sections"],
)
def test_what_reading_takes_is_bounded(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.wasm"
    path.write_bytes(EMPTY + content)
    began = time.process_time()
    assert "imports" not in linking.unfit(path, Links({}), "this")
    assert time.process_time() - began < 2
    tracemalloc.start()
    try:
        linking.unfit(path, Links({}), "this")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_a_function_with_very_many_parameters_makes_no_long_message(tmp_path: Path) -> None:
    parts = [
        section(1, b"\x01\x60" + leb(1_000_000) + b"\x7f" * 1_000_000 + b"\x00"),
        section(3, b"\x01\x00"),
        section(7, b"\x01" + name("_start") + b"\x00\x00"),
    ]
    path = tmp_path / "x.wasm"
    path.write_bytes(EMPTY + b"".join(parts))
    links = WasmtimeEngine.links
    assert links is not None
    why = linking.unfit(path, links, "this")
    assert "found one that is (i32, i32" in why
    assert len(why) < 500


@pytest.mark.parametrize("version", ["0.2.0", "0.2.99", "0.2", "1.4.7", "0.3.0-rc-1", ""])
def test_compatible_versions(version: str) -> None:
    expected = {"0.2.0": "@0.2", "0.2.99": "@0.2", "0.2": "@0.2", "1.4.7": "@1", "0.3.0-rc-1": "@0.3.0-rc-1", "": ""}
    assert linking.compatible("a:b/c" + (f"@{version}" if version else "")) == "a:b/c" + expected[version]
