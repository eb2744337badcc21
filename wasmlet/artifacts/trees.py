"""Unpacks images into directories ("trees"): the layers of a container image, or the files of an artifact.

Pods can mount such a directory, and a module sees the files of its own image there.

    trees/<manifest>/files/     what was unpacked
    trees/<manifest>/tree.json  its record; a tree gets this name only when it is complete

`archives` checks the archives while they are read. Links in paths are resolved as in containerd, with the tree as the
root. Each step opens a real directory and never follows a link in the kernel, so no link can lead out of the tree.
Links are kept as links in the tree; the engine keeps the guest inside. Devices, pipes and entries of unknown types are
left out. Owners, special mode bits and times are dropped: everybody who mounts the tree may read it, and nobody may
write. All functions block.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import stat
import tarfile
from pathlib import Path
from typing import BinaryIO

import attrs
import orjson

from wasmlet.artifacts.archives import DEVICES, MAX_ENTRIES, REGULAR, Archive, Entry, cleaned
from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.files import locked_directory
from wasmlet.files import sync_directory

HIDE, HIDE_ALL = ".wh.", ".wh..wh..opq"
"""Whiteouts: the prefix of a name that removes one file of the layers below, and the name that removes all of them."""
_KINDS = (*REGULAR, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)
_MAX_LINKS = 40
FILES, RECORD = "files", "tree.json"
_MAX_DEPTH = 100
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class TreeMaker:
    """Makes a tree. A context manager: at its end the tree is removed, unless `keep` was called.

    Args:
        directory: where the unfinished tree is; on the same file system as its final place.
        limit: the most bytes that the tree may have.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self.path = directory / f"{secrets.token_hex(16)}.part"
        self._left = limit
        self._limit = limit
        self._entries = 0
        self._left_out: set[str] = set()
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
        """How many bytes were unpacked so far."""
        return self._limit - self._left

    def unpack(self, layer: BinaryIO, digest: str | None) -> None:
        """Unpack a layer over the layers before it.

        Args:
            digest: the digest of the uncompressed layer; None if it is not known.

        Raises:
            BadContent: the layer is damaged, has another digest, or is too large.
            OSError: the disk fails.
        """
        archive = Archive(layer, self._left, digest)
        seen = _Layer()
        for entry in archive.entries():
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise BadContent(f"the image has more than {MAX_ENTRIES} files")
            if entry.path:
                try:
                    self._apply(archive, entry, seen)
                except OSError as error:
                    if error.errno == errno.ENAMETOOLONG:
                        raise BadContent(f"a layer has a name too long for a file, {entry.path[:200]!r}") from None
                    raise
        self._left -= archive.taken

    def add(self, title: str, source: BinaryIO, size: int) -> None:
        """Add a file of an artifact, under the name that it was pushed with.

        Raises:
            BadContent: the name leads out of the tree or is taken, or the file is too large.
        """
        path = cleaned(title)
        if not path:
            raise BadContent(f"the artifact has a file without a name, {title[:200]!r}")
        if title.startswith("/") or ".." in title.split("/"):  # oras refuses these, too
            raise BadContent(f"the artifact has a file whose name leads out of it, {title[:200]!r}")
        if size > self._left:
            raise BadContent(f"the artifact has more than the {self._limit} bytes allowed")
        self._left -= size
        try:
            descriptor = self._made(path)
        except FileExistsError:
            raise BadContent(f"the artifact has two files of the name {path[:200]!r}") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise BadContent(f"the artifact has a name too long for a file, {path[:200]!r}") from None
            raise
        with os.fdopen(descriptor, "wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)

    def _made(self, path: str) -> int:
        """Make a new file and the directories above it. Returns the file's descriptor."""
        parent, name = self._parent(path)
        try:
            return _create(name, parent, 0o644)
        finally:
            os.close(parent)

    @property
    def files(self) -> Path:
        """The directory with the files so far."""
        return self.path / FILES

    def keep(self, path: Path, record: dict[str, object]) -> None:
        """Write the record, and move the tree to its final name.

        Raises:
            OSError: the disk fails.
        """
        with open(self.path / RECORD, "xb") as file:
            file.write(orjson.dumps(record))
        _sync_file_system(self._lock)
        if path.exists():  # an incomplete one: a complete one would not be made again
            shutil.rmtree(path)
        self.path.rename(path)
        sync_directory(path.parent)

    def _apply(self, archive: Archive, entry: Entry, seen: _Layer) -> None:
        folder, _, name = entry.path.rpartition("/")
        parent, where = _walk(self._root, folder, make=True)
        try:
            if name.startswith(HIDE):
                _hide(name, parent, where, seen)
                return
            self._left_out.discard(entry.path)
            if entry.kind not in _KINDS:
                self._left_out.add(entry.path)
            self._put(archive, entry, parent, name)
            parts = [*filter(None, where.split("/")), name]
            seen.added.update("/".join(parts[: i + 1]) for i in range(len(parts)))
        finally:
            os.close(parent)

    def _put(self, archive: Archive, entry: Entry, parent: int, name: str) -> None:
        there = _kind(name, parent)
        if entry.kind == tarfile.DIRTYPE:
            if there is None or not stat.S_ISDIR(there):
                _remove(name, parent)
                _make_directory(name, parent)
            return
        if entry.kind == tarfile.LNKTYPE:
            self._link(entry, parent, name)
            return
        if entry.kind in (*_KINDS, *DEVICES):
            _remove(name, parent)
        if entry.kind == tarfile.SYMTYPE:
            if not entry.target or "\0" in entry.target or len(entry.target) > 4095:
                raise BadContent(f"a layer has a symbolic link to nothing, {entry.path[:200]!r}")
            os.symlink(entry.target, name, dir_fd=parent)
        elif entry.kind in REGULAR:
            with os.fdopen(_create(name, parent, 0o755 if entry.mode & 0o111 else 0o644), "wb") as file:
                for chunk in archive.content(entry):
                    file.write(chunk)

    def _link(self, entry: Entry, parent: int, name: str) -> None:
        """Make a hard link. If its target was left out (a device, a pipe), the link is left out as well."""
        path = cleaned(entry.target)
        if not path:
            raise BadContent(f"a layer has a hard link to nothing, {entry.path[:200]!r}")
        if path in self._left_out:
            self._left_out.add(entry.path)
            return
        source, its_name = self._parent(path, make=False)
        try:
            kind = _kind(its_name, source)
            if kind is None or not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
                raise BadContent(f"a layer has a hard link to what is no file, {path[:200]!r}")
            if not _same((source, its_name), (parent, name)):
                _remove(name, parent)
                os.link(its_name, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _parent(self, path: str, *, make: bool = True) -> tuple[int, str]:
        """Open the directory of a path. Returns its descriptor (the caller closes it) and the last part of the path."""
        folder, _, name = path.rpartition("/")
        return _walk(self._root, folder, make=make)[0], name


@attrs.define
class _Layer:
    """What the current layer has done so far. Links in paths are resolved, because a directory may have several names.

    Attributes:
        added: the paths that the layer has added, and all directories above them.
        opaque: directories from which the layer has removed everything that came from the layers below. Each is
            emptied once, even if the layer asks for it several times.
    """

    added: set[str] = attrs.field(factory=set)
    opaque: set[str] = attrs.field(factory=set)


def _hide(name: str, parent: int, where: str, seen: _Layer) -> None:
    """Apply the whiteout `name` in the directory `where`. Files of the same layer (`seen`) are kept."""
    if name == HIDE_ALL:
        hidden = [] if where in seen.opaque else os.listdir(parent)
        seen.opaque.add(where)
    else:
        hidden = [name[len(HIDE) :]]
    for other in hidden:
        if other not in ("", ".", "..") and f"{where}/{other}".lstrip("/") not in seen.added:
            _remove(other, parent)


def _walk(root: int, path: str, *, make: bool) -> tuple[int, str]:
    """Open a directory of a tree; with `make`, make the directories on the way that do not exist.

    A link on the way is followed with the tree as its root.

    Returns:
        A descriptor, which the caller closes, and the path to it with all links resolved.

    Raises:
        BadContent: a part of the path is no directory, or the path is nested too deep.
    """
    current, links = os.dup(root), 0
    done: list[str] = []
    left = path.split("/")[::-1] if path else []
    try:
        while left:
            part = left.pop()
            kind = _kind(part, current)
            if kind is not None and stat.S_ISLNK(kind):
                links += 1
                if links > _MAX_LINKS:
                    raise BadContent(f"a layer has {path[:200]!r}, which leads through more than {_MAX_LINKS} links")
                target = os.readlink(part, dir_fd=current)
                left += filter(None, _targeted("/".join(done), target).split("/")[::-1])
                os.close(current)
                current, done = os.dup(root), []
                continue
            if kind is None and make:
                _make_directory(part, current)
            elif kind is None or not stat.S_ISDIR(kind):
                raise BadContent(f"a layer has {path[:200]!r}, whose part {part[:100]!r} is no directory")
            if len(done) >= _MAX_DEPTH:
                raise BadContent(f"a layer is nested more than {_MAX_DEPTH} directories deep")
            below = os.open(part, _OPEN, dir_fd=current)
            os.close(current)
            current = below
            done.append(part)
        return current, "/".join(done)
    except BaseException:
        os.close(current)
        raise


def _targeted(folder: str, target: str) -> str:
    """The path that a link in `folder` leads to. `folder` has its links resolved, so `..` can be resolved as text."""
    return cleaned(target if target.startswith("/") else f"{folder}/{target}")


def open_file(root: int, path: str) -> int | None:
    """Open a regular file of a tree for reading; links are followed with the tree as their root.

    Args:
        root: descriptor of the tree's directory.

    Returns:
        A descriptor, which the caller closes; None if there is no such file.

    Raises:
        BadContent: links lead to links without end.
    """
    for _ in range(_MAX_LINKS):
        folder, _, name = path.rpartition("/")
        try:
            parent, where = _walk(root, folder, make=False)
        except BadContent:
            return None
        try:
            kind = _kind(name, parent)
            if kind is not None and stat.S_ISLNK(kind):
                path = _targeted(where, os.readlink(name, dir_fd=parent))
                continue
            if kind is None or not stat.S_ISREG(kind):
                return None
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)
    raise BadContent(f"{path[:200]!r} leads through more than {_MAX_LINKS} links")


def has_other_files(root: Path, path: str) -> bool:
    """Whether a tree has any file besides the one with this path; directories do not count."""
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        if any(Path(folder, name).relative_to(root).as_posix() != path for name in (*files, *links)):
            return True
    return False


def _kind(name: str, parent: int) -> int | None:
    """The file type and mode of a name in a directory; None if it does not exist, or cannot exist."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise


def _same(one: tuple[int, str], other: tuple[int, str]) -> bool:
    """Whether two names (directory descriptor, name) are the same file."""
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
    """Write everything to the disk with one call, instead of one for each file."""
    if _libc.syncfs(ctypes.c_int(descriptor)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
