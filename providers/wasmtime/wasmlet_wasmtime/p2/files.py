"""wasi:filesystem: files below the mounts of a container, reached by descriptors.

A guest, or another container of its pod, may put a link or a moved directory wherever a path is about to be walked. So
no path is checked and used afterwards: the kernel refuses to leave the directory while it walks (openat2 with
RESOLVE_BENEATH), and what is made, moved or removed is so by its name in a directory that is open.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from .instances import Failed, Instance, Resource, resource
from .streams import CLOSED, ROOM, InputStream, IoError, OutputStream, failed
from .world import function

_TYPES = "wasi:filesystem/types"
_D = f"{_TYPES}.[method]descriptor."
_OPENAT2 = 437
_HOW = struct.Struct("QQQ")
_BENEATH = 0x08 | 0x02
"""RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS."""
_TRIES = 100
_PARENT = os.O_PATH | os.O_DIRECTORY
_MOST_READ = 64 * 1024
_SECOND = 1_000_000_000
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
_ADVICE = {
    "normal": os.POSIX_FADV_NORMAL, "sequential": os.POSIX_FADV_SEQUENTIAL, "random": os.POSIX_FADV_RANDOM,
    "will-need": os.POSIX_FADV_WILLNEED, "dont-need": os.POSIX_FADV_DONTNEED, "no-reuse": os.POSIX_FADV_NOREUSE,
}  # fmt: skip
_READ, _WRITE, _MUTATE = "read", "write", "mutate-directory"
_SYNC = frozenset(("file-integrity-sync", "data-integrity-sync", "requested-write-sync"))


def name_of(error: OSError) -> str:
    """The error code of an error of the system's."""
    return _NAMES.get(error.errno or 0, "io")


_Function = Callable[..., Any]


def _answers(found: _Function) -> _Function:
    """Makes errors of the system's the ones of the interface."""

    def call(*arguments: Any) -> Any:
        try:
            return found(*arguments)
        except OSError as error:
            raise Failed(name_of(error)) from None
        except OverflowError:
            raise Failed("invalid") from None

    return call


