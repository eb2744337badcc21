"""Compile modules, each once, in a process of its own, and keep the result.

The store is addressed by content: the module's digest, the engine, its version and its settings. A compiled module is
native code, so the store is a directory that nobody else may write, and what is in it was put there whole by a rename.
The worker's half is `wasmlet.worker.compiler`; a container gets the artifact as a descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import structlog

from wasmlet.errors import WasmletError
from wasmlet.runtime.engine import DENSE, Engine
from wasmlet.runtime.images import ImageError, Module, read
from wasmlet.runtime.worker import WORKER, worker_environment

log = structlog.get_logger(__name__)

FORMAT = 1
"""Part of every key; grows when what is stored means something else."""


class CompileError(WasmletError):
    """The module cannot be compiled or does not fit the engine; the message says why."""


@attrs.define(eq=False)
class _Compilation:
    """One that is under way, and how many containers wait for it."""

    task: asyncio.Task[None]
    waiting: int = 0


class Compiler:
    """Compiled modules of one engine.

    Args:
        directory: of the store; made when there is none.
        seconds: how long one compilation may take.
        max_bytes: of a module.
        dense: compile for the engine's dense class.
    """

    def __init__(self, engine: Engine, directory: Path, *, seconds: float, max_bytes: int, dense: bool = False) -> None:
        self._engine = engine
        self._module = engine.dense_module if dense else engine.guest_module
        self._class = [DENSE] if dense else []
        self._directory = directory
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._underway: dict[Path, _Compilation] = {}
        self._slots = asyncio.Semaphore(max(1, len(os.sched_getaffinity(0))))

    def prepare(self) -> None:
        """Make the store, and clear away what an interrupted compilation left.

        Raises:
            WasmletError: others may write it.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._directory.stat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise WasmletError(f"{self._directory} holds compiled code, and must belong to and be written by us only")
        for left in self._directory.glob("*.new"):
            left.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def artifact(self, module: Module) -> AsyncIterator[int]:
        """The compiled module as an open descriptor, compiled now if it has not been.

        Raises:
            CompileError: it cannot be compiled.
            ImageError: the file is another one by now.
        """
        path = self._path(module.digest)
        descriptor = _open(path)
        if descriptor is None:
            await self._compiled(module, path)
            descriptor = _open(path)
            if descriptor is None:
                raise CompileError(f"the compiled module {path} vanished")
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def discard(self, module_digest: str) -> None:
        """Drop a compiled module that could not be loaded; the next container compiles it again."""
        self._path(module_digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        engine = self._engine
        key = json.dumps(
            [FORMAT, digest, engine.name, engine.version, engine.settings, os.uname().machine, *self._class]
        )
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()}.bin"

    async def _compiled(self, module: Module, path: Path) -> None:
        """Wait for the one compilation of this module, which ends early only when nobody waits for it any more."""
        underway = self._underway.get(path)
        if underway is None:
            underway = self._underway[path] = _Compilation(asyncio.create_task(self._compile(module, path)))
        underway.waiting += 1
        try:
            await asyncio.shield(underway.task)
        finally:
            underway.waiting -= 1
            if not underway.waiting:
                del self._underway[path]
                underway.task.cancel()
                await asyncio.wait([underway.task])

    async def _compile(self, module: Module, path: Path) -> None:
        unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
        # A copy, so that what is compiled is what was hashed, whatever becomes of the file meanwhile.
        source = os.memfd_create("module", os.MFD_CLOEXEC)
        target = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(target, 0o644)  # for guests that are other users; who is not handed it does not reach the directory
        try:
            if await asyncio.to_thread(read, module.path, self._max_bytes, source) != module.digest:
                raise ImageError(f"module {module.path} changed while it was read")
            async with self._slots:
                answer = await self._run(source, target)
            if "error" in answer:
                raise CompileError(f"module {module.path}: {answer['error']}")
            if "broken" in answer:
                raise CompileError(f"{self._engine.name} failed to compile module {module.path}: {answer['broken']}")
            unfinished.rename(path)
            log.info("compiled", module=str(module.path), digest=module.digest)
        finally:
            os.close(source)
            os.close(target)
            unfinished.unlink(missing_ok=True)

    async def _run(self, source: int, target: int) -> dict[str, str]:
        process = await asyncio.create_subprocess_exec(
            str(self._engine.python), "-I", "-X", "utf8", str(WORKER), "compile",
            str(self._module), str(source), str(target),
            pass_fds=(source, target), env=worker_environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._seconds):
                answer, complaint = await process.communicate()
        except TimeoutError:
            raise CompileError(f"compiling took longer than the {self._seconds:g} s allowed") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        try:
            result = json.loads(answer)
        except ValueError:
            said = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise CompileError(f"the compiler ended with status {process.returncode}: {said or 'no message'}") from None
        return dict(result)


def _open(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        os.close(descriptor)
        raise CompileError(f"{path} was not written by us: expected a file of ours that nobody else may write")
    if not found.st_mode & 0o004:  # of a release in which all guests were one user
        os.fchmod(descriptor, 0o644)
    return descriptor
