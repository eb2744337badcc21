"""Compiles one module in a process of its own: a module that crashes or exhausts the compiler harms nothing else.

    compile <engine module> <source descriptor> <artifact descriptor> <bytes of memory> <parent's pid>

The process reads WebAssembly from the source descriptor and writes the compiled module to the artifact descriptor. It
prints one JSON object: `{}` for success, `{"error": text}` if the module is at fault, `{"broken": text}` if the engine
is at fault, or if memory or disk space ran out. The engine may also end the process without an answer.
`wasmlet.runtime.images.compile_process` starts this process.
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
    """Compile, and print the answer. Returns 0 if there was any answer."""
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
        _limit(resource.RLIMIT_FSIZE, memory)  # the compiled module was in memory before it was written
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
    """The directories from which an engine may have to load parts of itself while it compiles."""
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
    return [os.path.dirname(module), sys.base_prefix, *(path for path in sys.path if path), *system]


def _lower_priority() -> None:
    """Give running pods priority over this process: for the CPU, and when memory is short."""
    os.nice(_NICE)
    for file, text in (("autogroup", _NICE), ("oom_score_adj", 1000)):
        with contextlib.suppress(OSError), open(f"/proc/self/{file}", "w", encoding="ascii") as opened:
            opened.write(str(text))  # where Linux groups processes by session, this is the weight of the session


def _limit(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))
