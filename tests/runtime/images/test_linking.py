"""What a module imports and exports is checked before it is compiled, and a refusal is remembered."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import tracemalloc
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import wasmtime
from wasmlet_wasmer import WasmerEngine
from wasmlet_wasmtime import WasmtimeEngine

from tests.artifacts.modules import EMPTY, leb, module, name, section
from tests.runtime.fake import FakeEngine
from tests.runtime.harness import Runtime, pod_of
from tests.runtime.images.test_compile import HEAD, compiler_in, content, files, module_of
from wasmlet.artifacts import collection
from wasmlet.artifacts.store import Store
from wasmlet.clock import SystemClock
from wasmlet.model.inputs import Inputs
from wasmlet.runtime import DENSE, Engine, Links, linking
from wasmlet.runtime.images import imports as imports_module
from wasmlet.runtime.images.compile_process import CompileError, Unfit
from wasmlet.runtime.images.compiler import CompileLimits, Compiler
from wasmlet.runtime.images.images import Images, Module
from wasmlet.runtime.images.imports import Imports
from wasmlet.runtime.wasi import PREVIEW0, PREVIEW1, PREVIEW1_FUNCTIONS

NOWHERE = Path("/nonexistent/python")
START = '(func (export "_start"))'


class Idle(WasmtimeEngine):
    """One that can compile nothing, so that what it refuses was refused before."""

    python = NOWHERE  # type: ignore[assignment]


class IdleWasmer(WasmerEngine):
    python = NOWHERE  # type: ignore[assignment]


def text_module(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def imports_of(*names: tuple[str, str]) -> str:
    return " ".join(f'(import "{module}" "{name}" (func))' for module, name in names)


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


WASI_0_2 = {
    "cli/environment": "get-arguments", "cli/exit": "exit", "cli/stdin": "get-stdin", "cli/stdout": "get-stdout",
    "cli/stderr": "get-stderr", "cli/terminal-stdin": "get-terminal-stdin",
    "cli/terminal-stdout": "get-terminal-stdout", "cli/terminal-stderr": "get-terminal-stderr",
    "clocks/monotonic-clock": "now", "clocks/wall-clock": "now",
    "filesystem/preopens": "get-directories", "io/poll": "poll", "random/random": "get-random-u64",
    "random/insecure": "get-insecure-random-u64", "random/insecure-seed": "insecure-seed",
    "sockets/instance-network": "instance-network", "sockets/udp-create-socket": "create-udp-socket",
    "sockets/tcp-create-socket": "create-tcp-socket", "sockets/ip-name-lookup": "resolve-addresses",
    "cli/terminal-input": "", "cli/terminal-output": "", "filesystem/types": "", "io/error": "", "io/streams": "",
    "sockets/network": "", "sockets/udp": "", "sockets/tcp": "", "http/types": "", "clocks/timezone": "display",
    "http/outgoing-handler": "handle", "config/store": "get", "keyvalue/store": "open",
}  # fmt: skip
"""Interfaces, and a function of each; "" where a resource says as much."""
RESOURCES = {"cli/terminal-input": "terminal-input", "cli/terminal-output": "terminal-output", "io/error": "error",
             "filesystem/types": "descriptor", "io/streams": "input-stream", "sockets/network": "network",
             "sockets/udp": "udp-socket", "sockets/tcp": "tcp-socket", "http/types": "fields"}  # fmt: skip


@pytest.mark.parametrize("interface", WASI_0_2)
def test_the_interfaces_of_wasmtime(interface: str) -> None:
    """Those that the engine says it has are those that it has, in wasmtime's own world or in ours."""
    from wasmlet_wasmtime.p2 import interfaces, world
    from wasmtime import component

    thing = f'(export "{WASI_0_2[interface]}" (func))'
    if not WASI_0_2[interface]:
        thing = f'(export "{RESOURCES[interface]}" (type (sub resource)))'
    engine = wasmtime.Engine()
    linker = component.Linker(engine)
    linker.add_wasip2()
    made = component.Component(engine, f'(component (import "wasi:{interface}@0.2.0" (instance {thing})))')
    try:
        linker.instantiate(wasmtime.Store(engine), made)
        found = True
    except wasmtime.WasmtimeError as error:
        found = "implementation is missing" not in str(error)  # else the function is there, and of another type
    if interfaces.needs_world(f"wasi:{interface}@0.2.0".encode()):
        found = any(name.startswith(f"wasi:{interface}.") for name in world.functions)
    links = WasmtimeEngine.links
    assert links is not None
    assert (f"wasi:{interface}@0.2" in links.interfaces) is found


