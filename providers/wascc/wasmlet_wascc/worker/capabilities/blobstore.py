"""`wascc:blobstore`: files in directories. Each mount of the pod's container is a store; a binding names the mount.

Inside a store, a container of blobs is a directory, and a blob is a file in it. A name is one part of a path, and
symbolic links are not followed. So nothing outside a mount can be reached; the kernel confines the process as well.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..capability import Context, HostError
from ..messages import BadMessage, both, field, named, number, octets, text

_DEFAULT_CHUNK, _MOST_CHUNK = 256 * 1024, 2**20
_MOST_LISTED, _AT_ONCE = 10_000, 1000
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHANGES = ("CreateContainer", "RemoveContainer", "RemoveObject", "StartUpload", "UploadChunk")
_MOST_DOWNLOADS = 4
_BLOB, _CONTAINER = ("id", "container", "byteSize"), ("id",)
_CHUNK = ("sequenceNo", "container", "id", "totalBytes", "chunkSize", "chunkBytes")
_NAMES = {"CreateContainer": _CONTAINER, "RemoveContainer": _CONTAINER, "ListObjects": _CONTAINER,
          "RemoveObject": _BLOB, "GetObjectInfo": _BLOB, "StartDownload": ("id", "container", "chunkSize")}  # fmt: skip
"""The fields of each operation's message, in the order in which older actors send them; others take a `_CHUNK`."""


class BlobStore:
    """Keeps blobs in the mounts that the pod has given the container."""

    def __init__(self, context: Context) -> None:
        self._mounts, self._tell, self._begin, self._log = context.mounts, context.tell, context.begin, context.log
        self._deadline = context.deadline
        self._downloads = 0
        self._operations = {
            "CreateContainer": self._create,
            "RemoveContainer": self._remove,
            "RemoveObject": self._remove_object,
            "ListObjects": self._list,
            "GetObjectInfo": self._info,
            "StartUpload": self._start_upload,
            "UploadChunk": self._upload,
            "StartDownload": self._download,
        }

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """See `Capability`."""
        do = self._operations.get(operation)
        if do is None:
            raise HostError(f"wascc:blobstore has no operation {operation[:80]!r}")
        mount = self._mounts.get(binding)
        if mount is None:
            known = ", ".join(sorted(self._mounts)) or "none"
            raise HostError(f"there is no binding {binding[:80]!r}: the container mounts {known}")
        if mount.read_only and operation in _CHANGES:
            raise HostError("Read-only file system")
        try:
            root = os.open(mount.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return do(root, named(message, _NAMES.get(operation, _CHUNK)))
            finally:
                os.close(root)
        except OSError as error:
            raise HostError(os.strerror(error.errno or 0)) from None

    def _create(self, root: int, message: Any) -> Any:
        name = _name(message, "id")
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=root)
        return {"id": name}

    def _remove(self, root: int, message: Any) -> Any:
        name = _name(message, "id")
        with _container(root, name) as directory:
            while found := self._names(directory, _AT_ONCE):
                for one in found:
                    os.unlink(one, dir_fd=directory)
        os.rmdir(name, dir_fd=root)

    def _names(self, directory: int, most: int) -> list[str]:
        """So many names of what is in a directory.

        Raises:
            HostError: the present call has taken too long.
        """
        if time.monotonic() >= self._deadline():
            raise HostError("it takes longer than a call may")
        with os.scandir(directory) as entries:
            return [entry.name for entry in itertools.islice(entries, most)]

    def _remove_object(self, root: int, message: Any) -> Any:
        with _container(root, _name(message, "container")) as directory:
            os.unlink(_name(message, "id"), dir_fd=directory)

    def _list(self, root: int, message: Any) -> Any:
        name = _name(message, "id")
        with _container(root, name) as directory:
            found, names = [], self._names(directory, _MOST_LISTED + 1)
            if len(names) > _MOST_LISTED:
                raise HostError(f"the container has more than {_MOST_LISTED} blobs")
            for one in sorted(names):
                info = os.stat(one, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISREG(info.st_mode):
                    found.append(both({"id": one, "container": name, "byteSize": info.st_size}))
        return {"blobs": found}

    def _info(self, root: int, message: Any) -> Any:
        container, name = _name(message, "container"), _name(message, "id")
        with _container(root, container) as directory:
            try:
                size = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
            except FileNotFoundError:
                return both({"id": "none", "container": "none", "byteSize": 0})  # as waSCC's own provider says it
        return both({"id": name, "container": container, "byteSize": size})

    def _start_upload(self, root: int, message: Any) -> Any:
        with _container(root, _name(message, "container")) as directory:
            os.close(_regular(_name(message, "id"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, directory))

    def _upload(self, root: int, message: Any) -> Any:
        data = octets(field(message, "chunkBytes"))
        with _container(root, _name(message, "container")) as directory:
            file = _regular(_name(message, "id"), os.O_WRONLY | os.O_APPEND, directory)
            try:
                while data:
                    data = data[os.write(file, data) :]
            finally:
                os.close(file)

    def _download(self, root: int, message: Any) -> Any:
        """Have the chunks delivered, one after the other, once this call is over."""
        container, name = _name(message, "container"), _name(message, "id")
        wanted = number(message, "chunkSize", 0) or _DEFAULT_CHUNK
        size = min(max(1, wanted), _MOST_CHUNK)
        with _container(root, container) as directory:
            file = _regular(name, os.O_RDONLY, directory)
        if self._downloads >= _MOST_DOWNLOADS:
            os.close(file)
            raise HostError(f"there are {_MOST_DOWNLOADS} downloads under way")
        self._downloads += 1
        self._begin(lambda: self._deliver(file, container, name, size))

    def _deliver(self, file: int, container: str, name: str, size: int) -> None:
        """Tell the actor of each chunk of a file, as it takes them; in a thread of its own. Closes the file."""
        try:
            total, at = os.fstat(file).st_size, 0
            while data := os.pread(file, size, at * size):
                chunk = {
                    "sequenceNo": at, "container": container, "id": name, "totalBytes": total, "chunkSize": size,
                    "chunkBytes": data,
                }  # fmt: skip
                self._tell("ReceiveChunk", both(chunk), patient=True)
                at += 1
        except OSError as error:
            self._log(f"wascc:blobstore: {name[:80]}: {error.strerror}")
        finally:
            self._downloads -= 1
            os.close(file)


def _regular(name: str, flags: int, directory: int) -> int:
    """Open a regular file. Anything else of that name, such as a pipe, is refused."""
    file = os.open(name, flags | _FLAGS, 0o644, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise HostError("this is no file")
    return file


@contextmanager
def _container(root: int, name: str) -> Iterator[int]:
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _FLAGS, dir_fd=root)
    try:
        yield directory
    finally:
        os.close(directory)


def _name(message: Any, what: str) -> str:
    """One part of a path."""
    found = text(message, what)
    if not found or found in (".", "..") or "/" in found or "\0" in found or len(found.encode()) > 255:
        raise BadMessage(f"expected {what} to be a name without slashes, found {found[:80]!r}")
    return found
