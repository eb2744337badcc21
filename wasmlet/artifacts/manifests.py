"""Manifests and indexes: which of what they list is the module.

Every format that is in use is taken, told apart by the layer's media type: artifacts whose one layer is the module (the
CNCF's, wasm-to-oci's, Solo.io's, the Bytecode Alliance's), and container images for wasi/wasm, where the entry point is
a file in a tar layer (`layers`). Whether it is WebAssembly is seen from its first bytes, later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs
import orjson

from wasmlet.artifacts.descriptors import Descriptor, read_descriptor, texts
from wasmlet.artifacts.errors import BadContent
from wasmlet.artifacts.references import is_digest
from wasmlet.artifacts.session import Document

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
WASM = "application/wasm"
WASM_CONFIG = "application/vnd.wasm.config.v0+json"
WASM_TO_OCI = "application/vnd.wasm.content.layer.v1+wasm"
WASM_TO_OCI_CONFIG = "application/vnd.wasm.config.v1+json"

EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
"""The annotation of a layer that says which file it is."""
UNPACK = "io.deis.oras.content.unpack"
"""The annotation of a layer that is a directory, packed; oras sets it."""

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MODULES = (
    WASM,
    WASM_TO_OCI,
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
)
_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_TARS = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
_PLATFORMS = ("wasip1/wasm", "wasi/wasm", "wasip2/wasm", "js/wasm")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_COMPAT = "module.wasm.image/variant"
MAX_LAYERS = 128
MAX_ENTRIES = 1000


@attrs.frozen
class Index:
    """Manifests to choose from."""

    manifests: tuple[Descriptor, ...]

    def choose(self, *, files: bool = False) -> Descriptor:
        """The one for WebAssembly: WASI preview 1 before others, and one without a platform where it is the only one.

        Args:
            files: that one wants its files, not to run it; then one for this machine will do, or the only one.

        Raises:
            BadContent: there is none.
        """
        for platform in (*_PLATFORMS[:3], *((f"linux/{_MACHINES.get(os.uname().machine, '?')}",) if files else ())):
            for descriptor in self.manifests:
                if descriptor.platform == platform:
                    return descriptor
        plain = [one for one in self.manifests if one.platform is None]
        if files and not plain:
            plain = [one for one in self.manifests if one.platform != "unknown/unknown"]  # which attest something
        if len(plain) == 1:
            return plain[0]
        there = ", ".join(dict.fromkeys(one.platform or "none" for one in self.manifests)) or "nothing"
        raise BadContent(f"expected a manifest for wasi/wasm in the index; found {there[:200]}")


@attrs.frozen
class Manifest:
    """What an image is made of."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def is_container(self) -> bool:
        """Whether it is a container image: a configuration of one, and layers that are archives."""
        return self.config.media_type in _CONFIGS and all(one.media_type in _TARS for one in self.layers)

    def module(self) -> Descriptor | None:
        """The layer that is the module; None in a container image.

        Raises:
            BadContent: there is none, or more than one.
        """
        modules = [layer for layer in self.layers if layer.media_type in _MODULES]
        if not modules and self.is_container:
            return None
        if len(modules) != 1 or (self.config.media_type == WASM_CONFIG and len(self.layers) != 1):
            kinds = ", ".join(layer.media_type for layer in self.layers) or "none"
            raise BadContent(f"expected one WebAssembly layer ({WASM}), found: {kinds[:300]}")
        return modules[0]


@attrs.frozen
class Start:
    """How a container image is started.

    Attributes:
        path: of the module within the image, without a slash in front.
        command: the entry point, or the first word of the command where there is none.
        arguments: the rest.
        environment: `NAME=value`.
    """

    path: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: tuple[str, ...]


def compression(layer: Descriptor) -> str | None:
    """How a tar layer is compressed: "", "gzip" or "zstd"; None where it is none."""
    return _TARS.get(layer.media_type)


def diff_ids(config: bytes, layers: int) -> list[str]:
    """What each of a container image's layers has to have as its digest, uncompressed, from its configuration.

    Raises:
        BadContent: it does not say so for each of them.
    """
    try:
        found = list((orjson.loads(config).get("rootfs") or {}).get("diff_ids") or ())
    except (ValueError, AttributeError, TypeError):
        raise BadContent("the image's configuration is not what it should be") from None
    if len(found) != layers or not all(is_digest(one) for one in found):
        raise BadContent(f"expected the digests (diff_ids) of {layers} layers in the configuration, found {len(found)}")
    return found


def read(document: Document) -> Manifest | Index:
    """Read what a registry sent for a tag or a digest.

    Raises:
        BadContent: it is neither.
    """
    kind = document.media_type
    try:
        raw = orjson.loads(document.data)
    except ValueError:
        raise BadContent(
            f"expected a manifest, found {kind or 'something that is not JSON'}: is that a registry?"
        ) from None
    if not isinstance(raw, Mapping):
        raise BadContent("expected a manifest, found JSON that is no object")
    if raw.get("schemaVersion") != 2:
        raise BadContent(f"expected a manifest of schemaVersion 2, found {str(raw.get('schemaVersion'))[:20]}")
    kind = str(raw.get("mediaType") or kind)
    if kind in _INDEXES or ("manifests" in raw and "layers" not in raw):
        listed = _list(raw, "manifests", MAX_ENTRIES)
        return Index(tuple(read_descriptor(one, f"manifests[{i}]") for i, one in enumerate(listed)))
    layers = _list(raw, "layers", MAX_LAYERS)
    return Manifest(
        read_descriptor(raw.get("config"), "config"),
        tuple(read_descriptor(one, f"layers[{i}]") for i, one in enumerate(layers)),
        texts(raw.get("annotations")),
    )


def _list(raw: Mapping[str, Any], key: str, most: int) -> list[Any]:
    found = raw.get(key)
    if not isinstance(found, list):
        raise BadContent(f"the manifest has no list of {key}")
    if len(found) > most:
        raise BadContent(f"the manifest lists {len(found)} {key}, more than the {most} allowed")
    return found


def start(data: bytes, annotations: Mapping[str, str]) -> Start:
    """How a container image is started, from its configuration.

    Raises:
        BadContent: it is for another platform, or has no entry point that could be a module.
    """
    try:
        raw = orjson.loads(data)
        settings = raw.get("config") or {}
        command, arguments = list(settings.get("Entrypoint") or ()), list(settings.get("Cmd") or ())
        environment = list(settings.get("Env") or ())
        folder = settings.get("WorkingDir") or "/"
        platform = f"{raw.get('os')}/{raw.get('architecture')}"
    except (ValueError, AttributeError, TypeError):
        raise BadContent("the image's configuration is not what it should be") from None
    if platform not in _PLATFORMS and annotations.get(_COMPAT) not in ("compat", "compat-smart"):
        raise BadContent(f"expected an image for wasi/wasm, found one for {platform[:60]}")
    if not all(isinstance(text, str) for text in (*command, *arguments, *environment, folder)):
        raise BadContent("the image's entry point, command and environment have to be text")
    if not command:
        command, arguments = arguments[:1], arguments[1:]
    if not command:
        raise BadContent("the image has no entry point, so which of its files is the module is not known")
    path = command[0] if command[0].startswith("/") else f"{folder}/{command[0]}"
    kept = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in kept or not kept or "\0" in command[0]:
        raise BadContent(f"the image's entry point {command[0][:200]!r} is no file's path")
    return Start("/".join(kept), tuple(command), tuple(arguments), tuple(environment))
