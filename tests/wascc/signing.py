"""Actors for tests: compiled or written here, and signed with keys of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import wasmtime
from wasmlet_wascc import Claims, Seed
from wasmlet_wascc.claims import signed

from tests import guests

EXAMPLES = Path(__file__).parents[2] / "examples" / "wascc"
FLAGS = ("-target", "wasm32-freestanding", "-nostdlib", "-Os", "-s", "-Wl,--no-entry", "-Wl,-z,stack-size=16384")
ACCOUNT, MODULE = Seed("account", bytes(range(32))), Seed("module", bytes(32))

ACTOR = """
(module
  (import "wapc" "__guest_request" (func $request (param i32 i32)))
  (import "wapc" "__guest_response" (func $response (param i32 i32)))
  (import "wapc" "__guest_error" (func $error (param i32 i32)))
  (import "wapc" "__host_call" (func $host_call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wapc" "__host_response_len" (func $host_response_len (result i32)))
  (import "wapc" "__host_error_len" (func $host_error_len (result i32)))
  (import "wapc" "__host_error" (func $host_error (param i32)))
  (import "wapc" "__console_log" (func $console_log (param i32 i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2 {most})
  {data}
  (func (export "__guest_call") (param $operation i32) (param $message i32) (result i32)
    {body}))
"""
"""An actor whose body is given, in the text format."""


def unsigned(name: str) -> bytes:
    """The actor `name` of the examples, compiled now or before."""
    source, header = EXAMPLES / f"{name}.c", EXAMPLES / "actor.h"
    parts = [source.read_bytes(), header.read_bytes(), *(flag.encode() for flag in FLAGS)]
    made = guests.kept(name, parts, lambda module: guests.compile_c(source, module, *FLAGS))
    return made.read_bytes()


def written(body: str, data: str = "", most: str = "4") -> bytes:
    """An actor with this body of `__guest_call`; `data`: more of its fields."""
    return bytes(wasmtime.wat2wasm(ACTOR.replace("{body}", body).replace("{data}", data).replace("{most}", most)))


def claims(*capabilities: str, account: Seed = ACCOUNT, **more: Any) -> Claims:
    """Claims on these capabilities; `wascc:` may be left out."""
    names = tuple(name if ":" in name else f"wascc:{name}" for name in capabilities)
    found = Claims(account.public.text, MODULE.public.text, name="test", capabilities=names)
    return attrs.evolve(found, **more)


def actor(directory: Path, wasm: bytes, *capabilities: str, name: str = "actor", **more: Any) -> str:
    """The image of an actor that is signed and written to that directory."""
    file = directory / f"{name}.wasm"
    file.write_bytes(signed(wasm, claims(*capabilities, **more), more.get("account", ACCOUNT)))
    return f"file://{file}"


def relay() -> bytes:
    """The actor that asks its host for whatever a request says."""
    source = Path(__file__).with_name("relay.c")
    parts = [source.read_bytes(), (EXAMPLES / "actor.h").read_bytes(), *(flag.encode() for flag in FLAGS)]
    made = guests.kept("relay", parts, lambda module: guests.compile_c(source, module, *FLAGS))
    return made.read_bytes()
