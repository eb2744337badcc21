"""Guests for tests: C sources, and how they are built once for all tests and all processes that run them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

SOURCES = Path(__file__).parent
BUILD = SOURCES.parents[1] / "build"
BUILT = BUILD / "guests"


def compile_c(source: Path, module: Path, *arguments: str) -> None:
    """Compile C for WASI; more arguments go to the compiler.

    The compiler's cache is kept in `build/`, where processes share it: only the first build ever takes long.
    """
    cache = str(BUILD / "zig")
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", *arguments, "-o", module, source]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert answer.returncode == 0, f"{source} does not compile:\n{answer.stderr}"


def build(name: str, compile_guest: Callable[..., None], folder: Path = SOURCES) -> Path:
    """The module of `<name>.c` in this folder, built unless it is there already; its file is named `<name>.wasm`.

    A component is made of the WIT file beside it, too.
    """
    source = folder / f"{name}.c"
    parts = [part.read_bytes() for part in (source, source.with_suffix(".wit")) if part.exists()]
    return kept(name, parts, lambda module: compile_guest(source, module, "-O1"))


def kept(name: str, parts: Iterable[bytes], make: Callable[[Path], None]) -> Path:
    """What `make` makes of these parts, made unless it is there already; its file is named `<name>.wasm`."""
    directory = BUILT / hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    module = directory / f"{name}.wasm"
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            unfinished = directory / str(os.getpid()) / module.name  # the module is named after its file
            unfinished.parent.mkdir(exist_ok=True)
            make(unfinished)
            unfinished.rename(module)
            unfinished.parent.rmdir()
    return module
