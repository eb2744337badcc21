"""Pull: downloads the module that a reference names into the store, or unpacks the files of an image into a directory.

The manifest is always requested with the credentials of the pod that asks. The registry's answer shows whether this pod
may have the image. The content that the manifest names is downloaded once per digest, for all pods. Mirrors are tried
before the registry itself, and all matching credentials in turn. Small documents stay in memory until everything is
downloaded and checked, so that a pull that fails leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Generic, Self

import attrs

from wasmlet.artifacts import manifests, wasm
from wasmlet.artifacts.collection import discard
from wasmlet.artifacts.credentials import Credential, Keychain
from wasmlet.artifacts.descriptors import Descriptor
from wasmlet.artifacts.errors import Absent, ArtifactError, BadContent, Denied, StoreError, Unavailable, errors_name
from wasmlet.artifacts.files import Part
from wasmlet.artifacts.hosts import Endpoint, RegistryConfig, endpoints
from wasmlet.artifacts.http import Http
from wasmlet.artifacts.manifests import Index, Manifest
from wasmlet.artifacts.references import Reference
from wasmlet.artifacts.session import MAX_MANIFEST, Blobs, Document, Session, SessionServices
from wasmlet.artifacts.store import Image, Kind, Lease, Store, Tree, close_lease
from wasmlet.artifacts.tokens import Tokens
from wasmlet.artifacts.trees import TreeMaker, has_other_files, open_file
from wasmlet.clock import Clock
from wasmlet.concurrency import in_thread, opened_in_thread

_MAX_NESTING = 3
_CHUNK = 1024 * 1024

Watch = Callable[[int, int], None]
"""Called with how many bytes of the module's blob have arrived, and how many it has in all."""


@attrs.frozen
class PullLimits:
    """The limits of a pull.

    Attributes:
        module_bytes: the largest module.
        tree_bytes: the largest container image, or image that a pod mounts. Holds for its packed size, and for its
            unpacked size.
        seconds: how long a pull may take in all.
        parallel: how many pulls may download at a time.
    """

    module_bytes: int = 256 * 1024 * 1024
    tree_bytes: int = 4 * 1024 * 1024 * 1024
    seconds: float = 1800.0
    parallel: int = 5


@attrs.frozen
class Pulled(Generic[Kind]):
    """An image that was pulled. It is in use, and is not removed, until its lease is closed.

    Attributes:
        credential: the credential that it was pulled with; None without any.
        waited: how many seconds this pull waited for other pulls.
    """

    lease: Lease[Kind]
    credential: Credential | None
    waited: float


@attrs.frozen
class Resolved:
    """A manifest that was found, and the session that found it, which also has its blobs.

    Attributes:
        trusted: an annotation or an index marks the image as WebAssembly.
    """

    session: Blobs
    document: Document
    manifest: Manifest
    trusted: bool


