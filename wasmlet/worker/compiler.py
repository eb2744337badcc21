"""Compile one module in a process of its own: what a module does to a compiler stays here, and a time limit can end it.

`compile <engine module> <source descriptor> <artifact descriptor>` reads WebAssembly from the one and writes the
compiled module to the other; standard output gets one JSON object: `{}`, or `{"error": text}` where the module is at
fault, or `{"broken": text}` where the engine is. `wasmlet.runtime.compile` runs it.
"""

from __future__ import annotations

import json
import os
import resource
import signal

from . import child, linux
from .zygote import load


def main(arguments: list[str]) -> int:
    """Compile; 0 where the answer was given, whatever it is."""
    linux.die_with_parent(signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = os.dup(1)
    os.dup2(2, 1)  # what an engine prints is not the answer
    source, artifact = int(arguments[1]), int(arguments[2])
    result: dict[str, str] = {}
    try:
        engine = load(arguments[0])
        wasm = b"".join(child.iter_pread(source, os.fstat(source).st_size))
        compiled = memoryview(engine.compile(wasm))
        while compiled:
            compiled = compiled[os.write(artifact, compiled) :]
    except ValueError as error:
        result = {"error": str(error)}
    except Exception as error:
        result = {"broken": f"{type(error).__name__}: {error}"}
    os.write(answer, json.dumps(result).encode())
    return 0
