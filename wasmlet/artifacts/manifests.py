"""Parses manifests and indexes, and finds which of the listed contents is the WebAssembly module.

Two kinds of images are accepted:
- artifacts, whose one layer is the module. The layer's media type tells the formats apart: those of the CNCF,
  wasm-to-oci, Solo.io and the Bytecode Alliance.
- container images for the platform wasi/wasm. The entry point is a file in their layers, which are tar archives
  (`trees`).
Whether the content really is WebAssembly is checked later, by its first bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs
import orjson

from wasmlet.artifacts.archives import cleaned
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
"""The annotation with the file name of a layer."""
UNPACK = "io.deis.oras.content.unpack"
"""The annotation that marks a layer as a packed directory; oras sets it."""

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MODULES = (
    WASM,
    WASM_TO_OCI,
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
)
_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_TARS = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
)
"""Media types of layers that are tar archives. `archives` detects the compression from the first bytes."""
_SYSTEMS = ("wasip1", "wasi", "linux", "wasip2", "js")
"""Operating systems that images for WebAssembly state, the preferred one first."""
_WASM = ("wasm", "wasm32")
"""The architectures that such images state. A few images have both values swapped, as wasm/wasi."""
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_COMPAT = "module.wasm.image/variant"
_ADVICE = f"Build the image for that platform, or annotate its manifest with {_COMPAT}=compat"
LEAST = 8
"""Bytes of the smallest module."""
MAX_LAYERS = 128
MAX_ENTRIES = 1000


def for_wasm(platform: str | None) -> int | None:
    """The preference of a platform for WebAssembly, 0 is the best; None if the platform is not for WebAssembly.

    Args:
        platform: `os/architecture`, from a descriptor; None if it states none.
    """
    system, _, machine = (platform or "").lower().partition("/")
    if machine not in _WASM and system in _WASM:
        system = machine
    elif machine not in _WASM:
        return None
    return _SYSTEMS.index(system) if system in _SYSTEMS else len(_SYSTEMS)


def is_compat(annotations: Mapping[str, str]) -> bool:
    """Whether an annotation marks an image as WebAssembly, whatever its platform is. The annotation comes from crun."""
    return annotations.get(_COMPAT) in ("compat", "compat-smart")


@attrs.frozen
class Index:
    """An index: manifests to choose from, and annotations that apply to all of them."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = attrs.field(factory=dict)

    def choose(self, *, files: bool = False) -> Descriptor:
        """Choose the manifest for WebAssembly.

        The order is: WASI preview 1, then other WebAssembly platforms, then one that an annotation marks as
        compatible. If no entry is marked as WebAssembly, this takes the one for this machine, or the only one: its
        own manifest may have the annotation, which tools do not repeat in the index.

        Args:
            files: the image's files are wanted, and it is not run. Then any platform will do.

        Raises:
            BadContent: there is no such manifest.
        """
        ranked = [(rank, one) for one in self.manifests if (rank := for_wasm(one.platform)) is not None]
        if ranked:
            best: Descriptor = min(ranked, key=lambda pair: pair[0])[1]
            return best
        real = [one for one in self.manifests if one.platform != "unknown/unknown"]  # the others are attestations
        plain = [one for one in real if one.platform is None]
        ours = [one for one in real if one.platform == f"linux/{_MACHINES.get(os.uname().machine, '?')}"]
        compat = [one for one in (*ours, *real) if is_compat(one.annotations)]
        alone = [one for some in (plain, real) if len(some) == 1 for one in some]
        found: list[Descriptor] = [*ours, *alone] if files else [*compat, *alone, *ours]
        if found:
            return found[0]
        raise self.none()

    def none(self) -> BadContent:
        """The error which says that no manifest of this index is for WebAssembly."""
        there = ", ".join(dict.fromkeys(one.platform or "none" for one in self.manifests)) or "nothing"
        return BadContent(f"expected a manifest for wasi/wasm in the index; found {there[:200]}. {_ADVICE}")


