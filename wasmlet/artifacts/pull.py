"""Pull: from a reference to a module in the store, or to a directory of what an image has.

The manifest is always asked for with the asker's own credentials, which is what shows that they may have the image;
what it names is downloaded once per digest, whoever asks. Mirrors are tried before the registry, and each credential
that matches in turn. Small documents stay in memory until everything is there and checked, so that a pull that fails
leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Generic, Self

import attrs

from wasmlet.artifacts import layers, manifests, wasm
from wasmlet.artifacts.collection import discard
from wasmlet.artifacts.credentials import Credential, Keychain
from wasmlet.artifacts.descriptors import Descriptor
from wasmlet.artifacts.errors import Absent, ArtifactError, BadContent, Denied, StoreError, Unavailable, naming
from wasmlet.artifacts.files import Part
from wasmlet.artifacts.hosts import Endpoint, RegistryConfig, endpoints
from wasmlet.artifacts.http import Http
from wasmlet.artifacts.manifests import Index, Manifest
from wasmlet.artifacts.references import Reference
from wasmlet.artifacts.session import MAX_MANIFEST, Dialer, Document, Session
from wasmlet.artifacts.store import Image, Kind, Lease, Store, Tree, close_lease
from wasmlet.artifacts.threads import in_thread, opened_in_thread
from wasmlet.artifacts.tokens import Tokens
from wasmlet.artifacts.trees import TreeMaker
from wasmlet.clock import Clock

_MAX_NESTING = 3
_HEAD = 8

Watch = Callable[[int, int], None]
"""Is told how many bytes of the module's blob are there, and how many there will be."""


@attrs.frozen
class PullLimits:
    """What a pull may take.

    Attributes:
        module_bytes: the largest module, and the largest layer.
        unpacked_bytes: of a container image's layer, uncompressed.
        tree_bytes: the most that an image which is mounted may have, unpacked; and the largest of its layers.
        seconds: for the whole of it.
        parallel: how many pulls download at a time.
    """

    module_bytes: int = 256 * 1024 * 1024
    unpacked_bytes: int = 1024 * 1024 * 1024
    tree_bytes: int = 4 * 1024 * 1024 * 1024
    seconds: float = 1800.0
    parallel: int = 5


@attrs.frozen
class Pulled(Generic[Kind]):
    """An image that was pulled, in use until the lease is closed.

    Attributes:
        credential: what it was pulled with; None without any.
        waited: seconds that it stood in line behind others.
    """

    lease: Lease[Kind]
    credential: Credential | None
    waited: float


@attrs.frozen
class Resolved:
    """A manifest, and who could have it from where."""

    session: Session
    document: Document
    manifest: Manifest


