"""What pods run where something has to run: a WASI command that writes one line and sleeps until it is interrupted.

It is here as text, of which the engine makes the module, so that nothing has to be installed to compile it. `workers`
finds the processes that run it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import wasmtime

SLEEPER = r"""
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "ready\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))              ;; iovec: the text, its length
    (i32.store (i32.const 4) (i32.const 6))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 144) (i32.const 1))             ;; subscription at 128: the monotonic clock,
    (i64.store (i32.const 152) (i64.const 1000000000000)) ;; a thousand seconds from now
    (loop $forever
      (drop (call $poll (i32.const 128) (i32.const 192) (i32.const 1) (i32.const 240)))
      (br $forever))))
"""


def sleeper(directory: Path) -> str:
    """The image of the guest: its module is written to that directory."""
    module = directory / "sleeper.wasm"
    module.write_bytes(wasmtime.wat2wasm(SLEEPER))
    return f"file://{module}"


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


def pss(pids: list[int]) -> float:
    """Memory of some processes together in MiB; a page that several of them share counts once."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
