"""Finds the module that a container's image names, and reads it, before anything else is done with it.

An image is a file on the node (`file:///path/to/module.wasm`), if the node allows that, or comes from a registry
(`registries`). Failures show as ErrImagePull, and `pods.starting` tries again with growing pauses. `compiler` compiles
the module.

An image may name any path of the node, and everybody who can see the pod can read the error. So for everything that is
not a runnable module the error is the same. Only the node's log says what is there, or that nothing is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import attrs
import structlog

from wasmlet.concurrency import Shared
from wasmlet.errors import WasmletError
from wasmlet.runtime.files.beneath import open_beneath, open_known

log = structlog.get_logger(__name__)

HEADER = b"\0asm"
_MODULE_VERSION, _COMPONENT_VERSION = b"\x01\0\0\0", b"\x0d\0\x01\0"
_CHUNK = 1024 * 1024
_MOST_KNOWN = 1000
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_SETTLED_NS, _SETTLED_ON_DISK_NS = 2_000_000_000, 100_000_000
"""How long ago a file has to have been changed, so that another change would show in its times.

Some file systems have times in steps of two seconds. On a disk of this machine, one that has parts of a second has
those of the kernel's clock, whose steps are 10 ms at most.
"""
_Identity = tuple[int, int, int, int, int]
"""Identifies the state of a file: device, inode, size, mtime and ctime."""


class ImageError(WasmletError):
    """A module or image is not available.

    Attributes:
        reason: the container's `waiting.reason`.
        absent: there is nothing at all under this name.
        image: the image, if it is not the container's own (an image volume).
    """

    def __init__(self, message: str, reason: str = "ErrImagePull", *, absent: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.absent = absent
        self.image = ""


@attrs.frozen
class Module:
    """A WebAssembly module that was read.

    Attributes:
        image: the image's name in the manifest.
        digest: SHA-256 of the file, hexadecimal.
        path: where the file is.
        command: the beginning of argv, unless the pod sets one; if empty, the file's name.
        arguments: the arguments after that, unless the pod sets some.
        environment: `NAME=value`; the pod's variables take precedence.
        folder: the working directory that its image names; "" where it names none.
        files: the directory of its image's files; None where it has none beside the module.
    """

    image: str
    digest: str
    path: Path
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    folder: str = ""
    files: Path | None = None

    @property
    def image_id(self) -> str:
        """As `status.containerStatuses[].imageID`."""
        return f"sha256:{self.digest}"


@attrs.frozen
class Images:
    """Finds modules that are files of the node.

    Attributes:
        allow_local: whether files of the node may be images.
        directory: the module directory. Relative images (`file://./x.wasm`) start there, and neither `..` nor a link
            leaves it; None refuses them. Absolute paths may name any module of the node.
        max_bytes: the largest module.
        explains: whether pods are told what a file is that is no module; else only the node's log says it, since it
            tells of files that may be somebody else's.
    """

    allow_local: bool
    directory: Path | None
    max_bytes: int
    explains: bool = False
    _known: dict[str, tuple[_Identity, str]] = attrs.field(factory=dict, init=False)
    """Digests of files that have been read, by their paths without links, for as long as they stay the same."""
    _found: dict[str, Module] = attrs.field(factory=dict, init=False)
    """The modules of images whose paths have no links, as they were found last."""
    _looks: Shared[Path, tuple[str, Path]] = attrs.field(init=False)

    @_looks.default
    def _shared(self) -> Shared[Path, tuple[str, Path]]:
        return Shared(self._look)

    def check(self, image: str) -> None:
        """See that an image names a file that may be looked for.

        Raises:
            ImageError: it does not.
        """
        self._path(image)

    async def find(self, image: str) -> Module:
        """The module of an image, as it is now.

        Raises:
            ImageError: it is not allowed, not there, or nothing that could be run.
        """
        found = self._found.get(image)
        if found is not None and self._is_as_it_was(found):
            return found
        path = self._path(image)
        try:
            digest, real = await self._looks.of(path)
        except _NoModule as error:
            log.info("no module", image=image, why=str(error))
            if self.explains:
                raise ImageError(f"image {image!r} is no module: {error}", absent=True) from None
            where = "" if path.is_absolute() else " in the node's module directory"
            raise ImageError(
                f"image {image!r} is no module that pods may run: the file has to exist{where}, to be a regular file "
                "that the node may read, and to begin as WebAssembly does, with the bytes 00 61 73 6d; the node's log "
                "says what was found",
                absent=True,
            ) from None
        found = Module(image, digest, real, command=(path.name,))
        if real == path:
            if len(self._found) >= _MOST_KNOWN:
                self._found.clear()
            self._found[image] = found
        return found

    def _is_as_it_was(self, module: Module) -> bool:
        """Whether a file that was read is unchanged since; False also where to ask may take long."""
        path = str(module.path)
        before, digest = self._known.get(path, (None, ""))
        if before is None or digest != module.digest or not os.major(before[0]):
            return False  # it may have changed, or is not on a disk of this machine, but of a network, perhaps
        try:
            found = open_known(path)
        except OSError:
            return False
        try:
            return _identity(found) == before
        finally:
            os.close(found)

    def _look(self, path: Path) -> tuple[str, Path]:
        """The digest of a module, and where it is once all links are followed; blocks."""
        try:
            found = os.open(path, os.O_PATH | os.O_CLOEXEC) if path.is_absolute() else self._beneath(path)
            try:
                mode = os.fstat(found).st_mode
                if not stat.S_ISREG(mode):  # to open a device for reading may change what it does
                    raise _NoModule(f"{path}: expected a regular file, found {_kind(mode)}")
                descriptor = os.open(f"/proc/self/fd/{found}", _READ)
            finally:
                os.close(found)
        except OSError as error:
            raise _NoModule(f"{path}: {error.strerror}") from None
        try:
            if os.pread(descriptor, len(HEADER), 0) != HEADER:
                raise _NoModule(f"{path} is not WebAssembly")
            return self._digest(descriptor), Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        finally:
            os.close(descriptor)

    def _beneath(self, path: Path) -> int:
        """Open a path of the module directory, which neither `..` nor a link leaves."""
        assert self.directory is not None
        top = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_beneath(top, str(path))
        except OSError as error:
            # A link may be absolute and stay in the directory all the same. Only the node's owner makes links there.
            real, there = os.path.realpath(self.directory / path), os.path.realpath(self.directory)
            if error.errno != errno.EXDEV or ".." in path.parts or not Path(real).is_relative_to(there):
                raise
            return open_beneath(top, os.path.relpath(real, there), links=False)
        finally:
            os.close(top)

    def _digest(self, descriptor: int) -> str:
        """As `read` finds it, which it does again only where the file may be another one by now; blocks."""
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        before = _identity(descriptor)
        known = self._known.get(path)
        if known is not None and known[0] == before:
            return known[1]
        digest = _read(descriptor, Path(path), self.max_bytes, None)
        fine = os.major(before[0]) and before[-1] % 1_000_000_000
        settled = time.time_ns() - before[-1] > (_SETTLED_ON_DISK_NS if fine else _SETTLED_NS)
        if settled and before == _identity(descriptor):
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[path] = (before, digest)
        return digest

    def _path(self, image: str) -> Path:
        """The path that an image names: absolute, or relative to the module directory."""
        parts = urlsplit(image)
        if parts.scheme != "file":
            raise ImageError(
                f"image {image!r}: leave out {parts.scheme}://; expected REGISTRY/REPOSITORY:TAG or "
                "file:///path/to/module.wasm",
                "InvalidImageName",
            )
        if not self.allow_local:
            raise ImageError(
                f"image {image!r}: modules from the node's disk are not allowed; start the node with "
                "--allow-local-modules where its users may read its files"
            )
        text = unquote(image.removeprefix("file://"))
        if "\0" in text or parts.query or parts.fragment or not text:
            raise ImageError(
                f"image {image!r} is not a file's URL; expected file:///path/to/module.wasm", "InvalidImageName"
            )
        path = Path(text)
        if not path.is_absolute() and (parts.netloc not in (".", "..") or self.directory is None):
            raise ImageError(
                f"image {image!r} names no absolute path; expected file:///path/to/module.wasm", "InvalidImageName"
            )
        return path


class _NoModule(Exception):
    """There is no module; the message is for the node's log."""


