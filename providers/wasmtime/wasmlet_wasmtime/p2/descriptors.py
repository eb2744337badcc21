"""Open files and directories, for wasi:filesystem (`files`).

A guest, or another container of its pod, may put a symbolic link or a moved directory anywhere in a path, at the very
moment when the path is used. A check before the use would be too early. So the kernel itself refuses to leave the
directory while it follows a path (openat2 with RESOLVE_BENEATH). And things are made, moved or removed only by their
name in a directory that is open already.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator

from .instances import Failed, Resource, resource
from .streams import CLOSED, ROOM, InputStream, OutputStream, failed

_OPENAT2 = 437
_HOW = struct.Struct("QQQ")
_BENEATH = 0x08 | 0x02
"""RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS."""
_TRIES = 100
_LONGEST = 4096
"""The most bytes of a path, together with the zero byte at its end (PATH_MAX)."""
_ABOVE = os.O_PATH | os.O_DIRECTORY
_syscall = ctypes.CDLL(None, use_errno=True).syscall

_NAMES = {
    errno.EACCES: "access", errno.EAGAIN: "would-block", errno.EALREADY: "already", errno.EBADF: "bad-descriptor",
    errno.EBUSY: "busy", errno.EDEADLK: "deadlock", errno.EDQUOT: "quota", errno.EEXIST: "exist",
    errno.EFBIG: "file-too-large", errno.EILSEQ: "illegal-byte-sequence", errno.EINPROGRESS: "in-progress",
    errno.EINTR: "interrupted", errno.EINVAL: "invalid", errno.EIO: "io", errno.EISDIR: "is-directory",
    errno.ELOOP: "loop", errno.EMLINK: "too-many-links", errno.EMSGSIZE: "message-size",
    errno.ENAMETOOLONG: "name-too-long", errno.ENODEV: "no-device", errno.ENOENT: "no-entry", errno.ENOLCK: "no-lock",
    errno.ENOMEM: "insufficient-memory", errno.ENOSPC: "insufficient-space", errno.ENOTDIR: "not-directory",
    errno.ENOTEMPTY: "not-empty", errno.ENOTRECOVERABLE: "not-recoverable", errno.ENOTSUP: "unsupported",
    errno.ENOSYS: "unsupported", errno.ENOTTY: "no-tty", errno.ENXIO: "no-such-device", errno.EOVERFLOW: "overflow",
    errno.EPERM: "not-permitted", errno.EPIPE: "pipe", errno.EROFS: "read-only", errno.ESPIPE: "invalid-seek",
    errno.ETXTBSY: "text-file-busy", errno.EXDEV: "cross-device", errno.EMFILE: "insufficient-memory",
}  # fmt: skip
_KINDS = (
    (stat.S_ISREG, "regular-file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symbolic-link"),
    (stat.S_ISCHR, "character-device"), (stat.S_ISBLK, "block-device"), (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
)  # fmt: skip
READ, WRITE, MUTATE = "read", "write", "mutate-directory"


def name_of(error: OSError) -> str:
    """The error code of wasi:filesystem for an error of the system."""
    return _NAMES.get(error.errno or 0, "io")


@resource("descriptor")
class Descriptor(Resource):
    """A file or directory that is open.

    Args:
        number: the file descriptor, which it takes over.
        flags: what may be done with it.
        changes: whether what is below it may be changed.
    """

    def __init__(self, number: int, flags: frozenset[str], *, changes: bool) -> None:
        self.number_of_file, self.flags, self.changes = number, flags, changes
        self.directory = stat.S_ISDIR(os.fstat(number).st_mode)

    def close(self) -> None:
        number, self.number_of_file = self.number_of_file, -1
        if number >= 0:
            os.close(number)

    def file(self, *, write: bool = False, directory: str = "bad-descriptor") -> int:
        """The number of the descriptor, which has to be that of a file.

        If it was not opened for an operation, the system refuses that by itself.

        Args:
            write: whether the file is to be changed.
            directory: the error code if it is a directory.

        Raises:
            Failed: it is a directory, or may not be changed.
        """
        if self.directory:
            raise Failed(directory)
        if write and not self.changes:
            raise Failed("not-permitted")
        return self.number_of_file

    def folder(self, *, change: bool = False) -> int:
        """The number of the descriptor, which has to be that of a directory.

        Args:
            change: whether something in it is to be changed.

        Raises:
            Failed: it is no directory, or may not be changed.
        """
        if not self.directory:
            raise Failed("not-directory")
        if change and not (self.changes and MUTATE in self.flags):
            raise Failed("not-permitted")
        return self.number_of_file


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a path below a directory. Returns a descriptor.

    Raises:
        Failed: the path leads out of the directory.
        OSError: it cannot be opened.
    """
    _check(path)
    how = _HOW.pack(flags | os.O_CLOEXEC, mode, _BENEATH)
    number = errno.EAGAIN
    for _ in range(_TRIES):
        made = _syscall(
            ctypes.c_long(_OPENAT2), ctypes.c_int(directory), ctypes.c_char_p(path.encode()), how, ctypes.c_size_t(24)
        )
        if made >= 0:
            return int(made)
        number = ctypes.get_errno()
        if number != errno.EAGAIN:  # which says that something was renamed meanwhile
            break
    if number == errno.EXDEV:
        raise Failed("not-permitted")
    raise OSError(number, os.strerror(number))


