"""Modules made wrong: small ones of our own, changed at random in ways that leave a part of them valid.

Raw bytes are changed, and numbers in the code, in data and in section heads; sections change places, are doubled,
left out or cut; parts of one module come into another. The same seed makes the same modules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import wasmtime

from tests.guests import SOURCES

HEAD = 8

SEEDS = {
    "write": """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "hello from a module\\0a")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 8)) (i32.store (i32.const 4) (i32.const 20))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 100)))))
""",
    "compute": """
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory 1 4)
  (table 4 funcref)
  (elem (i32.const 0) $double $square $double $square)
  (global $sum (mut i32) (i32.const 7))
  (type $unary (func (param i32) (result i32)))
  (func $double (type $unary) (i32.shl (local.get 0) (i32.const 1)))
  (func $square (type $unary) (i32.mul (local.get 0) (local.get 0)))
  (func (export "_start") (local $i i32)
    (loop $again
      (global.set $sum (i32.add (global.get $sum) (call_indirect (type $unary)
        (local.get $i) (i32.and (local.get $i) (i32.const 3)))))
      (i32.store offset=16 (i32.shl (local.get $i) (i32.const 2)) (global.get $sum))
      (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 50))))
    (call $exit (i32.and (global.get $sum) (i32.const 63)))))
""",
    "grow": """
(module
  (memory 1) (table 1 funcref)
  (func (export "_start") (local $n i32)
    (loop $more
      (drop (memory.grow (i32.const 1)))
      (drop (table.grow (ref.null func) (i32.const 16)))
      (memory.fill (i32.const 0) (i32.const 65) (i32.const 65536))
      (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 8))))))
""",
    "vectors": """
(module
  (memory 1) (data (i32.const 0) "\\01\\02\\03\\04\\05\\06\\07\\08\\09\\0a\\0b\\0c\\0d\\0e\\0f\\10")
  (func (export "_start") (local $v v128) (local $n i32)
    (local.set $v (v128.load (i32.const 0)))
    (loop $more
      (local.set $v (i8x16.add (local.get $v) (i8x16.shuffle 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 0
        (local.get $v) (local.get $v))))
      (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20))))
    (v128.store (i32.const 32) (local.get $v))
    (if (f64.gt (f64.convert_i32_s (i32.load (i32.const 32))) (f64.sqrt (f64.const 2))) (then (nop)))))
""",
    "references": """
(module
  (type $pair (struct (field (mut i32)) (field (ref null $pair)))) (tag $thrown (param i32))
  (func $build (param $n i32) (result (ref null $pair))
    (if (result (ref null $pair)) (i32.eqz (local.get $n)) (then (ref.null $pair))
      (else (struct.new $pair (local.get $n) (call $build (i32.sub (local.get $n) (i32.const 1)))))))
  (func $count (param $p (ref null $pair)) (param $so_far i32) (result i32)
    (if (ref.is_null (local.get $p)) (then (return (local.get $so_far))))
    (return_call $count (struct.get $pair 1 (local.get $p)) (i32.add (local.get $so_far) (i32.const 1))))
  (func (export "_start")
    (block $caught (result i32)
      (try_table (catch $thrown $caught) (throw $thrown (call $count (call $build (i32.const 20)) (i32.const 0))))
      (i32.const 0))
    drop))
""",
    "files": """
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 64) "file")
  (func (export "_start")
    (drop (call $random (i32.const 128) (i32.const 64)))
    (drop (call $time (i32.const 1) (i64.const 0) (i32.const 256)))
    (drop (call $open (i32.const 3) (i32.const 1) (i32.const 64) (i32.const 4) (i32.const 1) (i64.const 64)
      (i64.const 64) (i32.const 0) (i32.const 8)))
    (drop (call $close (i32.load (i32.const 8))))))
