"""wasi:filesystem: files below the mounts of a container, reached by descriptors (`descriptors`)."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable
from typing import Any

from .descriptors import (
    MUTATE,
    READ,
    WRITE,
    Descriptor,
    Entries,
    FileInput,
    FileOutput,
    Parent,
    kind_of,
    name_of,
    open_beneath,
)  # fmt: skip
from .instances import Failed, Instance
from .streams import CHUNK, IoError
from .world import function

_TYPES = "wasi:filesystem/types"
_D = f"{_TYPES}.[method]descriptor."
_SECOND = 1_000_000_000
_LAST_SECOND = 2**63 // _SECOND - 1
"""The greatest second of a time: nanoseconds since 1970 have to fit into 64 bits."""
_ADVICE = {
    "normal": os.POSIX_FADV_NORMAL, "sequential": os.POSIX_FADV_SEQUENTIAL, "random": os.POSIX_FADV_RANDOM,
    "will-need": os.POSIX_FADV_WILLNEED, "dont-need": os.POSIX_FADV_DONTNEED, "no-reuse": os.POSIX_FADV_NOREUSE,
}  # fmt: skip
_SYNC = frozenset(("file-integrity-sync", "data-integrity-sync", "requested-write-sync"))
_Function = Callable[..., Any]


def _answers(found: _Function) -> _Function:
    """Turn the system's errors into those of the interface."""

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


def _stat(found: os.stat_result) -> tuple[Any, ...]:
    # The interface's times begin in 1970; a file may be older.
    times = (divmod(max(when, 0), _SECOND) for when in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns))
    return (kind_of(found.st_mode), found.st_nlink, found.st_size, *times)


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
            if seconds > _LAST_SECOND:
                raise Failed("overflow")
            return int(seconds * _SECOND + nanoseconds)
        return moment if wanted[0] == "now" else before

    return of(accessed, now.st_atime_ns), of(modified, now.st_mtime_ns)