def _function(name: str) -> Callable[[_Function], _Function]:
    return lambda found: function(f"{_D}{name}")(_answers(found))


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

    def file(self, needed: str) -> int:
        """The descriptor of a file for which this is allowed."""
        if self.directory:
            raise Failed("is-directory" if needed == _WRITE else "bad-descriptor")
        if needed not in self.flags:
            raise Failed("bad-descriptor" if needed == _READ else "not-permitted")
        return self.number_of_file

    def folder(self, *, change: bool = False) -> int:
        """The descriptor of a directory; `change`: in which something is to be changed."""
        if not self.directory:
            raise Failed("not-directory")
        if change and not (self.changes and _MUTATE in self.flags):
            raise Failed("not-permitted")
        return self.number_of_file


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a path below a directory, which it does not leave; a descriptor.

    Raises:
        Failed: it would leave it.
        OSError: the usual.
    """
    if "\0" in path:
        raise Failed("invalid")
    if path.startswith("/"):
        raise Failed("not-permitted")
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


class _Parent:
    """The directory that holds what a path names, open, and the name in it."""

    def __init__(self, directory: int, path: str) -> None:
        stripped = path.rstrip("/")
        self.slash = stripped != path
        above, _, self.name = stripped.rpartition("/")
        if path.startswith("/"):
            raise Failed("not-permitted")
        if "\0" in path:
            raise Failed("invalid")
        if not self.name:
            raise Failed("no-entry")
        if self.name in (".", ".."):
            # Nothing is made, moved or removed by such a name; where it would lead counts first.
            os.close(open_beneath(directory, path, os.O_PATH))
            raise Failed("invalid" if self.name == "." else "not-permitted")
        self.number = open_beneath(directory, above or ".", _PARENT)

    def __enter__(self) -> _Parent:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


class FileInput(InputStream):
    """A file from some place on."""

    def __init__(self, descriptor: Descriptor, offset: int) -> None:
        self._file = os.dup(descriptor.number_of_file)
        self._offset = offset

    def read(self, limit: int) -> bytes:
        try:
            found = os.pread(self._file, limit, self._offset)
        except OSError as error:
            raise failed(str(error.strerror), file=name_of(error)) from None
        except OverflowError:
            found = b""
        if not found:
            raise Failed(CLOSED)
        self._offset += len(found)
        return found

    def close(self) -> None:
        os.close(self._file)


class FileOutput(OutputStream):
    """A file from some place on, or at its end (None)."""

    def __init__(self, descriptor: Descriptor, offset: int | None) -> None:
        self._file = os.dup(descriptor.number_of_file)
        self._offset = offset

    def room(self) -> int:
        return ROOM

    def write(self, data: bytes) -> None:
        try:
            while data:
                at = os.fstat(self._file).st_size if self._offset is None else self._offset
                written = os.pwrite(self._file, data, at)
                if self._offset is not None:
                    self._offset += written
                data = data[written:]
        except OSError as error:
            raise failed(str(error.strerror), file=name_of(error)) from None
        except OverflowError:
            raise failed("the file cannot be so large", file="file-too-large") from None

    def close(self) -> None:
        os.close(self._file)


@resource("directory-entry-stream")
class Entries(Resource):
    """What is in a directory, whose descriptor it takes over."""

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
            return _kind(mode), entry.name
        return None

    def close(self) -> None:
        self._scan.close()
        os.close(self._directory)


def _kind(mode: int) -> str:
    return next((name for is_it, name in _KINDS if is_it(mode)), "unknown")


def _stat(found: os.stat_result) -> tuple[Any, ...]:
    times = (divmod(when, _SECOND) for when in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns))
    return (_kind(found.st_mode), found.st_nlink, found.st_size, *times)


def _stat_at(descriptor: Descriptor, flags: frozenset[str], path: str) -> os.stat_result:
    follow = 0 if "symlink-follow" in flags else os.O_NOFOLLOW
    number = open_beneath(descriptor.folder(), path, os.O_PATH | follow)
    try:
        return os.fstat(number)
    finally:
        os.close(number)


def _hash(found: os.stat_result) -> tuple[int, int]:
    digest = hashlib.blake2b(struct.pack("<QQ", found.st_dev, found.st_ino), digest_size=16).digest()
    return struct.unpack("<QQ", digest)


def _times(accessed: tuple[str, Any], modified: tuple[str, Any], now: os.stat_result) -> tuple[int, int]:
    moment = time.time_ns()

    def of(wanted: tuple[str, Any], before: int) -> int:
        if wanted[0] == "timestamp":
            seconds, nanoseconds = wanted[1]
            if nanoseconds >= _SECOND:
                raise Failed("invalid")
            return int(seconds * _SECOND + nanoseconds)
        return moment if wanted[0] == "now" else before

    return of(accessed, now.st_atime_ns), of(modified, now.st_mtime_ns)


@function("wasi:filesystem/preopens.get-directories")
def _directories(instance: Instance) -> list[tuple[Descriptor, str]]:
    found = []
    for mount in instance.host.mounts:
        number = os.open(mount["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        changes = not mount["read_only"]
        flags = frozenset((_READ, _MUTATE) if changes else (_READ,))
        found.append((Descriptor(number, flags, changes=changes), mount["path"]))
    return found


@function(f"{_TYPES}.filesystem-error-code")
def _error_code(instance: Instance, error: IoError) -> str | None:
    return error.file


@_function("read-via-stream")
def _read_via_stream(instance: Instance, descriptor: Descriptor, offset: int) -> FileInput:
    descriptor.file(_READ)
    return FileInput(descriptor, offset)


@_function("write-via-stream")
def _write_via_stream(instance: Instance, descriptor: Descriptor, offset: int) -> FileOutput:
    descriptor.file(_WRITE)
    return FileOutput(descriptor, offset)


@_function("append-via-stream")
def _append_via_stream(instance: Instance, descriptor: Descriptor) -> FileOutput:
    descriptor.file(_WRITE)
    return FileOutput(descriptor, None)


@_function("advise")
def _advise(instance: Instance, descriptor: Descriptor, offset: int, length: int, advice: str) -> None:
    if descriptor.directory:
        raise Failed("bad-descriptor")
    os.posix_fadvise(descriptor.number_of_file, offset, length, _ADVICE[advice])


@_function("sync-data")
def _sync_data(instance: Instance, descriptor: Descriptor) -> None:
    _synced(os.fdatasync, descriptor)


@_function("sync")
def _sync(instance: Instance, descriptor: Descriptor) -> None:
    _synced(os.fsync, descriptor)


def _synced(sync: Any, descriptor: Descriptor) -> None:
    try:
        sync(descriptor.number_of_file)
    except OSError as error:
        # Where nothing was written, or nothing can be, there is nothing to bring to the disk.
        if error.errno not in (errno.EBADF, errno.EINVAL, errno.EROFS):
            raise


@_function("get-flags")
def _get_flags(instance: Instance, descriptor: Descriptor) -> frozenset[str]:
    return descriptor.flags


@_function("get-type")
def _get_type(instance: Instance, descriptor: Descriptor) -> str:
    return _kind(os.fstat(descriptor.number_of_file).st_mode)


@_function("set-size")
def _set_size(instance: Instance, descriptor: Descriptor, size: int) -> None:
    os.ftruncate(descriptor.file(_WRITE), size)


@_function("set-times")
def _set_times(instance: Instance, descriptor: Descriptor, accessed: Any, modified: Any) -> None:
    if not descriptor.changes:
        raise Failed("not-permitted")
    number = descriptor.number_of_file
    os.utime(number, ns=_times(accessed, modified, os.fstat(number)))


@_function("read")
def _read(instance: Instance, descriptor: Descriptor, length: int, offset: int) -> tuple[bytes, bool]:
    number = descriptor.file(_READ)
    found = os.pread(number, min(length, _MOST_READ), offset)
    return found, not found and length > 0


@_function("write")
def _write(instance: Instance, descriptor: Descriptor, data: bytes, offset: int) -> int:
    return os.pwrite(descriptor.file(_WRITE), data, offset)


@_function("read-directory")
def _read_directory(instance: Instance, descriptor: Descriptor) -> Entries:
    # Another opening of it: two readers of one would share the place where they are.
    return Entries(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor.folder()))


@function(f"{_TYPES}.[method]directory-entry-stream.read-directory-entry")
def _read_entry(instance: Instance, entries: Entries) -> tuple[str, str] | None:
    found: tuple[str, str] | None = _answers(entries.read)()
    return found


@_function("create-directory-at")
def _create_directory(instance: Instance, descriptor: Descriptor, path: str) -> None:
    with _Parent(descriptor.folder(change=True), path) as parent:
        os.mkdir(parent.name, dir_fd=parent.number)


@_function("stat")
def _stat_of(instance: Instance, descriptor: Descriptor) -> tuple[Any, ...]:
    return _stat(os.fstat(descriptor.number_of_file))


@_function("stat-at")
def _stat_of_path(instance: Instance, descriptor: Descriptor, flags: frozenset[str], path: str) -> tuple[Any, ...]:
    return _stat(_stat_at(descriptor, flags, path))


@_function("set-times-at")
def _set_times_at(
    instance: Instance, descriptor: Descriptor, flags: frozenset[str], path: str, accessed: Any, modified: Any
) -> None:
    directory = descriptor.folder(change=True)
    now = _stat_at(descriptor, flags, path)
    if "symlink-follow" in flags and not stat.S_ISLNK(now.st_mode):
        number = open_beneath(directory, path, os.O_PATH)
        try:
            os.utime(f"/proc/self/fd/{number}", ns=_times(accessed, modified, now))
        finally:
            os.close(number)
        return
    with _Parent(directory, path) as parent:
        os.utime(parent.name, ns=_times(accessed, modified, now), dir_fd=parent.number, follow_symlinks=False)


@_function("link-at")
def _link(
    instance: Instance, descriptor: Descriptor, flags: frozenset[str], path: str, other: Descriptor, other_path: str
) -> None:
    if "symlink-follow" in flags:
        raise Failed("invalid")
    with _Parent(descriptor.folder(change=True), path) as old, _Parent(other.folder(change=True), other_path) as new:
        if old.slash or new.slash:
            raise Failed("not-directory")
        os.link(old.name, new.name, src_dir_fd=old.number, dst_dir_fd=new.number, follow_symlinks=False)


@_function("open-at")
def _open(
    instance: Instance, descriptor: Descriptor, path_flags: frozenset[str], path: str, open_flags: frozenset[str],
    flags: frozenset[str],
) -> Descriptor:  # fmt: skip
    directory = descriptor.folder()
    if flags & _SYNC:
        raise Failed("unsupported")
    changes = bool(flags & {_WRITE, _MUTATE} or open_flags & {"create", "truncate", "exclusive"})
    if changes and not (descriptor.changes and _MUTATE in descriptor.flags):
        raise Failed("not-permitted")
    mode = os.O_RDONLY if _WRITE not in flags else os.O_RDWR if _READ in flags else os.O_WRONLY
    for flag, number in (("create", os.O_CREAT), ("exclusive", os.O_EXCL), ("truncate", os.O_TRUNC)):
        mode |= number if flag in open_flags else 0
    if "directory" in open_flags:
        if "create" in open_flags:
            raise Failed("invalid")
        mode |= os.O_DIRECTORY
    if "symlink-follow" not in path_flags:
        mode |= os.O_NOFOLLOW
    # A pipe that nobody reads would keep this process waiting.
    made = open_beneath(directory, path, mode | os.O_NONBLOCK | os.O_NOCTTY, 0o666 if mode & os.O_CREAT else 0)
    found = Descriptor(made, flags, changes=descriptor.changes)
    if found.directory:
        found.flags = frozenset((_READ, _MUTATE) if descriptor.changes else (_READ,))
    elif not flags & {_READ, _WRITE}:
        found.flags = frozenset((_READ,))
    return found


@_function("readlink-at")
def _readlink(instance: Instance, descriptor: Descriptor, path: str) -> str:
    with _Parent(descriptor.folder(), path) as parent:
        found = os.readlink(parent.name, dir_fd=parent.number)
    if found.startswith("/"):
        raise Failed("not-permitted")
    return found


@_function("remove-directory-at")
def _remove_directory(instance: Instance, descriptor: Descriptor, path: str) -> None:
    with _Parent(descriptor.folder(change=True), path) as parent:
        os.rmdir(parent.name, dir_fd=parent.number)


@_function("rename-at")
def _rename(instance: Instance, descriptor: Descriptor, path: str, other: Descriptor, other_path: str) -> None:
    with _Parent(descriptor.folder(change=True), path) as old, _Parent(other.folder(change=True), other_path) as new:
        slashes = ["/" if one.slash else "" for one in (old, new)]
        os.rename(old.name + slashes[0], new.name + slashes[1], src_dir_fd=old.number, dst_dir_fd=new.number)


@_function("symlink-at")
def _symlink(instance: Instance, descriptor: Descriptor, target: str, path: str) -> None:
    if target.startswith("/"):
        raise Failed("not-permitted")
    if "\0" in target:
        raise Failed("invalid")
    with _Parent(descriptor.folder(change=True), path) as parent:
        if parent.slash:
            raise Failed("no-entry")
        os.symlink(target, parent.name, dir_fd=parent.number)


@_function("unlink-file-at")
def _unlink(instance: Instance, descriptor: Descriptor, path: str) -> None:
    with _Parent(descriptor.folder(change=True), path) as parent:
        if parent.slash:
            raise Failed("not-directory")
        os.unlink(parent.name, dir_fd=parent.number)


@function(f"{_D}is-same-object")
def _is_same(instance: Instance, descriptor: Descriptor, other: Descriptor) -> bool:
    return os.path.samestat(os.fstat(descriptor.number_of_file), os.fstat(other.number_of_file))


@_function("metadata-hash")
def _metadata_hash(instance: Instance, descriptor: Descriptor) -> tuple[int, int]:
    return _hash(os.fstat(descriptor.number_of_file))


@_function("metadata-hash-at")
def _metadata_hash_at(instance: Instance, descriptor: Descriptor, flags: frozenset[str], path: str) -> tuple[int, int]:
    return _hash(_stat_at(descriptor, flags, path))