""",
}


def seeds() -> list[bytes]:
    """What all others are made of: the modules above, and a component."""
    texts = [*SEEDS.values(), (SOURCES / "component.wat").read_text()]
    return [bytes(wasmtime.wat2wasm(text)) for text in texts]


def mutants(seed: int) -> Iterator[bytes]:
    """Mutated modules without end."""
    rng, whole = random.Random(seed), seeds()
    while True:
        module = rng.choice(whole)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            module = rng.choice(_WAYS)(rng, module, whole)
        yield module


def sections(module: bytes) -> list[tuple[int, bytes]]:
    """Kind and content of each section, as far as they can be told apart."""
    found, at = [], HEAD
    while at < len(module):
        kind, (size, at) = module[at], _number(module, at + 1)
        found.append((kind, module[at : at + size]))
        at += size
    return found


def joined(parts: list[tuple[int, bytes]], module: bytes) -> bytes:
    """A module of these sections, with the other one's head."""
    return module[:HEAD] + b"".join(bytes([kind]) + number(len(content)) + content for kind, content in parts)


def number(value: int) -> bytes:
    """As WebAssembly writes it (LEB128)."""
    result = b""
    while value >= 0x80:
        result += bytes([value & 0x7F | 0x80])
        value >>= 7
    return result + bytes([value])


def _number(module: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(module):
        byte = module[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80 or shift > 35:
            break
    return value, at


def _bytes(rng: random.Random, module: bytes, _: list[bytes]) -> bytes:
    """A few bytes anywhere."""
    changed = bytearray(module)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice((rng.randrange(256), 0, 0x7F, 0x80, 0xFF))
    return bytes(changed)


def _nearby(rng: random.Random, module: bytes, _: list[bytes]) -> bytes:
    """A byte of code or data by little: mostly a number, or an instruction of the same kind."""
    parts = sections(module)
    choices = [place for place, (kind, content) in enumerate(parts) if kind in (6, 9, 10, 11) and content]
    if not choices:
        return module
    place = rng.choice(choices)
    kind, content = parts[place]
    changed = bytearray(content)
    at = rng.randrange(len(changed))
    changed[at] = (changed[at] + rng.choice((-2, -1, 1, 2, 16))) % 128
    parts[place] = kind, bytes(changed)
    return joined(parts, module)


def _data(rng: random.Random, module: bytes, _: list[bytes]) -> bytes:
    """What is in the memory at the beginning; else a section of the module's own, which means nothing."""
    parts = sections(module)
    for place, (kind, content) in enumerate(parts):
        if kind == 11 and len(content) > 8:
            at = rng.randrange(6, len(content))
            parts[place] = kind, content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
            return joined(parts, module)
    own = 0, number(4) + b"made" + rng.randbytes(rng.randrange(64))
    return joined([*parts[: rng.randrange(len(parts) + 1)], own, *parts], module)


def _order(rng: random.Random, module: bytes, _: list[bytes]) -> bytes:
    """Sections change places, are doubled or left out."""
    parts = sections(module)
    if not parts:
        return module
    first, second = rng.randrange(len(parts)), rng.randrange(len(parts))
    way = rng.randrange(3)
    if way == 0:
        parts[first], parts[second] = parts[second], parts[first]
    elif way == 1:
        parts.insert(first, parts[second])
    else:
        del parts[first]
    return joined(parts, module)


def _lie(rng: random.Random, module: bytes, _: list[bytes]) -> bytes:
    """A section that says it is larger or smaller than it is, or has more entries."""
    parts = sections(module)
    if not parts:
        return module
    place, large = rng.randrange(len(parts)), rng.choice((0, 1, 127, 2**14, 2**28, 2**32 - 1))
    kind, content = parts[place]
    if rng.random() < 0.5 and content:
        parts[place] = kind, number(large) + content[1:]
        return joined(parts, module)
    head = bytes([kind]) + number(large) + content
    return joined(parts[:place], module) + head + joined(parts[place + 1 :], module)[HEAD:]


def _cut(rng: random.Random, module: bytes, _: list[bytes]) -> bytes:
    return module[: rng.randrange(len(module) + 1)]


def _cross(rng: random.Random, module: bytes, whole: list[bytes]) -> bytes:
    """One section is another module's."""
    parts, others = sections(module), sections(rng.choice(whole))
    if not parts or not others:
        return module
    kind, content = rng.choice(others)
    same = [place for place, part in enumerate(parts) if part[0] == kind]
    place = rng.choice(same) if same else rng.randrange(len(parts))
    parts[place] = kind, content
    return joined(parts, module)


_WAYS: tuple[Callable[[random.Random, bytes, list[bytes]], bytes], ...] = (
    _bytes, _nearby, _nearby, _nearby, _data, _order, _lie, _cut, _cross,
)  # fmt: skip
