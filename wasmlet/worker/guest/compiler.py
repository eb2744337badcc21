"""Compile one module in a process of its own: what a module does to a compiler stays here, and limits can end it.

`compile <engine module> <source descriptor> <artifact descriptor> <bytes of memory> <process>` reads WebAssembly from
the one and writes the compiled module to the other, for that process, its parent. Standard output gets one JSON object:
`{}`, or `{"error": text}` where the module is at fault, or `{"broken": text}` where the engine is, or where memory or
the disk ran out. An engine may also end the process there and then. `wasmlet.runtime.images.compile_process` runs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys

from .. import linux
from . import child
from .confine import Confinement
from .zygote import load

_NICE = 5


def main(arguments: list[str]) -> int:
    """Compile; 0 where the answer was given, whatever it is."""
    linux.die_with_parent(signal.SIGKILL)
    if os.getppid() != int(arguments[4]):  # the parent has ended already
        return 1
    _lower_priority()
    answer = os.dup(1)
    os.dup2(2, 1)  # standard output has the answer, so what an engine prints goes to standard error
    source, artifact, memory = int(arguments[1]), int(arguments[2]), int(arguments[3])
    result: dict[str, str] = {}
    try:
        confinement = Confinement()
        engine = load(arguments[0])
        _limit(resource.RLIMIT_DATA, memory)  # not RLIMIT_AS: threads reserve much more than they use
        _limit(resource.RLIMIT_FSIZE, memory)  # what is written was in memory before
        confinement.confine_compiler(_readable(arguments[0]))
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


def _readable(module: str) -> list[str]:
    """Where an engine may load parts of itself from only when it compiles."""
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    return [os.path.dirname(module), sys.base_prefix, *(path for path in sys.path if path), *system]


def _lower_priority() -> None:
    """Let pods that run go first: at the processor, and where memory is short."""
    os.nice(_NICE)
    for file, text in (("autogroup", _NICE), ("oom_score_adj", 1000)):
        with contextlib.suppress(OSError), open(f"/proc/self/{file}", "w", encoding="ascii") as opened:
            opened.write(str(text))  # where Linux groups processes by session, this is the weight of the session


def _limit(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))
