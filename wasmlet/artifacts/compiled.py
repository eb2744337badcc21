"""Compiled modules beside the content store: each is a file that says what it is and what it has to be.

    compiled/<module>-<how>-<checksum>

`module` is the module's digest; `how` is a digest of all that makes compiled forms of one module differ: the engine,
its version and settings, the machine. The checksum is that of the file, so a file that was cut short or altered is
found out before it is used, and removed; it is then compiled anew. What is here is native code, so what others
could have written is not trusted either. A file gets its name when it is whole and on the disk, and is never changed.

Whoever uses one holds a shared lock on it, on a descriptor that may be handed on, and `collection` removes nothing that
is locked. A file's time of access says when it was used last; it is set here, whatever the file system does with it.

    refused/<module>-<how>

says why a module has no compiled form and never will have one, so that nobody tries again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import structlog

from wasmlet.artifacts.files import Part, lock, write_whole
from wasmlet.artifacts.store import Store
from wasmlet.concurrency import in_thread, opened_in_thread

log = structlog.get_logger(__name__)

FORMAT = 1
"""Part of every name; grows when what is stored means something else."""

_HOW = 32
_LONGEST_REASON = 16 * 1024
_CHUNK = 1024 * 1024


@attrs.frozen
class Form:
    """One compiled form of a module.

    Attributes:
        module: SHA-256 of the module, hexadecimal.
        how: whatever makes compiled forms of one module differ.
    """

    module: str
    how: tuple[str, ...]

    @property
    def name(self) -> str:
        """What its file's name begins with."""
        key = json.dumps([FORMAT, os.uname().machine, *self.how])
        return f"{self.module}-{hashlib.sha256(key.encode()).hexdigest()[:_HOW]}"


class CompiledModules:
    """The compiled modules of a store. `find` and `discard` block; `open` does as `find`, without blocking."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._verified: dict[Path, tuple[int, ...]] = {}

    def find(self, form: Form) -> int | None:
        """The compiled module, open and locked, the caller's to close; None where there is none that is as it was.

        Raises:
            OSError: the disk fails.
        """
        for path in self._files(form):
            try:
                descriptor = lock(path, create=False, shared=True)
            except OSError as error:  # no file of ours
                self._remove(path, error.strerror or str(error))
                continue
            if descriptor is None:  # just being removed
                continue
            try:
                if not (wrong := self._wrong(path, descriptor)):
                    self.used(descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            self._remove(path, wrong)
        return None

    async def open(self, form: Form) -> int | None:
        """Do as `find`, in a thread: return the compiled module, open and locked, or None."""
        return await opened_in_thread(lambda: self.find(form), _close)

    @asynccontextmanager
    async def making(self, form: Form) -> AsyncIterator[Part | None]:
        """Hold the right to compile it, which one process at a time has among those that share the store.

        What is written to the descriptor of the file that is given is kept if the block succeeds; None means that
        another has compiled it meanwhile.
        """
        async with self._store.locked(f"compiled-{form.name}"):
            if (descriptor := await self.open(form)) is not None:
                os.close(descriptor)
                yield None
                return
            with self._store.part(None) as part:
                yield part
                await in_thread(self._keep, form, part)

    def discard(self, form: Form) -> None:
        """Remove one that an engine could not load."""
        for path in self._files(form):
            self._remove(path, "the engine cannot load it")

    def refuse(self, form: Form, why: str) -> None:
        """Record why there is no such form; blocks.

        Raises:
            OSError: the disk fails.
        """
        write_whole(self._store.ingest, self._store.refused / form.name, why.encode()[:_LONGEST_REASON])

    def refused(self, form: Form) -> str:
        """Why there is no such form; "" where nothing is known. Blocks."""
        with contextlib.suppress(OSError), open(self._store.refused / form.name, "rb") as file:
            return file.read(_LONGEST_REASON).decode("utf-8", "replace")
        return ""

    def _files(self, form: Form) -> list[Path]:
        start = f"{form.name}-"
        return [self._store.compiled / name for name in os.listdir(self._store.compiled) if name.startswith(start)]

    def _keep(self, form: Form, part: Part) -> None:
        part.rehash()
        # Guests may be other users, and open it by a descriptor; nobody else reaches the directory.
        os.fchmod(part.descriptor, 0o644)
        part.keep(self._store.compiled / f"{form.name}-{part.found.partition(':')[2]}")

    def _wrong(self, path: Path, descriptor: int) -> str:
        """What is wrong with a file; "" for nothing."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return "expected a file of ours that nobody else may write"
        # Read once in a process's life: this is about disks and accidents; nobody else can write it.
        seen = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._verified.get(path) != seen:
            digest = hashlib.sha256()
            offset = 0
            while chunk := os.pread(descriptor, _CHUNK, offset):
                digest.update(chunk)
                offset += len(chunk)
            if digest.hexdigest() != path.name.rpartition("-")[2]:
                return "it is not what was written"
            self._verified[path] = seen
        return ""

    def used(self, descriptor: int) -> None:
        """Record that one from `find` is used now, so that it is not removed as one of the oldest."""
        now = int(self._store.clock.now().timestamp() * 1e9)
        with contextlib.suppress(OSError):
            os.utime(descriptor, ns=(now, os.fstat(descriptor).st_mtime_ns))

    def _remove(self, path: Path, why: str) -> None:
        self._verified.pop(path, None)
        log.warning("a compiled module is dropped, and will be compiled again", file=str(path), why=why)
        with contextlib.suppress(OSError):
            path.unlink()


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
