"""Images as directories, for pods that mount them: the layers of a container image, or the files of an artifact.

    trees/<manifest>/files/     what was unpacked
    trees/<manifest>/tree.json  what it is; a tree has its name only once it is whole

Archives are checked as they are read (`archives`). While one is unpacked no link is followed, whatever a layer has put
where: every directory on the way is opened as what it is, and a path that leads through a link is refused. Links stay
links, for a guest whose engine confines it; nothing of the node's goes through one. Owners, special bits and times are
dropped: whoever mounts it may read it, and nobody writes. Everything blocks.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import stat
import tarfile
from pathlib import Path
from typing import BinaryIO

import orjson

from wasmlet.artifacts.archives import MAX_ENTRIES, REGULAR, Archive, Entry, safe_path
from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.files import locked_directory, sync_directory
from wasmlet.artifacts.layers import HIDE, HIDE_ALL

FILES, RECORD = "files", "tree.json"
_MAX_DEPTH = 100
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class TreeMaker:
    """A tree that is being made; it is gone unless `keep` was called. A context manager.

    Args:
        directory: where it is until then, on the file system of where it goes.
        limit: bytes that it may have, unpacked.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self.path = directory / f"{secrets.token_hex(16)}.part"
        self._left = limit
        self._limit = limit
        self._entries = 0
        self._lock = locked_directory(self.path)
        os.mkdir(FILES, 0o755, dir_fd=self._lock)
        os.chmod(FILES, 0o755, dir_fd=self._lock)
        self._root = os.open(FILES, _OPEN, dir_fd=self._lock)

    def __enter__(self) -> TreeMaker:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._limit - self._left

    def unpack(self, layer: BinaryIO, compression: str, digest: str | None) -> None:
        """Put a layer over what is there.

        Args:
            compression: "", "gzip" or "zstd".
            digest: of the layer, uncompressed.

        Raises:
            BadContent: it is not to be trusted, or too large.
            OSError: the disk fails.
        """
        archive = Archive(layer, compression, self._left, digest)
        added: set[str] = set()
        for entry in archive.entries():
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise BadContent(f"the image has more than {MAX_ENTRIES} files")
            if entry.path:
                self._apply(archive, entry, added)
        self._left -= archive.taken

    def add(self, title: str, source: BinaryIO, size: int) -> None:
        """Put a file of an artifact there, under the name that it was pushed with.

        Raises:
            BadContent: the name leads elsewhere or is taken, or it is too large.
        """
        path = safe_path(title)
        if not path:
            raise BadContent(f"the artifact has a file without a name, {title[:200]!r}")
        if size > self._left:
            raise BadContent(f"the artifact has more than the {self._limit} bytes allowed")
        self._left -= size
        parent, name = self._parent(path)
        try:
            descriptor = _create(name, parent, 0o644)
        except FileExistsError:
            raise BadContent(f"the artifact has two files of the name {path[:200]!r}") from None
        finally:
            os.close(parent)
        with os.fdopen(descriptor, "wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)

    def keep(self, path: Path, record: dict[str, object]) -> None:
        """Give it its name, for good.

        Raises:
            OSError: the disk fails.
        """
        with open(self.path / RECORD, "xb") as file:
            file.write(orjson.dumps(record))
        _sync_file_system(self._lock)
        if path.exists():  # and is not whole, or it would not be made again
            shutil.rmtree(path)
        self.path.rename(path)
        sync_directory(path.parent)

    def _apply(self, archive: Archive, entry: Entry, added: set[str]) -> None:
        parent, name = self._parent(entry.path)
        try:
            folder = entry.path.rpartition("/")[0]
            if name == HIDE_ALL:
                for other in os.listdir(parent):
                    if f"{folder}/{other}".lstrip("/") not in added:
                        _remove(other, parent)
                return
            if name.startswith(HIDE):
                hidden = name[len(HIDE) :]
                if hidden in ("", ".", ".."):
                    raise BadContent(f"a layer hides what has no name, {entry.path[:200]!r}")
                if f"{folder}/{hidden}".lstrip("/") not in added:
                    _remove(hidden, parent)
                return
            self._put(archive, entry, parent, name)
            parts = entry.path.split("/")
            added.update("/".join(parts[: i + 1]) for i in range(len(parts)))
        finally:
            os.close(parent)

    def _put(self, archive: Archive, entry: Entry, parent: int, name: str) -> None:
        there = _kind(name, parent)
        if entry.kind == tarfile.DIRTYPE:
            if there is None or not stat.S_ISDIR(there):
                _remove(name, parent)
                _make_directory(name, parent)
            return
        source = self._linked(entry) if entry.kind == tarfile.LNKTYPE else None
        try:
            if source is not None and _same(source, (parent, name)):
                return
            _remove(name, parent)
            if source is not None:
                os.link(source[1], name, src_dir_fd=source[0], dst_dir_fd=parent, follow_symlinks=False)
            elif entry.kind == tarfile.SYMTYPE:
                if not entry.target or "\0" in entry.target or len(entry.target) > 4095:
                    raise BadContent(f"a layer has a symbolic link to nothing, {entry.path[:200]!r}")
                os.symlink(entry.target, name, dir_fd=parent)
            elif entry.kind in REGULAR:
                with os.fdopen(_create(name, parent, 0o755 if entry.mode & 0o111 else 0o644), "wb") as file:
                    for chunk in archive.content(entry):
                        file.write(chunk)
        finally:
            if source is not None:
                os.close(source[0])

    def _linked(self, entry: Entry) -> tuple[int, str]:
        """What a hard link refers to: its directory's descriptor, and its name there."""
        target = safe_path(entry.target)
        if not target:
            raise BadContent(f"a layer has a hard link to nothing, {entry.path[:200]!r}")
        parent, name = self._parent(target, make=False)
        kind = _kind(name, parent)
        if kind is None or not stat.S_ISREG(kind):
            os.close(parent)
            raise BadContent(f"a layer has a hard link to what is no file, {target[:200]!r}")
        return parent, name

    def _parent(self, path: str, *, make: bool = True) -> tuple[int, str]:
        """The descriptor of the directory that a path is in, the caller's, and the path's last part."""
        *folders, name = path.split("/")
        if len(folders) > _MAX_DEPTH:
            raise BadContent(f"a layer is nested more than {_MAX_DEPTH} directories deep")
        current = os.dup(self._root)
        try:
            for part in folders:
                kind = _kind(part, current)
                if kind is None and make:
                    _make_directory(part, current)
                elif kind is None or not stat.S_ISDIR(kind):
                    what = "a symbolic link" if kind is not None and stat.S_ISLNK(kind) else "what is no directory"
                    raise BadContent(f"a layer has {path[:200]!r}, whose part {part[:100]!r} is {what}")
                below = os.open(part, _OPEN, dir_fd=current)
                os.close(current)
                current = below
            return current, name
        except BaseException:
            os.close(current)
            raise


def _kind(name: str, parent: int) -> int | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _same(one: tuple[int, str], other: tuple[int, str]) -> bool:
    """Whether these are the same file already."""
    try:
        first, second = (os.stat(name, dir_fd=parent, follow_symlinks=False) for parent, name in (one, other))
    except FileNotFoundError:
        return False
    return os.path.samestat(first, second)


def _make_directory(name: str, parent: int) -> None:
    os.mkdir(name, 0o755, dir_fd=parent)
    os.chmod(name, 0o755, dir_fd=parent)  # whatever this process's umask is


def _create(name: str, parent: int, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=parent)
    os.fchmod(descriptor, mode)
    return descriptor


def _remove(name: str, parent: int) -> None:
    kind = _kind(name, parent)
    if kind is None:
        return
    if stat.S_ISDIR(kind):
        shutil.rmtree(name, dir_fd=parent)
    else:
        os.unlink(name, dir_fd=parent)


def _sync_file_system(descriptor: int) -> None:
    """Everything is on the disk: one call instead of one for each file."""
    if _libc.syncfs(ctypes.c_int(descriptor)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
