"""Files of the store: each is written completely or not at all, and is locked while somebody uses it.

A lock (`flock`) belongs to the kernel, which releases it when the process ends, however it ends. The holder of a lock
may remove the file. So whoever has just locked a file checks that the file still has its name.
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
    """Open and lock a file. Returns its descriptor, or None if somebody else has locked it or there is no such file.

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
        os.close(descriptor)  # the holder of the lock has removed the file


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def locked_directory(path: Path) -> int:
    """Make a directory for this user alone, and return its locked descriptor.

    `Store.clear_up` of another process may lock and remove the new directory first; then it is made again.
    """
    while True:
        path.mkdir(0o700)
        descriptor = lock(path, create=False)
        if descriptor is not None:
            return descriptor


class Part:
    """A temporary file that is going to be part of the store. It is hashed while it is written.

    A context manager: at its end the file is removed, unless `keep` was called. The file is locked until then, so that
    `Store.clear_up` knows that it is in use.

    Args:
        directory: where the temporary file is made; on the same file system as its final place.
        digest: the digest that the content must have in the end; None if it is not known before.
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
        """How many bytes were written so far."""
        return self._size

    @property
    def found(self) -> str:
        """The digest of the bytes that were written so far."""
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
        """As `put`, in a thread, so that the event loop is not blocked."""
        if data:
            await in_thread(self.put, data)

    async def restart(self) -> None:
        """As `empty`, in a thread, so that the event loop is not blocked."""
        await in_thread(self.empty)

    def empty(self) -> None:
        """Remove all bytes that were written so far; blocks."""
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self._hash, self._size = hasher(self._digest or "sha256:"), 0

    def rehash(self) -> None:
        """Compute the hash again from the file, after another process has written to the descriptor; blocks."""
        self._hash, self._size = hasher(self._digest or "sha256:"), 0
        while chunk := os.pread(self.descriptor, _CHUNK, self._size):
            self._hash.update(chunk)
            self._size += len(chunk)

    def check(self) -> None:
        """Check that the content has the expected digest.

        Raises:
            BadContent: it has another one.
        """
        if self._digest is not None and self.found != self._digest:
            raise BadContent(f"blob has another digest: expected {self._digest}, found {self.found}")

    def keep(self, path: Path) -> None:
        """Move the file to its final name in one step; blocks.

        Raises:
            BadContent: it has another digest than it should.
            OSError: the disk fails.
        """
        self.check()
        os.fsync(self.descriptor)
        self.path.rename(path)
        sync_directory(path.parent)


def write_whole(directory: Path, path: Path, data: bytes) -> None:
    """Replace a small file atomically, through a temporary file in `directory`; blocks."""
    with Part(directory, None) as part:
        part.put(data)
        part.keep(path)


def entries(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a directory with their status. Files that are removed while this reads are left out."""
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            yield Path(entry.path), entry.stat(follow_symlinks=False)
