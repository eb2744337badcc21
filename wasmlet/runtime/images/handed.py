"""Images that a client hands to the node, for a machine that reaches no registry.

The client names the manifest, and is told which blobs are missing: first the manifest itself, then what it names. It
sends blobs in pieces. Everything is checked against its digest. So the client chooses which image it hands over, but
cannot change its content. The image is then made in the same way as when it is pulled (`pull`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import attrs

from wasmlet.artifacts import manifests
from wasmlet.artifacts.credentials import Credential
from wasmlet.artifacts.descriptors import Descriptor
from wasmlet.artifacts.errors import BadContent, Unavailable, errors_name
from wasmlet.artifacts.files import Part
from wasmlet.artifacts.manifests import Index
from wasmlet.artifacts.pull import Puller, Resolved
from wasmlet.artifacts.references import Reference, is_digest, parse
from wasmlet.artifacts.session import MAX_MANIFEST, Document, Progress, Sink
from wasmlet.artifacts.store import Image, Lease, Store, Tree, close_lease
from wasmlet.concurrency import in_thread, opened_in_thread
from wasmlet.errors import InvalidInput
from wasmlet.model.inputs import HandedImage

MOST_PARTS = 8
"""The most unfinished blobs. If there are more, the one that has not grown for the longest time is dropped."""
_CHUNK = 1024 * 1024


@attrs.define(eq=False)
class _Coming:
    """An unfinished blob. `over` is set when nothing may be added to it any more."""

    part: Part
    size: int
    turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    over: bool = False
    closed: bool = False

    def end(self) -> None:
        """Close it; if somebody is adding to it at the moment, they close it afterwards."""
        self.over = True
        if not self.turn.locked() and not self.closed:
            self.closed = True
            self.part.__exit__()


class Handed:
    """Takes images for a store.

    Args:
        puller: makes an image of its manifest and blobs.
        most_bytes: of one blob.
    """

    def __init__(self, store: Store, puller: Puller, most_bytes: int) -> None:
        self._store = store
        self._puller = puller
        self._most_bytes = most_bytes
        self._coming: dict[str, _Coming] = {}
        self._arrived: set[str] = set()
        """Digests of blobs that no image names yet."""

    def close(self) -> None:
        """Drop what is on its way."""
        for coming in self._coming.values():
            coming.end()
        self._coming.clear()

    async def take(self, digest: str, size: int, offset: int, data: bytes) -> int:
        """Add a piece to a blob. A piece that does not begin where the last one ended is ignored.

        Args:
            size: of the whole blob.
            offset: where the piece begins.

        Returns:
            How many bytes are here; the next piece must begin there. The full size once the blob is stored.

        Raises:
            InvalidInput: the blob is larger than allowed, or not as large as was said.
            BadContent: it has another digest; nothing of it is left.
            OSError: the disk is full, or fails.
        """
        _check_digest(digest)
        if not 0 <= size <= self._most_bytes:
            raise InvalidInput(f"blob {digest} has {size} bytes, more than the {self._most_bytes} allowed")
        await self._touch()
        if await in_thread(self._is_here, digest):
            self._arrived.add(digest)
            return size
        coming = self._of(digest, size)
        try:
            async with coming.turn:
                if coming.over:
                    return size if await in_thread(self._is_here, digest) else 0
                if coming.size != size:
                    self._drop(digest, coming)
                    raise InvalidInput(f"blob {digest} was said to have {coming.size} bytes, and now {size}")
                if offset == coming.part.size:
                    await self._add(digest, coming, data)
                return coming.part.size
        finally:
            if coming.over:
                coming.end()

    async def have(self, name: str, image: HandedImage, *, files: bool) -> Sequence[str]:
        """Make an image from its manifest, if all its blobs are here.

        Args:
            name: the reference by which the client calls the image.
            files: the files of the image are wanted, not its module.

        Returns:
            The digests of missing blobs; empty when the image is here. It is not locked.

        Raises:
            InvalidInput: that is no digest.
            ArtifactError: it is no image of that kind.
        """
        digest = image.digest
        with errors_name(name):
            reference = parse(name)
            _check_digest(digest)
            if (lease := await self._leased(digest, files)) is not None:
                await in_thread(self._named_too, reference, lease)
                return ()
            await self._touch()
            data = await in_thread(self._small, digest)
            if data is None:
                return (digest,)
            document = Document(data, digest, "")
            found = manifests.read(document)
            if isinstance(found, Index):
                raise BadContent("expected the manifest of one image, found an index")
            layers = found.layers if files or found.module() is None else (found.module(),)
            wanted = [one for one in (*([found.config] if found.is_container else []), *layers) if one is not None]
            missing = [one.digest for one in wanted if not await in_thread(self._is_here, one.digest)]
            if missing:
                return tuple(dict.fromkeys(missing))
            resolved = Resolved(_Here(self._store), document, found, image.wasm)
            if files:
                (await self._puller.ensure_tree(reference, resolved)).close()
            else:
                (await self._puller.ensure_image(reference, resolved, lambda there, whole: None)).close()
            self._arrived -= {digest, *(one.digest for one in wanted)}
            return ()

    async def _leased(self, digest: str, files: bool) -> Lease[Image] | Lease[Tree] | None:
        if files:
            return await opened_in_thread(lambda: self._store.lease_tree(digest), close_lease)
        return await opened_in_thread(lambda: self._store.lease(digest), close_lease)

    def _named_too(self, reference: Reference, lease: Lease[Image] | Lease[Tree]) -> None:
        with lease:
            self._store.refer(reference, lease.image)

    def _of(self, digest: str, size: int) -> _Coming:
        coming = self._coming.pop(digest, None) or _Coming(self._store.part(digest), size)
        self._coming[digest] = coming  # the newest
        if len(self._coming) > MOST_PARTS:
            self._coming.pop(next(iter(self._coming))).end()
        return coming

    async def _add(self, digest: str, coming: _Coming, data: bytes) -> None:
        part = coming.part
        try:
            if part.size + len(data) > coming.size:
                raise InvalidInput(f"blob {digest} is longer than the {coming.size} bytes that were said")
            await part.write(data)
            if part.size == coming.size:
                await in_thread(part.keep, self._store.blob(digest))
                self._arrived.add(digest)
                self._drop(digest, coming)
        except BaseException:
            self._drop(digest, coming)
            raise

    def _drop(self, digest: str, coming: _Coming) -> None:
        if self._coming.get(digest) is coming:
            del self._coming[digest]
        coming.over = True

    def _is_here(self, digest: str) -> bool:
        """Whether a blob is in the store; if so it counts as new, so that it is not removed before it is named."""
        try:
            os.utime(self._store.blob(digest))
        except FileNotFoundError:
            return False
        return True

    async def _touch(self) -> None:
        """Keep what has arrived from being removed while the rest of its image is on its way."""
        arrived = tuple(self._arrived)
        gone = await in_thread(lambda: {digest for digest in arrived if not self._is_here(digest)})
        self._arrived -= gone

    def _small(self, digest: str) -> bytes | None:
        """A manifest; None where it is not here."""
        try:
            with self._store.blob(digest).open("rb") as file:
                data = file.read(MAX_MANIFEST + 1)
        except FileNotFoundError:
            return None
        if len(data) > MAX_MANIFEST:
            raise BadContent(f"the manifest has more than the {MAX_MANIFEST} bytes allowed")
        return data


def _check_digest(text: str) -> None:
    if not is_digest(text):
        raise InvalidInput(f"expected a digest, sha256:HEX, found {text[:100]!r}")


@attrs.frozen
class _Here:
    """The blobs of a store."""

    store: Store
    credential: Credential | None = None

    async def blob(self, wanted: Descriptor, sink: Sink, progress: Progress) -> None:
        """Copy a blob."""
        path: Path = self.store.blob(wanted.digest)
        await sink.restart()
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(await in_thread(path.open, "rb"))
            except FileNotFoundError:
                raise Unavailable(f"blob {wanted.digest} was removed meanwhile") from None
            while chunk := await in_thread(file.read, _CHUNK):
                await sink.write(chunk)
                progress(sink.size)
