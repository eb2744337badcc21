"""The cache of compiled modules, in the directory of the content store. Each compiled module is one file:

    compiled/<module>-<how>-<checksum>

- `module` is the digest of the WebAssembly module.
- `how` is a digest of everything that the compiled code depends on: the engine, its version and settings, the machine.
- `checksum` is that of the file. A file that was cut short or altered is noticed before it is used. It is removed, and
  the module is compiled again.

The files are native code that this node runs, so a file that other users could have written is not used. A file gets
its name only when it is complete and on the disk, and is never changed after that.

Whoever uses a file holds a shared lock on its descriptor, and `collection` removes no locked file. The access time of a
file says when it was used last. This module sets it, because file systems do not always do so.

If a module cannot be compiled, the reason is kept in a file, so that nobody tries again:

    refused/<module>-<how>
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
"""Version of the file format. It is part of every file name; raise it when the content changes its meaning."""

_HOW = 32
_LONGEST_REASON = 16 * 1024
_CHUNK = 1024 * 1024


@attrs.frozen
class Form:
    """One compiled form of a module.

    Attributes:
        module: SHA-256 of the module, hexadecimal.
        how: everything that the compiled code depends on, see the module.
    """

    module: str
    how: tuple[str, ...]

    @property
    def name(self) -> str:
        """The beginning of its file name: `<module>-<how>`."""
        key = json.dumps([FORMAT, os.uname().machine, *self.how])
        return f"{self.module}-{hashlib.sha256(key.encode()).hexdigest()[:_HOW]}"


class CompiledModules:
    """The compiled modules of a store. `find` and `discard` block; `open` is `find` without blocking."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._verified: dict[Path, tuple[int, ...]] = {}

    def find(self, form: Form) -> int | None:
        """Open and lock a compiled module. The caller closes the descriptor. None if there is no intact one.

        Raises:
            OSError: the disk fails.
        """
        for path in self._files(form):
            try:
                descriptor = lock(path, create=False, shared=True)
            except OSError as error:  # not a file that this module wrote
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
        """Hold the exclusive right to compile a module, among all processes that share the store.

        Yields a file for the compiled module, which is kept if the block succeeds. Yields None if another process has
        compiled the module in the meantime.
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
        """Remove a compiled module that an engine could not load."""
        for path in self._files(form):
            self._remove(path, "the engine cannot load it")

    def refuse(self, form: Form, why: str) -> None:
        """Record why a module cannot be compiled; blocks.

        Raises:
            OSError: the disk fails.
        """
        write_whole(self._store.ingest, self._store.refused / form.name, why.encode()[:_LONGEST_REASON])

    def refused(self, form: Form) -> str:
        """Why a module cannot be compiled, if that was recorded; else "". Blocks."""
        with contextlib.suppress(OSError), open(self._store.refused / form.name, "rb") as file:
            return file.read(_LONGEST_REASON).decode("utf-8", "replace")
        return ""

    def _files(self, form: Form) -> list[Path]:
        start = f"{form.name}-"
        return [self._store.compiled / name for name in os.listdir(self._store.compiled) if name.startswith(start)]

    def _keep(self, form: Form, part: Part) -> None:
        part.rehash()
        # Guest processes may run as other users and open the file by a descriptor. Nobody else reaches the directory.
        os.fchmod(part.descriptor, 0o644)
        part.keep(self._store.compiled / f"{form.name}-{part.found.partition(':')[2]}")

    def _wrong(self, path: Path, descriptor: int) -> str:
        """What is wrong with a file, for the log; "" if it is fine."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return "expected a file of ours that nobody else may write"
        # Each file is verified once in a process's life: that finds disk errors, and nobody else can write the file.
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
        """Record that a file from `find` is used now: `collection` removes the least recently used ones."""
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
