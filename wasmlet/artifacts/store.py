"""The store of pulled images: content by its digest, and which reference stands for which image.

    format               the number of this layout
    blobs/sha256/<hex>   modules, manifests and configurations; never changed once they are there
    images/<hex>         an image, by its manifest's digest: which blob is the module, and how it is started
    references/<hash>    a reference, and the digest of the manifest that it stood for at the last pull
    access/<hex>         who has pulled this image (`access`)
    compiled/            compiled modules (`compiled`)
    trees/<hex>/         the unpacked files of an image (`trees`), by its manifest's digest: for images that pods mount,
                         and for images with files beside their module
    ingest/, locks/      unfinished files, and lock files

Several node loops may share a store, and any of them may die at any moment. So a file gets its final name only when it
is complete and on the disk. Blobs come before the image that names them, and the image before its references.

Whoever uses an image holds a shared lock on it (`Lease`); `collection` removes no locked image. Blobs are shared: two
images whose manifests name the same digest use the same file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import attrs
import orjson

from wasmlet.artifacts.errors import StoreError
from wasmlet.artifacts.files import Part, entries, lock, write_whole
from wasmlet.artifacts.references import Reference, is_digest
from wasmlet.artifacts.trees import FILES, RECORD
from wasmlet.clock import Clock
from wasmlet.concurrency import in_thread

FORMAT = 1
_POLL = 0.1
STALE = 60.0
"""An unfinished file that is not locked and is older than this (seconds) was left by a process that died."""


@attrs.frozen
class Image:
    """A module and how it is started.

    Attributes:
        digest: digest of the manifest.
        module: digest of the module.
        size: size of the module in bytes.
        blobs: digests of all blobs of the image.
        command: the entry point of a container image, which begins with the module's path; empty for an artifact.
        arguments: the arguments after it, if the pod gives none.
        environment: `NAME=value`, from a container image.
        folder: the working directory of a container image; "" for an artifact.
        files: whether the image has files beside its module; these are in `trees` then.
    """

    digest: str
    module: str
    size: int
    blobs: tuple[str, ...]
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    folder: str = ""
    files: bool = False


@attrs.frozen
class Tree:
    """An image that is unpacked as a directory.

    Attributes:
        digest: digest of the manifest.
        size: size of the unpacked files in bytes.
    """

    digest: str
    size: int


Kind = TypeVar("Kind", bound=Image | Tree)


class Lease(Generic[Kind]):
    """A shared lock on an image that is in use. Nobody removes the image before this is closed or this process ends.

    Attributes:
        image: the image.
        path: path of the module, or of the directory.
        files: for a module with files beside it: the lease of these files. It is closed together with this one.
    """

    def __init__(self, image: Kind, path: Path, descriptor: int, files: Lease[Tree] | None = None) -> None:
        self.image = image
        self.path = path
        self.files = files
        self._descriptor = descriptor

    def close(self) -> None:
        """Release the lock; may be called twice."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)  # when it was used last
            os.close(self._descriptor)
            self._descriptor = -1
            close_lease(self.files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Store:
    """The images and modules in a directory. All methods but `add`, `part` and `locked` are quick, and block.

    Args:
        directory: where the store is; `prepare` makes it. It must belong to this user.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self._blobs = directory / "blobs"
        self.images = directory / "images"
        self.references = directory / "references"
        self.ingest = directory / "ingest"
        self._locks = directory / "locks"
        self._access = directory / "access"
        self.compiled = directory / "compiled"
        self.refused = directory / "refused"
        self.trees = directory / "trees"
        self._here: dict[str, tuple[asyncio.Lock, int]] = {}

    def prepare(self) -> None:
        """Make the directories, and remove the unfinished files of processes that died.

        Raises:
            StoreError: other users may write to it, another version made it, or it cannot be made.
        """
        try:
            for part in (
                self.directory,
                self._blobs,
                self.images,
                self.references,
                self.ingest,
                self._locks,
                self._access,
                self.compiled,
                self.refused,
                self.trees,
            ):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
            for kind in ("sha256", "sha512"):
                (self._blobs / kind).mkdir(mode=0o700, exist_ok=True)
            found = self.directory.stat()
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
                raise StoreError(f"{self.directory} holds modules, and must belong to and be written by us only")
            self._check_format()
        except OSError as error:
            raise StoreError(f"store {self.directory}: {error.strerror}: {error.filename}") from error
        self.clear_up()

    def _check_format(self) -> None:
        file = self.directory / "format"
        if not file.exists():
            write_whole(self.ingest, file, f"{FORMAT}\n".encode())
        if (found := file.read_text("ascii", "replace").strip()) != str(FORMAT):
            raise StoreError(f"store {self.directory} has format {found[:20]!r}, expected {FORMAT}; choose another one")

    def clear_up(self) -> None:
        """Remove unfinished files of processes that died, and lock files that nobody holds."""
        now = self.clock.now().timestamp()
        for directory in (self.ingest, self._locks):
            for path, found in entries(directory):
                if now - found.st_mtime < STALE:
                    continue
                if (descriptor := lock(path, create=False)) is not None:
                    if stat.S_ISDIR(found.st_mode):
                        shutil.rmtree(path)
                    else:
                        path.unlink(missing_ok=True)
                    os.close(descriptor)

    def blob(self, digest: str) -> Path:
        """Where a blob is, or would be."""
        algorithm, _, name = digest.partition(":")
        return self._blobs / algorithm / name

    def blob_paths(self) -> list[Path]:
        """The directories of the blobs."""
        return [self._blobs / "sha256", self._blobs / "sha512"]

    def lock_path(self, name: str) -> Path:
        """The file whose lock `locked` holds."""
        return self._locks / name

    def access_path(self, digest: str) -> Path:
        """The file that records who has pulled the image with this manifest."""
        return self._access / _hex(digest)

    def part(self, digest: str | None) -> Part:
        """A temporary file for content that is being downloaded, see `files.Part`."""
        return Part(self.ingest, digest)

    async def add(self, digest: str, fill: Callable[[Part], Awaitable[None]]) -> Path:
        """Add a blob, unless it is there: `fill` writes its content. Other callers for the same blob wait.

        Returns:
            The path of the blob.

        Raises:
            BadContent: the content has another digest; it is removed.
            OSError: the disk is full, or fails; the content is removed.
        """
        path = self.blob(digest)
        async with self.locked(digest.replace(":", "-")):
            if not self._touched(path):
                with self.part(digest) as part:
                    await fill(part)
                    await in_thread(part.keep, path)
        return path

    def _touched(self, path: Path) -> bool:
        """Whether a blob is there. If so, set its time to now, so that it is not removed before an image names it."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def locked(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of this name. It is exclusive among all processes that share the store."""
        here, users = self._here.get(name, (asyncio.Lock(), 0))
        self._here[name] = here, users + 1
        try:
            async with here:
                path = self.lock_path(name)
                while (descriptor := lock(path, create=True)) is None:  # another process has it
                    await self.clock.sleep(_POLL)
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                    os.close(descriptor)
        finally:
            here, users = self._here.pop(name)
            if users > 1:
                self._here[name] = here, users - 1

    def record(self, reference: Reference, image: Image) -> None:
        """Record an image, and that a reference stands for it. The image can be found by its digest, too."""
        path = self.images / _hex(image.digest)
        if read_object(path) != (content := _image_json(image)):  # an image that is in use keeps its file
            write_whole(self.ingest, path, orjson.dumps(content))
        self.refer(reference, image)

    def refer(self, reference: Reference, image: Image | Tree) -> None:
        """Record that a reference stands for an image which is in the store; the same with the image's digest."""
        for name in {str(reference), str(reference.at(image.digest))}:
            raw = {"reference": name, "image": image.digest, "pulled": self.clock.now().isoformat()}
            write_whole(self.ingest, self._reference(name), orjson.dumps(raw))

    def find(self, reference: Reference) -> Lease[Image] | None:
        """Find and lease the image that a reference stood for at its last pull; None if there is none."""
        digest = self._referred(reference)
        return self.lease(digest) if digest is not None else None

    def find_tree(self, reference: Reference) -> Lease[Tree] | None:
        """As `find`, for the unpacked image."""
        digest = self._referred(reference)
        return self.lease_tree(digest) if digest is not None else None

    def _referred(self, reference: Reference) -> str | None:
        names = [reference, *([reference.at(reference.digest)] if reference.digest is not None else [])]
        for name in names:
            if (raw := read_object(self._reference(str(name)))) is not None:
                return str(raw.get("image")) if is_digest(raw.get("image")) else None
        return None

    def lease(self, digest: str) -> Lease[Image] | None:
        """Lease the image with this manifest digest; None if it is not here, or not complete."""
        path = self.images / _hex(digest)
        descriptor = lock(path, create=False, shared=True)
        if descriptor is None:
            return None
        image = _image_of(read_object(path))
        whole = image is not None and self.blob(image.module).is_file()
        files = self.lease_tree(digest) if whole and image is not None and image.files else None
        if image is None or not whole or (image.files and files is None):
            os.close(descriptor)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # when it was used last
        return Lease(image, self.blob(image.module), descriptor, files)

    def tree(self, digest: str) -> Path:
        """Where an image's directory is, or would be."""
        return self.trees / _hex(digest)

    def lease_tree(self, digest: str) -> Lease[Tree] | None:
        """Lease the unpacked image with this manifest digest; None if it is not here."""
        path = self.tree(digest)
        descriptor = lock(path, create=False, shared=True)
        if descriptor is None:
            return None
        tree = read_tree(path)
        if tree is None:
            os.close(descriptor)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # when it was used last
        return Lease(tree, path / FILES, descriptor)

    def leases_of(self, modules: Collection[str]) -> list[Lease[Image]]:
        """Lease all images whose modules have these digests."""
        found = ((path, read_image(path)) for path, _ in entries(self.images))
        digests = [image.digest for _, image in found if image is not None and image.module in modules]
        return [lease for lease in map(self.lease, digests) if lease is not None]

    def _reference(self, name: str) -> Path:
        return self.references / hashlib.sha256(name.encode()).hexdigest()


def _hex(digest: str) -> str:
    return digest.replace(":", "-")


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None if there is no such file, or something else in it."""
    try:
        found = orjson.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _image_json(image: Image) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in attrs.asdict(image).items()}


def _image_of(raw: Mapping[str, Any] | None) -> Image | None:
    found = raw or {}
    lists = [found.get(name) for name in ("blobs", "command", "arguments", "environment")]
    if not (is_digest(found.get("digest")) and is_digest(found.get("module")) and isinstance(found.get("size"), int)):
        return None
    if not all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in lists):
        return None
    blobs, command, arguments, environment = (tuple(one or ()) for one in lists)
    how = (command, arguments, environment, str(found.get("folder") or ""), found.get("files") is True)
    return Image(found["digest"], found["module"], found["size"], blobs, *how)


def read_image(path: Path) -> Image | None:
    """Read the image from a file of `images/`; None if the file is not valid."""
    return _image_of(read_object(path))


def read_tree(path: Path) -> Tree | None:
    """Read the record of a directory of `trees/`; None if it is not valid."""
    found = read_object(path / RECORD) or {}
    digest, size = found.get("digest"), found.get("size")
    return Tree(str(digest), size) if is_digest(digest) and isinstance(size, int) else None


def read_reference(path: Path) -> tuple[str, datetime | None]:
    """Read a file of `references/`: the digest that it names ("" for none), and when that was pulled."""
    raw = read_object(path) or {}
    try:
        pulled = datetime.fromisoformat(str(raw.get("pulled")))
    except ValueError:
        pulled = None
    return str(raw.get("image") or ""), pulled


def close_lease(lease: Lease[Image] | Lease[Tree] | None) -> None:
    """Close a lease; None is ignored."""
    if lease is not None:
        lease.close()