@attrs.frozen
class Manifest:
    """A manifest: the configuration and the layers that an image consists of."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def is_container(self) -> bool:
        """Whether it is a container image: by the media types of its configuration and its layers."""
        return self.config.media_type in _CONFIGS and all(one.media_type in _TARS for one in self.layers)

    def module(self) -> Descriptor | None:
        """The layer that is the module; None in a container image.

        Some clients set another media type than that of WebAssembly (oras sets that of a tar archive). Then this takes
        the only layer, or the only one whose file name ends in `.wasm`; its first bytes are checked later.

        Raises:
            BadContent: no layer, or more than one, may be the module.
        """
        modules = [layer for layer in self.layers if layer.media_type in MODULES]
        if not modules and self.is_container:
            return None
        if not modules:
            files = [layer for layer in self.layers if layer.media_type != EMPTY and layer.size >= LEAST]
            named = [layer for layer in files if layer.annotations.get(TITLE, "").lower().endswith(".wasm")]
            modules = files if len(files) == 1 else named
        if len(modules) != 1 or (self.config.media_type == WASM_CONFIG and len(self.layers) != 1):
            raise self.no_module()
        return modules[0]

    def no_module(self) -> BadContent:
        """The error which says that no layer, or more than one, may be the module."""
        kinds = ", ".join(layer.media_type for layer in self.layers) or "none"
        return BadContent(f"expected one WebAssembly layer ({WASM}), found: {kinds[:300]}")


@attrs.frozen
class Start:
    """How a container image is started.

    Attributes:
        path: path of the module within the image, without a leading slash.
        folder: the working directory, an absolute path.
        command: the image's entry point; if it has none, the first word of its command.
        arguments: the words that follow.
        environment: `NAME=value`.
    """

    path: str
    folder: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: tuple[str, ...]


def is_tar(layer: Descriptor) -> bool:
    """Whether a layer's media type is that of a tar archive."""
    return layer.media_type in _TARS


def diff_ids(config: bytes, layers: int) -> list[str]:
    """The digests of a container image's uncompressed layers (`diff_ids`), from its configuration.

    Raises:
        BadContent: the configuration does not have one for each layer.
    """
    try:
        found = list((orjson.loads(config).get("rootfs") or {}).get("diff_ids") or ())
    except (ValueError, AttributeError, TypeError):
        raise BadContent("the image's configuration is not what it should be") from None
    if len(found) != layers:
        raise BadContent(f"expected the digests (diff_ids) of {layers} layers in the configuration, found {len(found)}")
    for one in found:
        if not is_digest(one):
            raise BadContent(f"expected a digest in the configuration's diff_ids, sha256:HEX, found {str(one)[:100]!r}")
    return found


def read(document: Document) -> Manifest | Index:
    """Parse the document that a registry sent for a tag or a digest.

    Raises:
        BadContent: it is neither a manifest nor an index.
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
        descriptors = tuple(read_descriptor(one, f"manifests[{i}]") for i, one in enumerate(listed))
        return Index(descriptors, texts(raw.get("annotations")))
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


def start(data: bytes, *, trusted: bool) -> Start:
    """How a container image is started, from its configuration.

    Args:
        trusted: an annotation or the index has already marked the image as WebAssembly.

    Raises:
        BadContent: the image is for another platform, or has no entry point that could be a module.
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
    if not trusted and for_wasm(platform) is None:
        raise BadContent(f"expected an image for wasi/wasm, found one for {platform[:60]}. {_ADVICE}")
    if not all(isinstance(text, str) for text in (*command, *arguments, *environment, folder)):
        raise BadContent("the image's entry point, command and environment have to be text")
    if not command:
        command, arguments = arguments[:1], arguments[1:]
    if not command:
        raise BadContent("the image has no entry point, so which of its files is the module is not known")
    if "\0" in command[0] + folder:
        raise BadContent("the image's entry point or working directory has a NUL character")
    folder = f"/{cleaned(folder)}"
    path = cleaned(command[0] if command[0].startswith("/") else f"{folder}/{command[0]}")
    if not path:
        raise BadContent(f"the image's entry point {command[0][:200]!r} is no file's path")
    return Start(path, folder, tuple(command), tuple(arguments), tuple(environment))
