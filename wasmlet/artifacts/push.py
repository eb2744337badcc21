"""Push: uploads a module from a file to a registry, as an artifact that others can pull.

Content that the registry already has is not sent again. The layer has the file's name as its title, because tools like
oras write the layer to a file of that name. Nothing in the artifact depends on when or where it was pushed, so the same
file under the same name always has the same digest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Literal

import attrs
import httpx
import orjson

from wasmlet.artifacts import manifests, wasm
from wasmlet.artifacts.credentials import Credential, Keychain
from wasmlet.artifacts.descriptors import Descriptor, digest_of, hasher
from wasmlet.artifacts.errors import Absent, ArtifactError, BadContent, Denied, errors_name
from wasmlet.artifacts.hosts import RegistryConfig, own_endpoint
from wasmlet.artifacts.http import Http
from wasmlet.artifacts.references import Reference
from wasmlet.artifacts.session import Session, SessionServices
from wasmlet.artifacts.tokens import Tokens
from wasmlet.clock import Clock

Format = Literal["v0", "wasm-to-oci"]
_CHUNK = 256 * 1024

Watch = Callable[[int, int], None]
"""Called with how many bytes were sent, and how many there are in all."""


@attrs.frozen
class Module:
    """A WebAssembly file to push, with its digest and what `wasm` has read of it."""

    path: Path
    digest: str
    binary: wasm.Binary

    @property
    def size(self) -> int:
        """Size of the module in bytes."""
        return self.binary.size


@attrs.frozen
class Artifact:
    """The two documents that are pushed with a module."""

    manifest: bytes
    config: bytes

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return digest_of(self.manifest)


def load(path: Path) -> Module:
    """Read a file to push; blocks.

    Raises:
        ArtifactError: the file cannot be read, or is not WebAssembly.
    """
    with errors_name(path):
        if not path.is_file():
            raise ArtifactError("expected a file" if path.exists() else "there is no such file")
        binary = wasm.read_file(path)
        digest = hasher("sha256:")
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return Module(path, f"sha256:{digest.hexdigest()}", binary)


def artifact(module: Module, annotations: Mapping[str, str], kind: Format) -> Artifact:
    """Make the manifest and the configuration, in the format of the CNCF (`v0`) or of wasm-to-oci."""
    title = {manifests.TITLE: module.path.name}
    if kind == "v0":
        config_type, layer_type, config = manifests.WASM_CONFIG, manifests.WASM, orjson.dumps(_config(module))
    else:
        config_type, layer_type, config = manifests.WASM_TO_OCI_CONFIG, manifests.WASM_TO_OCI, b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifests.OCI_MANIFEST,
        "config": Descriptor(config_type, digest_of(config), len(config)).to_json(),
        "layers": [Descriptor(layer_type, module.digest, module.size, title).to_json()],
    } | ({"annotations": dict(sorted(annotations.items()))} if annotations else {})
    return Artifact(orjson.dumps(manifest), config)


def _config(module: Module) -> dict[str, object]:
    """The configuration `application/vnd.wasm.config.v0+json`, as the CNCF's TAG Runtime specifies it."""
    binary = module.binary
    config: dict[str, object] = {
        "architecture": "wasm",
        "os": "wasip2" if binary.component else "wasip1",
        "layerDigests": [module.digest],
    }
    if binary.component:
        config["component"] = {
            "exports": [extern.name for extern in binary.exports],
            "imports": [extern.name for extern in binary.imports],
            "target": None,
        }
    return config


@attrs.frozen(kw_only=True)
class Pusher:
    """Pushes modules to registries.

    Attributes:
        keychain: the credentials; they are tried in turn until one may push.
        watch: called with the progress of the module's upload.
        rng: random numbers for the pauses between tries.
    """

    keychain: Keychain
    config: RegistryConfig
    clock: Clock
    watch: Watch = lambda sent, size: None
    rng: random.Random = attrs.field(factory=random.Random)

    async def push(self, module: Module, what: Artifact, reference: Reference) -> str:
        """Push a module with its documents, and return the manifest's digest.

        Raises:
            ArtifactError: the registry does not take it; the message names the reference and the cause.
        """
        with errors_name(reference):
            if reference.tag is None or reference.digest not in (None, what.digest):
                raise ArtifactError(
                    f"expected a tag to push to, REPOSITORY:TAG; the digest follows and is {what.digest}"
                )
            endpoint = own_endpoint(self.config, reference.registry)
            async with Http(self.config, self.clock) as http:
                services = SessionServices(http, Tokens(http, self.clock), self.clock, self.rng)
                credentials: list[Credential | None] = [*await self.keychain.credentials(reference.name)] or [None]
                for last, credential in enumerate(credentials, 1):
                    session = Session(services, endpoint, reference.repository, credential, "pull,push")
                    try:
                        await _push(session, module, what, reference.tag, self.watch)
                        break
                    except Denied:
                        if last == len(credentials):
                            raise
        return what.digest


async def _push(session: Session, module: Module, what: Artifact, tag: str, watch: Watch) -> None:
    config = what.config

    async def content() -> AsyncIterator[bytes]:
        sent = 0
        with module.path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                sent += len(chunk)
                if sent > module.size:
                    break
                yield chunk
                watch(sent, module.size)
        if sent != module.size:
            raise BadContent(f"{module.path} changed while it was pushed")

    await _blob(session, digest_of(config), len(config), lambda: _one(config))
    await _blob(session, module.digest, module.size, content)
    watch(module.size, module.size)

    async def manifest() -> None:
        headers = {"Content-Type": manifests.OCI_MANIFEST}
        async with session.request(
            "PUT", f"manifests/{tag}", headers=headers, also=(201, 202), raw=what.manifest
        ) as done:
            stated = done.headers.get("Docker-Content-Digest")
        if stated is not None and stated != what.digest:
            raise BadContent(
                f"the registry took the manifest for another: expected {what.digest}, found {stated[:100]}"
            )

    await session.with_retries(manifest)


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _blob(session: Session, digest: str, size: int, content: Callable[[], AsyncIterator[bytes]]) -> None:
    """Upload a blob that the registry does not have."""

    async def once() -> None:
        try:
            async with session.request("HEAD", f"blobs/{digest}"):
                return
        except Absent:
            pass
        async with session.request("POST", "blobs/uploads/", headers={"Content-Length": "0"}, also=(202,)) as opened:
            try:
                place = opened.url.join(opened.headers["Location"])
            except (KeyError, httpx.InvalidURL, ValueError):
                raise BadContent("the registry does not say where to upload to") from None
        if place.scheme != opened.url.scheme and place.scheme != "https":
            raise BadContent(f"the registry wants the upload without TLS, at {place.host}")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        place = place.copy_merge_params({"digest": digest})
        async with session.request("PUT", place, headers=headers, also=(201, 202, 204), content=content):
            pass

    await session.with_retries(once)
