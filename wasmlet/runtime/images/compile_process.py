"""Compiles one module in a process of its own, with limits: the node loop's side of `wasmlet.worker.guest.compiler`.

If a module takes too long, needs too much memory or crashes the compiler, only its own container cannot start, and the
message says which limit to raise. The process has a lower priority than running guests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import attrs

from wasmlet.concurrency import reap
from wasmlet.errors import WasmletError
from wasmlet.runtime.engine import Engine
from wasmlet.runtime.shim.records import WORKER, worker_environment
from wasmlet.sizes import size

_MOST_SAID = 64 * 1024
_MOST_SHOWN = 500
_NO_MEMORY = ("memory allocation of", "cannot allocate memory", "os error 12", "memoryerror", "out of memory")
"""Texts (in lower case) that engines and allocators print when memory runs out."""


class CompileError(WasmletError):
    """The module cannot be compiled or does not fit the engine; the message says why."""


class Unfit(CompileError):
    """The module is at fault: this version of the engine can never run it.

    Attributes:
        why: the message without the module's name.
    """

    def __init__(self, module: str, why: str) -> None:
        super().__init__(f"module {module}: {why}")
        self.why = why


@attrs.frozen
class CompileLimits:
    """What compiling one module may take.

    Attributes:
        seconds: how long it may take.
        memory: the most bytes of the process's writable private memory (RLIMIT_DATA), and of the compiled module.
        module_bytes: the largest module.
    """

    seconds: float
    memory: int
    module_bytes: int


async def run(engine: Engine, guest_module: Path, module: str, source: int, target: int, limits: CompileLimits) -> None:
    """Compile the module in `source` and write the result to `target`; both are file descriptors.

    Args:
        guest_module: the engine's in-worker module that compiles for the class of the container.
        module: the name of the module for error messages.

    Raises:
        Unfit: the engine says that the module is at fault.
        CompileError: see there.
    """
    process = await asyncio.create_subprocess_exec(
        str(engine.python), "-I", "-X", "utf8", str(WORKER), "compile",
        str(guest_module), str(source), str(target), str(limits.memory), str(os.getpid()),
        pass_fds=(source, target), env=worker_environment(), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(limits.seconds):
            answer, said = await asyncio.gather(_end_of(process.stdout), _end_of(process.stderr))
            status = await process.wait()
    except TimeoutError:
        raise CompileError(
            f"compiling module {module} took longer than the {limits.seconds:g} s allowed; --compile-timeout sets it"
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await reap(process)
    _judge(engine, module, limits, _result(answer), status, said.decode("utf-8", "replace"))


def _judge(
    engine: Engine, module: str, limits: CompileLimits, result: dict[str, str] | None, status: int, said: str
) -> None:
    if result == {}:
        return
    found = result if result is not None else {"said": said}
    if any(sign in text.lower() for text in found.values() for sign in _NO_MEMORY):
        raise CompileError(
            f"compiling module {module} takes more memory than the {size(limits.memory)} allowed; "
            "--compile-memory sets it"
        )
    if "error" in found:
        raise Unfit(module, _short(found["error"]))
    if "broken" in found:
        raise CompileError(f"{engine.name} failed to compile module {module}: {_short(found['broken'])}")
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    last = said.strip().rpartition("\n")[2]
    raise CompileError(f"compiling module {module}: the compiler ended with {how}: {_short(last) or 'no message'}")


def _result(answer: bytes) -> dict[str, str] | None:
    """What the process has answered; None where that is no answer."""
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else None


async def _end_of(stream: asyncio.StreamReader) -> bytes:
    """The last of what a process writes, which may be more than anybody wants to keep."""
    kept = b""
    while chunk := await stream.read(_MOST_SAID):
        kept = (kept + chunk)[-_MOST_SAID:]
    return kept


def _short(text: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