class Puller:
    """Pulls into a store; an async context manager.

    Args:
        store: prepared.
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
        self._dialer = Dialer(self._http, Tokens(self._http, clock), clock, rng or random.Random())
        self._slots = asyncio.Semaphore(self._limits.parallel)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def pull(self, reference: Reference, keychain: Keychain, watch: Watch | None = None) -> Pulled[Image]:
        """Have an image's module, as the registry has it now.

        Raises:
            ArtifactError: it cannot be had; the message names the reference and the cause.
        """
        return await self._pull(reference, keychain, lambda found: self._have(reference, found, watch or _nobody))

    async def pull_tree(self, reference: Reference, keychain: Keychain) -> Pulled[Tree]:
        """The same for an image's files, as a directory. Artifacts and container images of any kind will do."""
        return await self._pull(reference, keychain, lambda found: self._have_tree(reference, found), files=True)

    async def _pull(
        self,
        reference: Reference,
        keychain: Keychain,
        have: Callable[[Resolved], Awaitable[Lease[Kind]]],
        *,
        files: bool = False,
    ) -> Pulled[Kind]:
        began = self._clock.monotonic()
        with naming(reference):
            async with self._slots:
                waited = self._clock.monotonic() - began
                try:
                    async with asyncio.timeout(self._limits.seconds):
                        found = await self._resolve(reference, keychain, files)
                        lease = await have(found)
                except TimeoutError:
                    raise Unavailable(f"took longer than the {self._limits.seconds:g} s allowed") from None
                except RecursionError:
                    raise BadContent("the manifest is nested too deeply") from None
        return Pulled(lease, found.session.credential, waited)

    async def _resolve(self, reference: Reference, keychain: Keychain, files: bool) -> Resolved:
        """The manifest, from the first endpoint and with the first credential that has it."""
        failed: list[str] = []
        for endpoint in endpoints(self._config, reference):
            try:
                return await self._resolve_at(endpoint, reference, keychain, files)
            except ArtifactError as error:
                if not endpoint.mirror:  # which is the last; what the mirrors said before may be what one has to know
                    error.args = ("; ".join((str(error), *failed)),)
                    raise
                failed.append(f"its mirror {endpoint.name}{endpoint.path}: {error}")
        raise AssertionError("unreachable: the registry itself is the last, and returns or raises")

    async def _resolve_at(self, endpoint: Endpoint, reference: Reference, keychain: Keychain, files: bool) -> Resolved:
        credentials: Sequence[Credential | None] = [
            *await keychain.credentials(f"{endpoint.name}{endpoint.path}/{reference.repository}")
        ] or [None]
        for last, credential in enumerate(credentials, 1):
            session = Session(self._dialer, endpoint, reference.repository, credential)
            try:
                return await self._manifest(session, reference.wanted, files)
            except (Denied, Absent):
                if last == len(credentials):
                    raise
        raise AssertionError("unreachable: the last credential returns or raises")

    async def _manifest(self, session: Session, wanted: str, files: bool) -> Resolved:
        for _ in range(_MAX_NESTING):
            document = await session.manifest(wanted)
            found = manifests.read(document)
            if isinstance(found, Manifest):
                return Resolved(session, document, found)
            assert isinstance(found, Index)
            wanted = found.choose(files=files).digest
        raise BadContent(f"indexes lead to indexes, more than {_MAX_NESTING} deep")

    async def _have(self, reference: Reference, found: Resolved, watch: Watch) -> Lease[Image]:
        digest = found.document.digest
        async with self._store.locked(f"image-{digest.replace(':', '-')}"):
            for _ in range(3):  # again where it was collected before it could be held
                if (lease := self._store.lease(digest)) is not None:
                    await in_thread(self._store.record, reference, lease.image)
                    return lease
                try:
                    image = await self._image(found, watch)
                    await in_thread(self._store.record, reference, image)
                except BaseException:  # a pull that fails leaves nothing behind, though it be cancelled
                    digests = [digest, *(one.digest for one in (found.manifest.config, *found.manifest.layers))]
                    await in_thread(discard, self._store, digests)
                    raise
        raise StoreError("the store removes the image as often as it is pulled")

    async def _image(self, found: Resolved, watch: Watch) -> Image:
        """Bring what the manifest names."""
        if (module := found.manifest.module()) is not None:
            return await self._artifact(found, module, watch)
        return await self._container_image(found, watch)

    async def _artifact(self, found: Resolved, module: Descriptor, watch: Watch) -> Image:
        self._check_size(module)

        async def fill(part: Part) -> None:
            await found.session.blob(module, part, lambda size: watch(size, module.size))
            await in_thread(_check_module, part)

        await self._store.add(module.digest, fill)
        await self._keep(found.document.digest, found.document.data)
        return Image(found.document.digest, module.digest, module.size, (found.document.digest, module.digest))

    async def _container_image(self, found: Resolved, watch: Watch) -> Image:
        config = await self._small(found.session, found.manifest.config)
        start = manifests.start(config, found.manifest.annotations)
        digests = manifests.diff_ids(config, len(found.manifest.layers))
        for layer in found.manifest.layers:
            self._check_size(layer)
        for layer, unpacked in reversed([*zip(found.manifest.layers, digests, strict=True)]):
            async with self._layer(found.session, layer, watch) as tar, _part(self._store, None) as module:
                if await in_thread(self._extract, tar, layer, unpacked, start.path, module):
                    await in_thread(_check_module, module)
                    size, digest = module.size, module.found
                    await self._keep(found.manifest.config.digest, config)
                    await self._keep(found.document.digest, found.document.data)
                    await in_thread(module.keep, self._store.blob(digest))
                    blobs = (found.document.digest, found.manifest.config.digest, digest)
                    how = (start.command, start.arguments, start.environment)
                    return Image(found.document.digest, digest, size, blobs, *how)
        raise BadContent(f"the image's entry point {start.path!r} is in none of its layers")

    def _extract(self, tar: Part, layer: Descriptor, unpacked: str, path: str, module: Part) -> bool:
        def put(data: bytes) -> None:
            if not data:
                module.empty()
            if module.size + len(data) > self._limits.module_bytes:
                raise BadContent(f"the module has more than the {self._limits.module_bytes} bytes allowed")
            module.put(data)

        os.lseek(tar.descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(tar.descriptor), "rb") as file:
            kind = manifests.compression(layer) or ""
            return layers.extract(file, kind, path, self._limits.unpacked_bytes, put, unpacked)

    async def _have_tree(self, reference: Reference, found: Resolved) -> Lease[Tree]:
        digest = found.document.digest
        async with self._store.locked(f"tree-{digest.replace(':', '-')}"):
            for _ in range(3):  # again where it was collected before it could be held
                lease = await opened_in_thread(lambda: self._store.lease_tree(digest), close_lease)
                if lease is None:
                    await self._tree(found)
                    continue
                try:
                    await in_thread(self._store.refer, reference, lease.image)
                except BaseException:
                    lease.close()
                    raise
                return lease
        raise StoreError("the store removes the image as often as it is pulled")

    async def _tree(self, found: Resolved) -> None:
        """Unpack what the manifest names."""
        manifest, digest, limit = found.manifest, found.document.digest, self._limits.tree_bytes
        unpacked: list[str | None] = [None] * len(manifest.layers)
        if manifest.is_container:
            config = await self._small(found.session, manifest.config)
            unpacked[:] = manifests.diff_ids(config, len(manifest.layers))
        if sum(layer.size for layer in manifest.layers) > limit:
            raise BadContent(f"the image has more than the {limit} bytes that a volume of an image may have")
        making = await opened_in_thread(lambda: TreeMaker(self._store.ingest, limit), lambda made: made.__exit__())
        try:
            for layer, expected in zip(manifest.layers, unpacked, strict=True):
                if layer.media_type == manifests.EMPTY and not layer.annotations.get(manifests.TITLE):
                    continue
                async with self._layer(found.session, layer, _nobody) as part:
                    await in_thread(self._add_layer, making, manifest, layer, part, expected)
            record: dict[str, object] = {"digest": digest, "size": making.size}
            await in_thread(making.keep, self._store.tree(digest), record)
        finally:
            await in_thread(making.__exit__)

    def _add_layer(
        self, making: TreeMaker, manifest: Manifest, layer: Descriptor, part: Part, expected: str | None
    ) -> None:
        os.lseek(part.descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(part.descriptor), "rb") as file:
            kind = manifests.compression(layer)
            if kind is not None and (manifest.is_container or layer.annotations.get(manifests.UNPACK) == "true"):
                making.unpack(file, kind, expected)
            else:
                title = layer.annotations.get(manifests.TITLE) or layer.digest.replace(":", "-")
                making.add(title, file, layer.size)

    @asynccontextmanager
    async def _layer(self, session: Session, layer: Descriptor, watch: Watch) -> AsyncIterator[Part]:
        """A layer, as long as something is taken out of it."""
        async with _part(self._store, layer.digest) as part:
            await session.blob(layer, part, lambda size: watch(size, layer.size))
            part.check()
            yield part

    async def _small(self, session: Session, wanted: Descriptor) -> bytes:
        """A configuration, which is small."""
        if wanted.size > MAX_MANIFEST:
            raise BadContent(f"the configuration has {wanted.size} bytes, more than the {MAX_MANIFEST} allowed")
        async with _part(self._store, wanted.digest) as part:
            await session.blob(wanted, part, lambda size: None)
            part.check()
            return await in_thread(os.pread, part.descriptor, wanted.size, 0)

    async def _keep(self, digest: str, data: bytes) -> None:
        """Keep a document, now that all else is there."""
        await self._store.add(digest, lambda part: part.write(data))

    def _check_size(self, blob: Descriptor) -> None:
        if blob.size > self._limits.module_bytes:
            raise BadContent(
                f"blob {blob.digest} has {blob.size} bytes, more than the {self._limits.module_bytes} allowed"
            )


def _check_module(part: Part) -> None:
    """See that it begins as WebAssembly does."""
    part.check()
    head = os.pread(part.descriptor, _HEAD, 0)
    if head[:4] != wasm.MAGIC:
        raise BadContent("the module is not WebAssembly: the bytes 00 61 73 6d at its beginning are missing")


@asynccontextmanager
async def _part(store: Store, digest: str | None) -> AsyncIterator[Part]:
    with store.part(digest) as part:
        yield part


def _nobody(there: int, whole: int) -> None:
    pass
