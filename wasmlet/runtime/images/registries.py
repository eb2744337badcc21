"""Images from registries: which are on the node and may be run, pulling the others, and removing unused ones.

`wasmlet.artifacts` has the client and the store; this module is how a node uses them. `pods.pulling` sends the events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import attrs
import structlog

from wasmlet.artifacts.access import Access, Rule
from wasmlet.artifacts.collection import Collected, Limits, collect
from wasmlet.artifacts.credentials import Keychain, Keychains, Keyring
from wasmlet.artifacts.errors import ArtifactError, Denied
from wasmlet.artifacts.helpers import DockerConfig, docker_config
from wasmlet.artifacts.hosts import RegistryConfig
from wasmlet.artifacts.listing import listed
from wasmlet.artifacts.pull import Pulled, Puller, PullLimits
from wasmlet.artifacts.references import Reference, parse
from wasmlet.artifacts.store import Image, Lease, Store, Tree, close_lease
from wasmlet.clock import Clock
from wasmlet.concurrency import in_thread, opened_in_thread
from wasmlet.errors import ConfigError, NotYet
from wasmlet.model.inputs import HandedImage
from wasmlet.options import option
from wasmlet.provider import NodeImage
from wasmlet.runtime.images.handed import Handed
from wasmlet.runtime.images.images import ImageError, Module, read

log = structlog.get_logger(__name__)


@attrs.frozen
class ImageConfig(RegistryConfig):
    """The settings of everything that has to do with images from registries."""

    registry_auth_file: Path | None = option(None, help="Docker's config.json with the node's own credentials.")
    image_dir: Path | None = option(None, help="Where pulled images are kept; nodes may share it.")
    max_parallel_image_pulls: int = option(5, least=1, help="The most images that are pulled at a time.")
    image_pull_timeout: float = option(1800.0, least=0.001, help="How long pulling one image may take.")
    image_gc_high_threshold: float = option(
        85.0,
        least=0,
        most=100,
        unit="PERCENT",
        help="Remove unused images when the disk is fuller than this.",
    )
    image_gc_low_threshold: float = option(
        80.0, least=0, most=100, unit="PERCENT", help="Stop removing images when the disk is less full than this."
    )
    minimum_image_ttl: float = option(120.0, least=0, help="How long an image stays at least after its last use.")
    max_image_volume_bytes: int = option(
        2**32,
        least=1,
        help="The most bytes that a container image, or an image which a pod mounts, may have, unpacked.",
    )
    maximum_image_ttl: float = option(0.0, least=0, help="How long an unused image stays at most; 0 means for ever.")
    image_pull_credentials_verification_policy: str = option(
        "NeverVerifyPreloadedImages",
        help="Whether a pod may run what another's credential pulled: NeverVerify, NeverVerifyPreloadedImages, "
        "NeverVerifyAllowlistedImages or AlwaysVerify.",
    )
    preloaded_images_verification_allowlist: tuple[str, ...] = option(
        (), help="Image (without tag), or REGISTRY/*, that NeverVerifyAllowlistedImages lets every pod run."
    )

    def limits(self) -> Limits:
        """Those of the collection."""
        if self.image_gc_low_threshold > self.image_gc_high_threshold:
            raise ConfigError(
                f"image gc low threshold: expected at most the high one, {self.image_gc_high_threshold:g}, found "
                f"{self.image_gc_low_threshold:g}; set it with --image-gc-low-threshold"
            )
        ages = (self.minimum_image_ttl, self.maximum_image_ttl)
        return Limits(self.image_gc_high_threshold, self.image_gc_low_threshold, *ages)


T = TypeVar("T")
Kind = TypeVar("Kind", Image, Tree)


@attrs.frozen
class PullResult(Generic[T]):
    """An image that was pulled just now: what was asked for of it, its size in bytes, and seconds that it waited."""

    image: T
    size: int
    waited: float


class Registries:
    """The images of a node, an async context manager. What it returns stays in the store until `keep` leaves it out.

    Args:
        directory: of the store, unless the configuration names one.
        max_bytes: of the largest module.
    """

    def __init__(self, directory: Path, config: ImageConfig, max_bytes: int, clock: Clock) -> None:
        rule = Rule(config.image_pull_credentials_verification_policy, config.preloaded_images_verification_allowlist)
        self._limits = config.limits()
        self.store = Store(config.image_dir or directory, clock)
        self._access = Access(self.store, rule)
        self._auth_file = config.registry_auth_file
        self._node: Keychain = DockerConfig()
        self._max_bytes = max_bytes
        self._clock = clock
        limits = PullLimits(
            module_bytes=max_bytes,
            tree_bytes=config.max_image_volume_bytes,
            seconds=config.image_pull_timeout,
            parallel=config.max_parallel_image_pulls,
        )
        self._puller = Puller(self.store, config, clock, limits)
        self.handed = Handed(self.store, self._puller, max(max_bytes, config.max_image_volume_bytes))
        self._leases: dict[str, Lease[Image]] = {}
        self._trees: dict[str, Lease[Tree]] = {}

    async def __aenter__(self) -> Self:
        await in_thread(self.store.prepare)
        if self._auth_file is not None:
            self._node = await in_thread(docker_config, self._auth_file)
        await self._puller.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._puller.__aexit__(kind, error, trace)
        self.handed.close()
        _close_all([*self._leases.values(), *self._trees.values()])
        self._leases.clear()
        self._trees.clear()

    async def present(self, reference: Reference, keyring: Keyring) -> Module | None:
        """The image, if it is on this node; None if it is not, or not complete.

        Raises:
            NotYours: it is here, but the pod has to ask the registry whether it may use it (`artifacts.access`).
            ImageError: it is nothing that could be run.
        """
        lease = await opened_in_thread(lambda: self.store.find(reference), close_lease)
        return await self._module(reference, self._allowed(reference, keyring, lease)) if lease is not None else None

    async def present_tree(self, reference: Reference, keyring: Keyring) -> Directory | None:
        """The same for an image that a pod mounts."""
        lease = await opened_in_thread(lambda: self.store.find_tree(reference), close_lease)
        return self._directory(self._allowed(reference, keyring, lease)) if lease is not None else None

    async def brought(self, image: str, digest: str) -> Module:
        """The image with this digest, which was handed to the node (`handed`); the pod's manifest calls it `image`.

        Raises:
            ImageError: it is not here any more, or is nothing that could be run.
        """
        lease = await opened_in_thread(lambda: self.store.lease(digest), close_lease)
        if lease is None:
            raise _not_brought(image, digest)
        return await self._module(parse(image), lease)

    async def brought_tree(self, image: str, digest: str) -> Directory:
        """The same for an image that a pod mounts."""
        lease = await opened_in_thread(lambda: self.store.lease_tree(digest), close_lease)
        if lease is None:
            raise _not_brought(image, digest)
        return self._directory(lease)

    async def check_brought(self, images: Mapping[str, HandedImage]) -> None:
        """See that the images are here which were brought for a pod.

        Raises:
            NotYet: one is not; whoever hands the pod over is to bring it again.
        """
        for name, image in images.items():
            if not await in_thread(self._is_here, image.digest):
                raise NotYet(str(_not_brought(name, image.digest)), "ErrImagePull")

    def _is_here(self, digest: str) -> bool:
        found = self.store.lease(digest) or self.store.lease_tree(digest)
        close_lease(found)
        return found is not None

    async def pull(self, reference: Reference, keyring: Keyring) -> PullResult[Module]:
        """The image as the registry has it now.

        Raises:
            ImageError: it cannot be had.
        """
        pulled = await self._pulled(self._puller.pull(reference, Keychains((keyring, self._node))))
        module = await self._module(reference, pulled.lease)
        return await self._result(reference, pulled, module)

    async def pull_tree(self, reference: Reference, keyring: Keyring) -> PullResult[Directory]:
        """The same for an image that a pod mounts."""
        pulled = await self._pulled(self._puller.pull_tree(reference, Keychains((keyring, self._node))))
        return await self._result(reference, pulled, self._directory(pulled.lease))

    def _allowed(self, reference: Reference, keyring: Keyring, lease: Lease[Kind]) -> Lease[Kind]:
        """See that the pod may have it."""
        secrets = [one.secret for one in keyring.lookup(reference.name) if one.secret is not None]
        if self._access.allowed(reference.name, lease.image.digest, secrets):
            return lease
        lease.close()
        raise NotYours(f"image {str(reference)!r} was pulled with another credential")

    async def _pulled(self, pulling: Awaitable[Pulled[Kind]]) -> Pulled[Kind]:
        try:
            return await pulling
        except ArtifactError as error:
            cure = ""
            if isinstance(error, Denied):
                cure = "; a pod's own credentials are its imagePullSecrets, the node's are of --registry-auth-file"
            raise ImageError(f"{error}{cure}", error.reason, absent=True) from error

    async def _result(self, reference: Reference, pulled: Pulled[Kind], found: T) -> PullResult[T]:
        image = pulled.lease.image
        await self._access.pulled(reference.name, image.digest, pulled.credential)
        return PullResult(found, image.size, pulled.waited)

    def _directory(self, lease: Lease[Tree]) -> Directory:
        """Make the result, and keep the image locked."""
        digest = lease.image.digest
        if (before := self._trees.pop(digest, None)) is not None:
            before.close()
        self._trees[digest] = lease
        return Directory(digest, lease.path)

    async def _module(self, reference: Reference, lease: Lease[Image]) -> Module:
        """Check that the module was not changed, and keep the image locked."""
        image = lease.image
        before = self._leases.pop(image.digest, None)
        if before is not None:
            before.close()
        self._leases[image.digest] = lease
        digest = await in_thread(read, lease.path, self._max_bytes, None)
        if image.module.startswith("sha256:") and image.module != f"sha256:{digest}":
            lease.path.unlink(missing_ok=True)
            raise ImageError(f"image {str(reference)!r} was damaged on the node's disk, and is pulled again")
        name = reference.repository.rpartition("/")[2]
        return Module(
            str(reference),
            digest,
            lease.path,
            command=image.command or (name,),
            arguments=image.arguments,
            environment=image.environment,
            folder=image.folder,
            files=lease.files.path if lease.files is not None else None,
        )

    async def keep(self, used: Collection[str], mounted: Collection[str], brought: Collection[str] = ()) -> None:
        """Keep the images that have these modules or are mounted, whoever else collects, and let all others go.

        Args:
            used: digests of the modules of all containers that are here, as `sha256:...`.
            mounted: digests of the images that pods mount.
            brought: digests of images that were brought for pods, whose containers may not have begun.
        """
        mounted = {*mounted, *brought}
        for digest in list(self._trees):
            if digest not in mounted:
                self._trees.pop(digest).close()
        for digest in set(mounted) - self._trees.keys():
            found = await opened_in_thread(partial(self.store.lease_tree, digest), close_lease)
            if found is not None:
                self._directory(found)
        for digest, lease in list(self._leases.items()):
            if lease.image.module not in used and digest not in brought:
                self._leases.pop(digest).close()
        for digest in set(brought) - self._leases.keys():
            kept = await opened_in_thread(partial(self.store.lease, digest), close_lease)
            if kept is not None and digest not in self._leases:
                self._leases[digest] = kept
            elif kept is not None:
                kept.close()
        missing = set(used) - {lease.image.module for lease in self._leases.values()}
        if missing:
            for lease in await opened_in_thread(lambda: self.store.leases_of(missing), _close_all):
                if lease.image.digest in self._leases:  # by now
                    lease.close()
                else:
                    self._leases[lease.image.digest] = lease

    async def listed(self) -> list[NodeImage]:
        """The images that are here, the largest first."""
        return [NodeImage(one.names, one.size) for one in await in_thread(listed, self.store)]

    async def collect(self) -> Collected:
        """Remove what may go."""
        result = await in_thread(collect, self.store, self._limits, self._clock)
        if result.images or result.compiled:
            log.info("images removed", images=result.images, compiled=result.compiled)
        if result.full:
            log.warning("the images' disk is fuller than it should be, and what is left is in use or young")
        return result


@attrs.frozen
class Directory:
    """An image that a pod mounts: the digest of its manifest, and where its files are."""

    digest: str
    path: Path


class NotYours(ImageError):
    """The image is here, and this pod may not run it without asking the registry."""


def _not_brought(image: str, digest: str) -> ImageError:
    return ImageError(f"image {image!r} ({digest}) was brought by the node loop and is not here any more", absent=True)


def _close_all(leases: Iterable[Lease[Image] | Lease[Tree]]) -> None:
    for lease in leases:
        lease.close()