def _identity(descriptor: int) -> _Identity:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read(path: Path, max_bytes: int, copy: int | None) -> str:
    """Read a module, and copy it to the descriptor `copy` if one is given; blocks.

    Nothing that is not a regular file is waited for, and no more than `max_bytes` are read.

    Returns:
        The SHA-256 of what was read, hexadecimal.

    Raises:
        ImageError: it is not there, or nothing that could be run.
    """
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise ImageError(f"module {path}: {error.strerror}", absent=absent) from error
    try:
        return _read(descriptor, path, max_bytes, copy)
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: Path, max_bytes: int, copy: int | None) -> str:
    """The same of a file that is open."""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"module {path}: expected a regular file, found {_kind(found.st_mode)}")
        if found.st_size > max_bytes:
            raise ImageError(f"module {path} has {found.st_size} bytes, more than the {max_bytes} allowed")
        digest, size, head = hashlib.sha256(), 0, b""
        while chunk := os.read(descriptor, _CHUNK):
            head = head or chunk[:8]
            size += len(chunk)
            if size > max_bytes:
                raise ImageError(f"module {path} has more than the {max_bytes} bytes allowed")
            digest.update(chunk)
            if copy is not None:
                os.write(copy, chunk)
    except OSError as error:
        raise ImageError(f"module {path}: {error.strerror}") from error
    _check_header(path, head)
    return digest.hexdigest()


def is_component(descriptor: int) -> bool:
    """Whether the file, which `read` has passed, has a component; else it is a module."""
    return os.pread(descriptor, len(_COMPONENT_VERSION), len(HEADER)) == _COMPONENT_VERSION


def _check_header(path: Path, head: bytes) -> None:
    if not head:
        raise ImageError(f"module {path} is empty; expected a WebAssembly module")
    if head[:4] != HEADER:
        # The message does not quote the file: an image may name any file, and everybody who sees the pod reads this.
        raise ImageError(f"module {path} is not WebAssembly: the bytes 00 61 73 6d at its beginning are missing")
    if head[4:] not in (_MODULE_VERSION, _COMPONENT_VERSION):
        raise ImageError(
            f"module {path} has a WebAssembly version that is not known here: expected 01 00 00 00 or "
            f"0d 00 01 00, found {head[4:].hex(' ') or 'the end of the file'}"
        )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