@pytest.mark.parametrize("handler", ["wasmlet", "wasmlet-dense"])
async def test_the_functions_of_wasmtime(runtime: Runtime, tmp_path: Path, handler: str) -> None:
    """A module that imports all that the engine says it has can be linked."""
    links = WasmtimeEngine.links
    assert links is not None
    path = tmp_path / "all.wasm"
    path.write_bytes(all_functions(links))
    key = await runtime.create(pod_of(image=f"file://{path}"), Inputs(runtime_handler=handler))
    assert (await runtime.ended(key)).exit_code == 0
    assert len(PREVIEW1_FUNCTIONS) == 46
    assert links.functions[PREVIEW1].keys() > PREVIEW1_FUNCTIONS.keys()


@pytest.mark.parametrize("handler", ["wasmlet", "wasmlet-dense"])
async def test_the_other_types_of_functions_of_wasmtime(runtime: Runtime, tmp_path: Path, handler: str) -> None:
    """A module that imports functions under their second types starts, and there is no network for it."""
    links = WasmtimeEngine.links
    assert links is not None
    path = tmp_path / "others.wasm"
    path.write_bytes(all_functions(attrs.evolve(links, functions=links.others)))
    key = await runtime.create(pod_of(image=f"file://{path}"), Inputs(runtime_handler=handler))
    assert (await runtime.ended(key)).exit_code == 0


def all_functions(links: Links, *modules: str) -> bytes:
    """A module that imports them."""
    imports = [
        f'(import "{module}" "{function}" (func (param {" ".join(kind.params)}) (result {" ".join(kind.results)})))'
        for module, functions in links.functions.items()
        if module in (modules or links.functions)
        for function, kind in functions.items()
    ]
    return text_module(f'(module {" ".join(imports)} (memory (export "memory") 1) {START})')


@pytest.mark.parametrize("version", ["0.2.0", "0.2.99", "0.2", "1.4.7", "0.3.0-rc-1", ""])
def test_compatible_versions(version: str) -> None:
    expected = {"0.2.0": "@0.2", "0.2.99": "@0.2", "0.2": "@0.2", "1.4.7": "@1", "0.3.0-rc-1": "@0.3.0-rc-1", "": ""}
    assert linking.compatible("a:b/c" + (f"@{version}" if version else "")) == "a:b/c" + expected[version]


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


EXIT = f'(import "{PREVIEW1}" "proc_exit" (func $exit (param i32)))'
STATE = '(memory (export "memory") 1) (global $g (mut i32) (i32.const 1)) (func $add (param i32) (global.set $g '
STATE += "(i32.add (i32.mul (global.get $g) (i32.const 3)) (local.get 0))))"
ENTRIES = {
    "initialize and start": ('(func (export "_initialize") (call $add (i32.const 1)))'
        '(func (export "_start") (call $add (i32.const 2)) (call $exit (global.get $g)))', 14),
    "initialize and default": ('(func (export "_initialize") (call $add (i32.const 1)))'
        '(func (export "") (call $add (i32.const 2)) (call $exit (global.get $g)))', 14),
    "default before start": ('(func (export "") (call $exit (i32.const 5))) (func (export "_start") unreachable)', 5),
    "default alone": ('(func (export "") (call $exit (i32.const 6)))', 6),
    "initialize alone": ('(func (export "_initialize") (call $add (i32.const 0)))', 0),
    "initialize ends it": ('(func (export "_initialize") (call $exit (i32.const 7))) (func (export ""))', 7),
    "initialize traps": ('(func (export "_initialize") unreachable) (func (export ""))', 134),
    "a memory is no function": ('(memory (export "") 1) (func (export "_start") (call $exit (i32.const 8)))', 8),
    "a start function alone": ("(func $s (call $add (i32.const 2))) (start $s)", 0),
}  # fmt: skip
"""Modules as `wasmtime run` takes them, and how they end."""


def entry(which: str) -> bytes:
    return text_module(f"(module {EXIT} {STATE} {ENTRIES[which][0]})")


@pytest.mark.parametrize("handler", ["wasmlet", "wasmlet-dense"])
async def test_where_a_module_begins(runtime: Runtime, tmp_path: Path, handler: str) -> None:
    keys = {}
    for number, which in enumerate(ENTRIES):
        path = tmp_path / f"{number}.wasm"
        path.write_bytes(entry(which))
        pod = pod_of(image=f"file://{path}", name=f"p{number}")
        keys[which] = await runtime.create(pod, Inputs(runtime_handler=handler))
    found = {which: (await runtime.ended(key)).exit_code for which, key in keys.items()}
    assert found == {which: code for which, (_, code) in ENTRIES.items()}
    assert DENSE in WasmtimeEngine.handlers.values()


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
    assert (await imports.uses_of(found)).sockets is may
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