@function("wasi:filesystem/preopens.get-directories")
def _directories(instance: Instance) -> list[tuple[Descriptor, str]]:
    found = []
    for mount in instance.host.mounts:
        number = os.open(mount["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        changes = not mount["read_only"]
        flags = frozenset((READ, MUTATE) if changes else (READ,))
        found.append((Descriptor(number, flags, changes=changes), mount["path"]))
    return found


@function(f"{_TYPES}.filesystem-error-code")
def _error_code(instance: Instance, error: IoError) -> str | None:
    return error.file


@_function("read-via-stream")
def _read_via_stream(instance: Instance, descriptor: Descriptor, offset: int) -> FileInput:
    descriptor.file(directory="is-directory")
    return FileInput(descriptor, offset)


@_function("write-via-stream")
def _write_via_stream(instance: Instance, descriptor: Descriptor, offset: int) -> FileOutput:
    descriptor.file(write=True)
    return FileOutput(descriptor, offset)


@_function("append-via-stream")
def _append_via_stream(instance: Instance, descriptor: Descriptor) -> FileOutput:
    descriptor.file(write=True)
    return FileOutput(descriptor, None)


@_function("advise")
def _advise(instance: Instance, descriptor: Descriptor, offset: int, length: int, advice: str) -> None:
    os.posix_fadvise(descriptor.file(), offset, length, _ADVICE[advice])


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
    return kind_of(os.fstat(descriptor.number_of_file).st_mode)


@_function("set-size")
def _set_size(instance: Instance, descriptor: Descriptor, size: int) -> None:
    os.ftruncate(descriptor.file(write=True), size)


@_function("set-times")
def _set_times(instance: Instance, descriptor: Descriptor, accessed: Any, modified: Any) -> None:
    if not descriptor.changes:
        raise Failed("not-permitted")
    number = descriptor.number_of_file
    os.utime(number, ns=_times(accessed, modified, os.fstat(number)))


@_function("read")
def _read(instance: Instance, descriptor: Descriptor, length: int, offset: int) -> tuple[bytes, bool]:
    number = descriptor.file()
    found = os.pread(number, min(length, CHUNK), offset)
    return found, not found and length > 0


@_function("write")
def _write(instance: Instance, descriptor: Descriptor, data: bytes, offset: int) -> int:
    return os.pwrite(descriptor.file(write=True), data, offset)


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
    with Parent(descriptor.folder(change=True), path, dots="exist") as parent:
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
    with Parent(directory, path, dots="invalid") as parent:
        os.utime(parent.name, ns=_times(accessed, modified, now), dir_fd=parent.number, follow_symlinks=False)


@_function("link-at")
def _link(
    instance: Instance, descriptor: Descriptor, flags: frozenset[str], path: str, other: Descriptor, other_path: str
) -> None:
    if "symlink-follow" in flags:
        raise Failed("invalid")
    with (
        Parent(descriptor.folder(change=True), path, dots="not-permitted", slash="not-permitted") as old,
        Parent(other.folder(change=True), other_path, dots="exist", slash="exist") as new,
    ):
        os.link(old.name, new.name, src_dir_fd=old.number, dst_dir_fd=new.number, follow_symlinks=False)


@_function("open-at")
def _open(
    instance: Instance, descriptor: Descriptor, path_flags: frozenset[str], path: str, open_flags: frozenset[str],
    flags: frozenset[str],
) -> Descriptor:  # fmt: skip
    directory = descriptor.folder()
    if flags & _SYNC:
        raise Failed("unsupported")
    changes = bool(WRITE in flags or open_flags & {"create", "truncate", "exclusive"})
    if changes and not (descriptor.changes and MUTATE in descriptor.flags):
        raise Failed("not-permitted")
    mode = os.O_RDONLY if WRITE not in flags else os.O_RDWR if READ in flags else os.O_WRONLY
    for flag, number in (("create", os.O_CREAT), ("exclusive", os.O_EXCL), ("truncate", os.O_TRUNC)):
        mode |= number if flag in open_flags else 0
    if "directory" in open_flags:
        if len(open_flags) > 1:
            raise Failed("invalid")
        mode |= os.O_DIRECTORY
    if "symlink-follow" not in path_flags:
        mode |= os.O_NOFOLLOW
    # A pipe that nobody reads would keep this process waiting.
    mode |= os.O_NONBLOCK | os.O_NOCTTY
    try:
        made = open_beneath(directory, path, mode, 0o666 if mode & os.O_CREAT else 0)
    except NotADirectoryError:
        # The system does not say of a link that it is one when a directory is wanted.
        wanted = os.O_DIRECTORY | os.O_NOFOLLOW
        if mode & wanted == wanted and stat.S_ISLNK(_stat_at(descriptor, path_flags, path).st_mode):
            raise Failed("loop") from None
        raise
    found = Descriptor(made, flags, changes=descriptor.changes)
    if found.directory:
        found.flags = frozenset((READ, MUTATE) if descriptor.changes else (READ,))
    elif not flags & {READ, WRITE}:
        found.flags = frozenset((READ,))
    return found


@_function("readlink-at")
def _readlink(instance: Instance, descriptor: Descriptor, path: str) -> str:
    with Parent(descriptor.folder(), path, dots="invalid", slash="invalid") as parent:
        found = os.fsencode(os.readlink(parent.name, dir_fd=parent.number))
    if found.startswith(b"/"):
        raise Failed("not-permitted")
    try:
        return found.decode()
    except UnicodeDecodeError:
        raise Failed("illegal-byte-sequence") from None


@_function("remove-directory-at")
def _remove_directory(instance: Instance, descriptor: Descriptor, path: str) -> None:
    with Parent(descriptor.folder(change=True), path, dots="invalid") as parent:
        os.rmdir(parent.name, dir_fd=parent.number)


@_function("rename-at")
def _rename(instance: Instance, descriptor: Descriptor, path: str, other: Descriptor, other_path: str) -> None:
    with (
        Parent(descriptor.folder(change=True), path, dots="busy") as old,
        Parent(other.folder(change=True), other_path, dots="busy") as new,
    ):
        os.rename(old.name + old.slash, new.name + new.slash, src_dir_fd=old.number, dst_dir_fd=new.number)


@_function("symlink-at")
def _symlink(instance: Instance, descriptor: Descriptor, target: str, path: str) -> None:
    if target.startswith("/"):
        raise Failed("not-permitted")
    if "\0" in target:
        raise Failed("invalid")
    with Parent(descriptor.folder(change=True), path, dots="exist", slash="exist") as parent:
        os.symlink(target, parent.name, dir_fd=parent.number)


@_function("unlink-file-at")
def _unlink(instance: Instance, descriptor: Descriptor, path: str) -> None:
    with Parent(descriptor.folder(change=True), path, dots="is-directory", slash="is-directory") as parent:
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