def _check(path: str) -> None:
    if "\0" in path:
        raise Failed("invalid")
    if len(path.encode()) >= _LONGEST:
        raise Failed("name-too-long")
    if path.startswith("/"):
        raise Failed("not-permitted")


class Parent:
    """For a path: its last name, and the directory with that name, opened.

    Args:
        directory: where the path begins.
        dots: the error code if the name is . or .., which cannot be made, moved or removed.
        slash: the error code if the path ends in a slash, so that it names a directory; None if it may.
    """

    def __init__(self, directory: int, path: str, *, dots: str, slash: str | None = None) -> None:
        _check(path)
        stripped = path.rstrip("/")
        self.slash = "/" if stripped != path else ""
        above, _, self.name = stripped.rpartition("/")
        if not self.name:
            raise Failed("no-entry")
        if self.name in (".", "..") or (self.slash and slash):
            # An error on the way there counts more than these codes.
            os.close(open_beneath(directory, path, os.O_PATH))
            raise Failed(slash if slash and self.name not in (".", "..") else dots)
        self.number = open_beneath(directory, above or ".", _ABOVE)

    def __enter__(self) -> Parent:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


class FileInput(InputStream):
    """Reads a file from an offset on."""

    def __init__(self, descriptor: Descriptor, offset: int) -> None:
        self._file = os.dup(descriptor.number_of_file)
        self._offset = offset
        self._closed = False

    def read(self, limit: int) -> bytes:
        if self._closed:
            raise Failed(CLOSED)
        try:
            found = os.pread(self._file, limit, self._offset)
        except (OSError, OverflowError) as error:
            self._closed = True
            raise _broken(error) from None
        if not found:
            raise Failed(CLOSED)
        self._offset += len(found)
        return found

    def close(self) -> None:
        os.close(self._file)


class FileOutput(OutputStream):
    """Writes a file from an offset on, or at its end (None)."""

    def __init__(self, descriptor: Descriptor, offset: int | None) -> None:
        self._file = os.dup(descriptor.number_of_file)
        self._offset = offset
        self._closed = False

    def room(self) -> int:
        if self._closed:
            raise Failed(CLOSED)
        return ROOM

    def write(self, data: bytes) -> None:
        try:
            while data:
                at = os.fstat(self._file).st_size if self._offset is None else self._offset
                written = os.pwrite(self._file, data, at)
                if self._offset is not None:
                    self._offset += written
                data = data[written:]
        except (OSError, OverflowError) as error:
            self._closed = True
            raise _broken(error) from None

    def close(self) -> None:
        os.close(self._file)


def _broken(error: OSError | OverflowError) -> Failed:
    """The error that a stream reports once; after that it is closed."""
    if isinstance(error, OSError):
        return failed(str(error.strerror), file=name_of(error))
    return failed("no file has such a place", file="invalid")


@resource("directory-entry-stream")
class Entries(Resource):
    """The entries of a directory. It takes the descriptor over."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._scan = os.scandir(directory)
        self._next: Iterator[os.DirEntry[str]] = iter(self._scan)

    def read(self) -> tuple[str, str] | None:
        for entry in self._next:
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except OSError:  # gone meanwhile
                continue
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                raise Failed("illegal-byte-sequence") from None
            return kind_of(mode), entry.name
        return None

    def close(self) -> None:
        self._scan.close()
        os.close(self._directory)


def kind_of(mode: int) -> str:
    """The interface's name for the kind of a file, from its mode."""
    return next((name for is_it, name in _KINDS if is_it(mode)), "unknown")