class Puller:
    """Pulls into a store; an async context manager.

    Args:
        store: where images go; `Store.prepare` was called.
    """

    def __init__(
        self,
        store: Store,
        config: RegistryConfig,
        clock: Clock,
        limits: PullLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._limits = limits or PullLimits()
        self._http = Http(config, clock)
        self._session_services = SessionServices(self._http, Tokens(self._http, clock), clock, rng or random.Random())
        self._slots = asyncio.Semaphore(self._limits.parallel)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._http.__aexit__(*raised)

    async def pull(self, reference: Reference, keychain: Keychain, watch: Watch | None = None) -> Pulled[Image]:
        """Pull an image's module, as the registry has it now.

        Raises:
            ArtifactError: it cannot be pulled; the message names the reference and the cause.
        """
        return await self._pull(
            reference, keychain, lambda found: self.ensure_image(reference, found, watch or _no_progress)
        )

    async def pull_tree(self, reference: Reference, keychain: Keychain) -> Pulled[Tree]:
        """Pull an image's files, as a directory. This works for every artifact and container image, on any platform."""
        return await self._pull(reference, keychain, lambda found: self.ensure_tree(reference, found), files=True)

    async def _pull(
        self,
        reference: Reference,
        keychain: Keychain,
        have: Callable[[Resolved], Awaitable[Lease[Kind]]],
        *,
        files: bool = False,
    ) -> Pulled[Kind]:
        began = self._clock.monotonic()
        with errors_name(reference):
            async with self._slots:
                waited = self._clock.monotonic() - began
                try:
                    async with asyncio.timeout(self._limits.seconds):
                        found = await self.resolve(reference, keychain, files)
                        lease = await have(found)
                except TimeoutError:
                    raise Unavailable(f"took longer than the {self._limits.seconds:g} s allowed") from None
                except RecursionError:
                    raise BadContent("the manifest is nested too deeply") from None
        return Pulled(lease, found.session.credential, waited)

    async def resolve(self, reference: Reference, keychain: Keychain, files: bool) -> Resolved:
        """Get the manifest, from the first endpoint and credential with which that works; raises what `pull` raises."""
        failed: list[str] = []
        for endpoint in endpoints(self._config, reference):
            try:
                return await self._resolve_at(endpoint, reference, keychain, files)
            except ArtifactError as error:
                if not endpoint.mirror:  # the registry is the last; what a mirror said may be the cause
                    error.args = ("; ".join((str(error), *failed)),)
                    raise
                failed.append(f"its mirror {endpoint.name}{endpoint.path}: {error}")
        raise AssertionError("unreachable: the registry itself is the last, and returns or raises")

    async def _resolve_at(self, endpoint: Endpoint, reference: Reference, keychain: Keychain, files: bool) -> Resolved:
        credentials: Sequence[Credential | None] = [
            *await keychain.credentials(f"{endpoint.name}{endpoint.path}/{reference.repository}")
        ] or [None]
        for last, credential in enumerate(credentials, 1):
            session = Session(self._session_services, endpoint, reference.repository, credential)
            try:
                return await self._manifest(session, reference.wanted, files)
            except (Denied, Absent):
                if last == len(credentials):
                    raise
        raise AssertionError("unreachable: the last credential returns or raises")

    async def _manifest(self, session: Session, wanted: str, files: bool) -> Resolved:
        trusted, index, platform = False, None, None
        for _ in range(_MAX_NESTING):
            document = await session.manifest(wanted)
            found = manifests.read(document)
            trusted = trusted or manifests.is_compat(found.annotations)
            if isinstance(found, Manifest):
                if index is not None and platform is not None and not (trusted or files) and found.module() is None:
                    raise index.none()
                return Resolved(session, document, found, trusted)
            assert isinstance(found, Index)
            index, chosen = found, found.choose(files=files)
            wanted, platform = chosen.digest, chosen.platform
            trusted = trusted or manifests.for_wasm(platform) is not None or manifests.is_compat(chosen.annotations)
        raise BadContent(f"indexes lead to indexes, more than {_MAX_NESTING} deep")

    async def ensure_image(self, reference: Reference, found: Resolved, watch: Watch) -> Lease[Image]:
        """Put the module of a manifest into the store, unless it is there; raises what `pull` raises."""
        digest = found.document.digest
        async with self._store.locked(f"image-{digest.replace(':', '-')}"):
            for _ in range(3):  # again where it was removed before it could be leased
                if (lease := self._store.lease(digest)) is not None:
                    await in_thread(self._store.record, reference, lease.image)
                    return lease
                try:
                    image = await self._image(found, watch)
                    await in_thread(self._store.record, reference, image)
                except BaseException:  # a pull that fails or is cancelled leaves nothing behind
                    digests = [digest, *(one.digest for one in (found.manifest.config, *found.manifest.layers))]
                    await in_thread(discard, self._store, digests)
                    raise
        raise StoreError("the store removes the image as often as it is pulled")

    async def _image(self, found: Resolved, watch: Watch) -> Image:
        """Download what the manifest names."""
        if (module := found.manifest.module()) is not None:
            return await self._artifact(found, module, watch)
        return await self._container_image(found, watch)

    async def _artifact(self, found: Resolved, module: Descriptor, watch: Watch) -> Image:
        self._check_size(module)

        guessed = module.media_type not in manifests.MODULES

        async def fill(part: Part) -> None:
            await found.session.blob(module, part, lambda size: watch(size, module.size))
            if not await in_thread(_is_module, part):
                raise found.manifest.no_module() if guessed else _no_module()

        await self._store.add(module.digest, fill)
        await self._keep(found.document.digest, found.document.data)
        return Image(found.document.digest, module.digest, module.size, (found.document.digest, module.digest))

    async def _container_image(self, found: Resolved, watch: Watch) -> Image:
        digest = found.document.digest
        config = await self._small(found.session, found.manifest.config)
        start = manifests.start(config, trusted=found.trusted)
        expected = manifests.diff_ids(config, len(found.manifest.layers))
        async with _part(self._store, None) as module:
            files = await self._module_and_files(found, expected, watch, start.path, module)
            if not await in_thread(_is_module, module):
                raise _no_module()
            size, name = module.size, module.found
            await self._keep(found.manifest.config.digest, config)
            await self._keep(digest, found.document.data)
            await in_thread(module.keep, self._store.blob(name))
        blobs = (digest, found.manifest.config.digest, name)
        how = (start.command, start.arguments, start.environment, start.folder)
        return Image(digest, name, size, blobs, *how, files)

    async def _module_and_files(
        self, found: Resolved, expected: Sequence[str], watch: Watch, path: str, module: Part
    ) -> bool:
        """Copy the module out of a container image. If the image has other files, put them into the store.

        Returns whether it has other files.
        """
        digest = found.document.digest
        async with self._tree_locked(digest):
            lease = await opened_in_thread(lambda: self._store.lease_tree(digest), close_lease)
            if lease is not None:  # it is unpacked already
                with lease:
                    return await in_thread(self._take, lease.path, path, module)
            async with self._unpacked(found, expected, watch) as making:
                others = await in_thread(self._take, making.files, path, module)
                if others:
                    await in_thread(making.keep, self._store.tree(digest), _record(found, making))
                return others

    def _take(self, tree: Path, path: str, module: Part) -> bool:
        """Copy the module out of an unpacked image. Returns whether the image has other files, too."""
        root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            descriptor = open_file(root, path)
        finally:
            os.close(root)
        if descriptor is None:
            raise BadContent(f"the image's entry point {path[:200]!r} is no file in its layers")
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size > self._limits.module_bytes:
                raise BadContent(f"the module has more than the {self._limits.module_bytes} bytes allowed")
            while chunk := file.read(_CHUNK):
                module.put(chunk)
        return has_other_files(tree, path)

    async def ensure_tree(self, reference: Reference, found: Resolved) -> Lease[Tree]:
        """Put the files of an image into the store, unless they are there; raises what `pull` raises."""
        digest = found.document.digest
        async with self._tree_locked(digest):
            for _ in range(3):  # again where it was removed before it could be leased
                lease = await opened_in_thread(lambda: self._store.lease_tree(digest), close_lease)
                if lease is None:
                    async with self._unpacked(found, await self._diff_ids(found), _no_progress) as making:
                        await in_thread(making.keep, self._store.tree(digest), _record(found, making))
                    continue
                try:
                    await in_thread(self._store.refer, reference, lease.image)
                except BaseException:
                    lease.close()
                    raise
                return lease
        raise StoreError("the store removes the image as often as it is pulled")

    def _tree_locked(self, digest: str) -> AbstractAsyncContextManager[None]:
        """Hold the lock for unpacking this image. Whoever needs the image's own lock, too, takes that one first."""
        return self._store.locked(f"tree-{digest.replace(':', '-')}")

    @asynccontextmanager
    async def _unpacked(
        self, found: Resolved, diff_ids: Sequence[str | None], watch: Watch
    ) -> AsyncIterator[TreeMaker]:
        """Download and unpack the layers. The result is removed at the end of the context unless it was kept."""
        manifest, limit = found.manifest, self._limits.tree_bytes
        if sum(layer.size for layer in manifest.layers) > limit:
            raise BadContent(f"the image has more than the {limit} bytes that the files of an image may have")
        making = await opened_in_thread(lambda: TreeMaker(self._store.ingest, limit), lambda made: made.__exit__())
        try:
            for layer, expected in zip(manifest.layers, diff_ids, strict=True):
                if layer.media_type == manifests.EMPTY and not layer.annotations.get(manifests.TITLE):
                    continue
                async with self._layer(found.session, layer, watch) as part:
                    await in_thread(self._add_layer, making, manifest, layer, part, expected)
            yield making
        finally:
            await in_thread(making.__exit__)

    async def _diff_ids(self, found: Resolved) -> Sequence[str | None]:
        """The digest of each uncompressed layer; None for a layer without a known one."""
        layers = len(found.manifest.layers)
        if not found.manifest.is_container:
            return [None] * layers
        return manifests.diff_ids(await self._small(found.session, found.manifest.config), layers)

    def _add_layer(
        self, making: TreeMaker, manifest: Manifest, layer: Descriptor, part: Part, expected: str | None
    ) -> None:
        os.lseek(part.descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(part.descriptor), "rb") as file:
            packed = manifest.is_container or layer.annotations.get(manifests.UNPACK) == "true"
            if manifests.is_tar(layer) and packed:
                making.unpack(file, expected)
            else:
                title = layer.annotations.get(manifests.TITLE) or layer.digest.replace(":", "-")
                making.add(title, file, layer.size)

    @asynccontextmanager
    async def _layer(self, session: Blobs, layer: Descriptor, watch: Watch) -> AsyncIterator[Part]:
        """Download a layer into a temporary file, which is removed at the end of the context."""
        async with _part(self._store, layer.digest) as part:
            await session.blob(layer, part, lambda size: watch(size, layer.size))
            part.check()
            yield part

    async def _small(self, session: Blobs, wanted: Descriptor) -> bytes:
        """Download a configuration into memory; it is small."""
        if wanted.size > MAX_MANIFEST:
            raise BadContent(f"the configuration has {wanted.size} bytes, more than the {MAX_MANIFEST} allowed")
        async with _part(self._store, wanted.digest) as part:
            await session.blob(wanted, part, lambda size: None)
            part.check()
            return await in_thread(os.pread, part.descriptor, wanted.size, 0)

    async def _keep(self, digest: str, data: bytes) -> None:
        """Put a small document into the store, now that everything else is there."""
        await self._store.add(digest, lambda part: part.write(data))

    def _check_size(self, blob: Descriptor) -> None:
        if blob.size > self._limits.module_bytes:
            raise BadContent(
                f"blob {blob.digest} has {blob.size} bytes, more than the {self._limits.module_bytes} allowed"
            )


def _is_module(part: Part) -> bool:
    """Whether the file begins with the first bytes of a WebAssembly binary."""
    part.check()
    return os.pread(part.descriptor, len(wasm.MAGIC), 0) == wasm.MAGIC


def _no_module() -> BadContent:
    return BadContent("the module is not WebAssembly: the bytes 00 61 73 6d at its beginning are missing")


def _record(found: Resolved, making: TreeMaker) -> dict[str, object]:
    """The record of an unpacked image, which `store.read_tree` reads."""
    return {"digest": found.document.digest, "size": making.size}


@asynccontextmanager
async def _part(store: Store, digest: str | None) -> AsyncIterator[Part]:
    with store.part(digest) as part:
        yield part


def _no_progress(there: int, whole: int) -> None:
    pass
