"""Modules written as text, for what tests ask of an engine: what they import, and where they begin."""

from __future__ import annotations

import wasmtime

from wasmlet.runtime import Links
from wasmlet.runtime.wasi import PREVIEW1

START = '(func (export "_start"))'


def text_module(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def imports_of(*names: tuple[str, str]) -> str:
    return " ".join(f'(import "{module}" "{name}" (func))' for module, name in names)


def all_functions(links: Links, *modules: str) -> bytes:
    """A module that imports them."""
    imports = [
        f'(import "{module}" "{function}" (func (param {" ".join(kind.params)}) (result {" ".join(kind.results)})))'
        for module, functions in links.functions.items()
        if module in (modules or links.functions)
        for function, kind in functions.items()
    ]
    return text_module(f'(module {" ".join(imports)} (memory (export "memory") 1) {START})')


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
