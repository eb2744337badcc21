"""Guests that come from one process get random numbers of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs
import pytest
import wasmtime

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.inputs import Inputs

GUEST = """(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $random (i32.const 100) (i32.const 16)))
    (i32.store (i32.const 0) (i32.const 100))
    (i32.store (i32.const 4) (i32.const 16))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
PODS = 24
"""More than the children that wait for a container, so that some are forked for theirs."""


async def drawn(runtime: Runtime, directory: Path, handler: str) -> list[bytes]:
    """What guests have drawn: some one after the other, then many at once."""
    module = directory / "random.wasm"
    module.write_bytes(wasmtime.wat2wasm(GUEST))

    async def one(number: int) -> bytes:
        pod = pod_of(image=f"file://{module}", name=f"p{number}")
        key = await runtime.create(pod, attrs.evolve(Inputs(), runtime_handler=handler))
        assert (await runtime.ended(key)).exit_code == 0
        return await runtime.log(key)

    found = [await one(number) for number in range(4)]
    return found + await asyncio.gather(*(one(number) for number in range(4, PODS)))


@pytest.mark.parametrize("handler", ["wasmlet", "wasmlet-dense"])
async def test_no_two_guests_get_the_same_random_bytes(runtime: Runtime, tmp_path: Path, handler: str) -> None:
    found = await drawn(runtime, tmp_path, handler)
    assert {len(one) for one in found} == {16}
    assert len(set(found)) == PODS
