"""An actor of the older generation with MessagePack: bodies are lists of numbers, messages and answers arrays without
names, and `__host_call` names no binding. `test_others` runs real ones."""

from __future__ import annotations

from pathlib import Path

from aiohttp import ClientSession
from wasmtime import wat2wasm

from tests.runtime.harness import Runtime
from tests.wascc.pods import actor_pod, serving
from tests.wascc.signing import actor

OLDER = r"""
(module
  (import "wapc" "__guest_request" (func $request (param i32 i32)))
  (import "wapc" "__guest_response" (func $response (param i32 i32)))
  (import "wapc" "__guest_error" (func $error (param i32 i32)))
  (import "wapc" "__host_call" (func $host_call (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wapc" "__host_response_len" (func $size (result i32)))
  (import "wapc" "__host_response" (func $take (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "invalid type: byte array, expected a sequence")
  (data (i32.const 64) "wascc:keyvalueAdd\92\a4hits\01")
  (data (i32.const 128) "\94\cc\c8\a2OK\81\a7x-older\a3yes\93\68\69\0a")  ;; an array, whose body is a list
  (data (i32.const 256) "body")
  ;; the body: bytes are refused, as serde refuses them
  (func $bytes (param $length i32) (result i32) (local $at i32)
    (loop $more
      (if (i32.and
            (i32.eq (i32.load (i32.add (i32.const 1024) (local.get $at))) (i32.load (i32.const 256)))
            (i32.eq
              (i32.and (i32.load8_u (i32.add (i32.const 1028) (local.get $at))) (i32.const 0xfc)) (i32.const 0xc4)))
        (then (return (i32.const 1))))
      (br_if $more (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $length))))
    (i32.const 0))
  (func (export "__guest_call") (param $operation i32) (param $message i32) (result i32)
    (call $request (i32.const 512) (i32.const 1024))
    (if (call $bytes (local.get $message))
      (then (call $error (i32.const 0) (i32.const 45)) (return (i32.const 0))))
    (if (i32.eqz
          (call $host_call (i32.const 64) (i32.const 14) (i32.const 78) (i32.const 3) (i32.const 81) (i32.const 7)))
      (then (return (i32.const 0))))
    (call $take (i32.const 2048))
    (call $response (i32.const 128) (i32.const 23))
    (i32.const 1)))
"""
"""It counts requests in the key-value store, and answers that it has."""


async def test_an_older_actor_is_served(node: Runtime, tmp_path: Path, client: ClientSession) -> None:
    image = actor(tmp_path, wat2wasm(OLDER), "http_server", "keyvalue")
    key, url = await serving(node, actor_pod(image, {"keyvalue": "memory"}))
    for _ in range(3):
        async with client.post(url, data=b"\x00\xff") as answer:
            assert (answer.status, await answer.read()) == (200, b"hi\n"), await node.log(key)
            assert answer.headers["x-older"] == "yes"
