"""Compiled modules for containers: each module is compiled once, kept in the cache, and handed out as a descriptor.

The cache is beside the images (`wasmlet.artifacts.compiled`). So node loops that share images share compiled modules,
too, and a node that restarts compiles nothing again. Compiling is done by a separate process (`compile_process`).
Compiled modules that containers may need for a restart stay locked, so that the collection does not remove them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from weakref import WeakValueDictionary

import attrs
import structlog

from wasmlet.artifacts.compiled import CompiledModules, Form
from wasmlet.artifacts.store import Store
from wasmlet.concurrency import in_thread
from wasmlet.runtime import linking
from wasmlet.runtime.engine import DENSE, PROCESS, Engine, worker_version
from wasmlet.runtime.images import compile_process
from wasmlet.runtime.images.compile_process import CompileError, CompileLimits, Unfit
from wasmlet.runtime.images.images import ImageError, Module, is_component, read
from wasmlet.runtime.images.turns import Turns, places

__all__ = ["CompileError", "CompileLimits", "Compiler"]

log = structlog.get_logger(__name__)

Announcement = Callable[[], AbstractAsyncContextManager[None]]
"""Makes a context manager that is entered while a container waits for its module to be compiled."""


@attrs.define(eq=False)
class _Compilation:
    """A compilation that is under way, and how many containers wait for it."""

    task: asyncio.Task[None]
    waiting: int = 0


@attrs.frozen
class _Kept:
    """A compiled module that was in order when it was opened."""

    descriptor: int
    seen: tuple[int, ...]

    @classmethod
    def of(cls, descriptor: int) -> _Kept:
        return cls(descriptor, _state(descriptor))

    def is_as_it_was(self) -> bool:
        """Whether it is unchanged since it was verified, and still has a name."""
        return _state(self.descriptor) == self.seen


def _state(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return found.st_nlink, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns


class Compiler:
    """Compiled modules of one engine.

    Args:
        store: the image store, after `prepare`; several compilers and several processes may share it.
        dense: compile for dense workers (many containers in one process).
        turns: limits how many modules are compiled at once; shared by all compilers of a node. None for its own.
    """

    def __init__(
        self, engine: Engine, store: Store, limits: CompileLimits, turns: Turns | None = None, *, dense: bool = False
    ) -> None:
        self._engine = engine
        self._isolation = DENSE if dense else PROCESS
        self._guest_module = engine.dense_module if dense else engine.guest_module
        self._how = (engine.name, engine.version, engine.settings, *([DENSE] if dense else []))
        self._store = store
        self._limits = limits
        self._compiled = CompiledModules(store)
        self._underway: dict[Form, _Compilation] = {}
        self._kept: dict[Form, _Kept] = {}
        self._looking: WeakValueDictionary[Form, asyncio.Lock] = WeakValueDictionary()
        self._turns = turns or Turns(places(), store.clock.monotonic)

    @contextlib.asynccontextmanager
    async def artifact(self, module: Module, announcement: Announcement = contextlib.nullcontext) -> AsyncIterator[int]:
        """The compiled module as an open descriptor, compiled now if it has not been.

        Raises:
            CompileError: it cannot be compiled, or was found not to fit before.
            ImageError: the file is another one by now.
        """
        form = self._form(module.digest)
        descriptor = self._copy(form)
        if descriptor is None and form not in self._underway:
            descriptor = await self._looked_for(form)
            if descriptor is None and (why := await in_thread(self._compiled.refused, self._refusal(module.digest))):
                raise Unfit(module.image, why)
        if descriptor is None:
            async with announcement():
                await self._compile_once(module, form)
            descriptor = await self._looked_for(form)
            if descriptor is None:
                raise CompileError(f"the compiled form of module {module.image} vanished")
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    async def keep(self, used: Collection[str]) -> None:
        """Keep the compiled forms of these modules, where there are any, and let all others go.

        Args:
            used: digests, hexadecimal, of the modules of all containers that are here.
        """
        left = [self._kept.pop(form) for form in list(self._kept) if form.module not in used]
        if left:
            await in_thread(self._let_go, left)
        for form in map(self._form, used):
            if form in self._kept:
                continue
            descriptor = await self._find(form)
            if descriptor is None:
                continue
            if form in self._kept:  # by now
                os.close(descriptor)
            else:
                self._kept[form] = _Kept.of(descriptor)

    def close(self) -> None:
        """Close everything that is kept; it may be collected from now on."""
        self._let_go(list(self._kept.values()))
        self._kept.clear()

    def _let_go(self, left: Collection[_Kept]) -> None:
        for kept in left:
            self._compiled.used(kept.descriptor)
            os.close(kept.descriptor)

    def discard(self, module_digest: str) -> None:
        """Drop a compiled module that could not be loaded; the next container compiles it again."""
        form = self._form(module_digest)
        if (kept := self._kept.pop(form, None)) is not None:
            os.close(kept.descriptor)
        self._compiled.discard(form)

    def _form(self, digest: str) -> Form:
        return Form(digest, self._how)

    def _refusal(self, digest: str) -> Form:
        """The key for a recorded refusal. It also depends on the in-worker module and on the rules of `linking`."""
        rules = (worker_version(self._engine, self._guest_module), str(linking.RULES))
        return Form(digest, (*self._how, *rules))

    def _copy(self, form: Form) -> int | None:
        """A descriptor of the compiled module that is kept open, if it is in order; it shares the lock."""
        kept = self._kept.get(form)
        return os.dup(kept.descriptor) if kept is not None and kept.is_as_it_was() else None

    async def _looked_for(self, form: Form) -> int | None:
        """A descriptor of the compiled module, which is kept from now on. One looks for it, and the others wait."""
        turn = self._looking.setdefault(form, asyncio.Lock())
        async with turn:
            if (descriptor := self._copy(form)) is None and (descriptor := await self._find(form)) is not None:
                if (kept := self._kept.pop(form, None)) is not None:
                    os.close(kept.descriptor)
                self._kept[form] = _Kept.of(os.dup(descriptor))
        return descriptor

    async def _find(self, form: Form) -> int | None:
        try:
            return await self._compiled.open(form)
        except OSError as error:
            raise CompileError(f"compiled modules cannot be read: {error.strerror}") from error

    async def _compile_once(self, module: Module, form: Form) -> None:
        """Wait for the one compilation of this module, which is cancelled when no container waits for it any more."""
        underway = self._underway.get(form)
        if underway is None:
            underway = self._underway[form] = _Compilation(asyncio.create_task(self._compile(module, form)))
        underway.waiting += 1
        try:
            await asyncio.shield(underway.task)
        finally:
            underway.waiting -= 1
            if not underway.waiting:
                del self._underway[form]
                underway.task.cancel()
                await asyncio.wait([underway.task])

    async def _compile(self, module: Module, form: Form) -> None:
        try:
            async with self._turns.reading, self._copied(module) as source:
                if is_component(source) and self._isolation not in self._engine.components:
                    raise CompileError(self._no_components(module))
                await self._check(module, source)
                size = os.fstat(source).st_size
            async with self._compiled.making(form) as part:
                if part is None:
                    return
                async with self._turns.of(size), self._copied(module) as source:
                    began = self._store.clock.monotonic()
                    await compile_process.run(
                        self._engine, self._guest_module, module.image, source, part.descriptor, self._limits
                    )
                    seconds = round(self._store.clock.monotonic() - began, 3)
            log.info("compiled", module=module.image, digest=module.digest, engine=self._engine.name, seconds=seconds)
        except Unfit as unfit:
            with contextlib.suppress(OSError):  # then it will be found out again
                await in_thread(self._compiled.refuse, self._refusal(module.digest), unfit.why)
            raise
        except OSError as error:
            raise CompileError(f"module {module.image} cannot be compiled: {error.strerror}") from error

    @contextlib.asynccontextmanager
    async def _copied(self, module: Module) -> AsyncIterator[int]:
        """A copy: what is compiled must be what was hashed, even if somebody changes the file in the meantime.

        It is in memory. So a module has none while it waits for its turn.
        """
        source = os.memfd_create("module", os.MFD_CLOEXEC)
        try:
            if await in_thread(read, module.path, self._limits.module_bytes, source) != module.digest:
                raise ImageError(f"module {module.image} changed while it was read")
            yield source
        finally:
            os.close(source)

    async def _check(self, module: Module, source: int) -> None:
        """Check that the engine provides what the module imports, before the module is compiled."""
        engine = self._engine
        if engine.links is not None:
            name, path = f"{engine.name} {engine.version}", Path(f"/proc/self/fd/{source}")
            if why := await in_thread(linking.unfit, path, engine.links, name):
                raise Unfit(module.image, why)

    def _no_components(self, module: Module) -> str:
        engine = self._engine
        here = [name for name, isolation in engine.handlers.items() if isolation == self._isolation]
        others = [name for name, isolation in engine.handlers.items() if isolation in engine.components]
        instead = f", or a pod of handler {' or '.join(others)}" if others else ""
        return (
            f"module {module.image} is a WebAssembly component, which {engine.name} does not run in pods of handler "
            f"{' or '.join(here)}; expected a module built for WASI preview 1 (target wasm32-wasip1){instead}"
        )
