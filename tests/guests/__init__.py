"""Guests for tests: C sources, and how they are built once for all tests and all processes that run them."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

SOURCES = Path(__file__).parent
BUILT = SOURCES.parents[1] / "build" / "guests"


def build(name: str, compile_guest: Callable[..., None]) -> Path:
    """The module of `<name>.c`, built unless it is there already; its file is named `<name>.wasm`."""
    source = SOURCES / f"{name}.c"
    directory = BUILT / hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    module = directory / f"{name}.wasm"
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            unfinished = directory / str(os.getpid()) / module.name  # the module is named after its file
            unfinished.parent.mkdir(exist_ok=True)
            compile_guest(source, unfinished, "-O1")
            unfinished.rename(module)
            unfinished.parent.rmdir()
    return module
