"""The guests that pods run: WASI commands, one that writes a line and sleeps, and one that computes.

They are WebAssembly text, which wasmtime converts to modules, so that no compiler is needed. `workers` finds the
processes that run them; `group_memory` and `pss` tell their memory.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import wasmtime

from wasmlet.worker.supervisor.cgroups import LEAF, trees

SLEEPER = r"""
(module
  ;; files
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "ready\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))              ;; iovec: the text, its length
    (i32.store (i32.const 4) (i32.const 6))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 144) (i32.const 0))             ;; subscription at 128: the only clock that wasmer waits for,
    (i64.store (i32.const 152) (i64.const 1000000000000)) ;; a thousand seconds from now
    (loop $forever
      (drop (call $poll (i32.const 128) (i32.const 192) (i32.const 1) (i32.const 240)))
      (br $forever))))
"""


_FILES = """(import "wasi_snapshot_preview1" "path_open"
    (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"""

SPINNER = r"""
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $now (param i32 i64 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start") (local $left i32) (local $at i32) (local $sum i64) (local $took i64)
    (drop (call $now (i32.const 1) (i64.const 1) (i32.const 0)))
    (local.set $left (i32.const 100000000))
    (loop $again
      (local.set $at (i32.and (i32.wrap_i64 (local.get $sum)) (i32.const 65528)))
      (local.set $sum
        (i64.add
          (i64.rotl (i64.mul (local.get $sum) (i64.const 6364136223846793005)) (i64.const 17))
          (i64.xor (i64.load offset=1024 (local.get $at)) (i64.extend_i32_u (local.get $left)))))
      (i64.store offset=1024 (local.get $at) (local.get $sum))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (drop (call $now (i32.const 1) (i64.const 1) (i32.const 8)))
    (local.set $took (i64.sub (i64.load (i32.const 8)) (i64.load (i32.const 0))))
    (i32.store8 (i32.const 48) (i32.const 10))                ;; nanoseconds in decimal, from the last digit back
    (local.set $at (i32.const 48))
    (loop $digits
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $took) (i64.const 10)))))
      (br_if $digits (i64.ne (local.tee $took (i64.div_u (local.get $took) (i64.const 10))) (i64.const 0))))
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (i32.sub (i32.const 49) (local.get $at)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""
"""Computes for some tenths of a second, and writes how many nanoseconds that took."""


def image_of(name: str, text: str, directory: Path) -> str:
    """Write the module of a guest to that directory. Returns its image reference."""
    module = directory / f"{name}.wasm"
    module.write_bytes(wasmtime.wat2wasm(text))
    return f"file://{module}"


def sleeper(directory: Path, *, files: bool = False) -> str:
    """The image of the guest that sleeps.

    Args:
        files: it could open files, so that its pods have directories of their own.
    """
    return image_of("sleeper", SLEEPER.replace(";; files", _FILES if files else ""), directory)


def workers(state_dir: Path) -> list[int]:
    """The processes below the node that has this state directory: the shim, its zygotes and their children."""
    children: dict[int, list[int]] = {}
    shims = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"shim" in words and any(word.startswith(bytes(state_dir)) for word in words):
                    shims.append(int(entry.name))
    found, left = [], shims
    while left:
        found.append(left.pop())
        left += children.get(found[-1], ())
    return sorted(set(found))


def group_memory(state_dir: Path) -> float | None:
    """The memory of this node's workers in KiB, by their control groups, with kernel memory; None without groups.

    The shim and its zygotes are in one group, and all containers in the group beside it.
    """
    for pid in workers(state_dir):
        for tree in trees():
            usage = {1: "memory.usage_in_bytes", 2: "memory.current"}[tree.version]
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if set(controllers.split(",")) & tree.controllers or (tree.version == 2 and not controllers):
                    group = Path(tree.top + path)
                    while group.name and not group.name.startswith("wasmlet-"):
                        group = group.parent
                    both = [group.with_name(group.name.removesuffix(LEAF) + part) for part in ("", LEAF) if group.name]
                    found = [int((each / usage).read_text()) for each in both if (each / usage).exists()]
                    if found:
                        return sum(found) / 1024
    return None


def pss(pids: list[int]) -> float:
    """Memory of some processes together in MiB; a page that several of them share counts once."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
