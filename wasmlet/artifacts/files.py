"""Files of the store: written whole or not at all, and locked by those who use them.

A lock (`flock`) is the kernel's: it ends with the process that holds it, whatever ends that. A file that may be removed
by whoever holds its lock is locked only when it still has its name afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from wasmlet.artifacts.descriptors import hasher
from wasmlet.artifacts.errors import BadContent
from wasmlet.concurrency import in_thread
from wasmlet.files import sync_directory

_CHUNK = 1024 * 1024


def lock(path: Path, *, create: bool, shared: bool = False) -> int | None:
    """The locked descriptor of the file of this name; None where somebody else has it locked, or there is no file.

    Raises:
        OSError: the file cannot be opened.
    """
    flags = (os.O_RDWR | os.O_CREAT) if create else os.O_RDONLY
    while True:
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed meanwhile by who had the lock


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def locked_directory(path: Path) -> int:
    """Make a directory for this user alone; its descriptor, locked. Who clears up may be quicker to lock it."""
    while True:
        path.mkdir(0o700)
        descriptor = lock(path, create=False)
        if descriptor is not None:
            return descriptor


class Part:
    """A file on its way into the store, hashed while it is written; it is removed unless `keep` was called.

    Use as a context manager. It stays locked until it is closed, so that whoever clears up knows it is in use.

    Args:
        directory: where it is until then, on the file system of where it goes.
        digest: what it has to have in the end; None where that is not known before.
    """

    def __init__(self, directory: Path, digest: str | None) -> None:
        self.path = directory / f"{secrets.token_hex(16)}.part"
        self._digest = digest
        self._hash = hasher(digest or "sha256:")
        self._size = 0
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        os.close(self.descriptor)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    @property
    def found(self) -> str:
        """The digest of the bytes so far."""
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    def put(self, data: bytes) -> None:
        """Add bytes; blocks.

        Raises:
            OSError: the disk is full, or fails.
        """
        view = memoryview(data)
        while view:
            written = os.write(self.descriptor, view)
            self._hash.update(view[:written])
            self._size += written
            view = view[written:]

    async def write(self, data: bytes) -> None:
        """Do as `put`, in a thread."""
        if data:
            await in_thread(self.put, data)

    async def restart(self) -> None:
        """Do as `empty`, in a thread."""
        await in_thread(self.empty)

    def empty(self) -> None:
        """Remove all bytes so far; blocks."""
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self._hash, self._size = hasher(self._digest or "sha256:"), 0

    def rehash(self) -> None:
        """Read what another process has written to the descriptor; blocks."""
        self._hash, self._size = hasher(self._digest or "sha256:"), 0
        while chunk := os.pread(self.descriptor, _CHUNK, self._size):
            self._hash.update(chunk)
            self._size += len(chunk)

    def check(self) -> None:
        """See that it has its digest.

        Raises:
            BadContent: it has another one.
        """
        if self._digest is not None and self.found != self._digest:
            raise BadContent(f"blob has another digest: expected {self._digest}, found {self.found}")

    def keep(self, path: Path) -> None:
        """Give it its name, in one step and for good; blocks.

        Raises:
            BadContent: it has another digest than it should.
            OSError: the disk fails.
        """
        self.check()
        os.fsync(self.descriptor)
        self.path.rename(path)
        sync_directory(path.parent)


def write_whole(directory: Path, path: Path, data: bytes) -> None:
    """Write a small file by way of `directory`: a reader sees the old one or the new one; blocks."""
    with Part(directory, None) as part:
        part.put(data)
        part.keep(path)


def entries(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a directory; what goes away meanwhile is left out."""
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            yield Path(entry.path), entry.stat(follow_symlinks=False)
