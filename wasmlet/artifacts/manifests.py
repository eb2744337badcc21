"""Manifests and indexes: which of what they list is the module.

Every format that is in use is taken, told apart by the layer's media type: artifacts whose one layer is the module (the
CNCF's, wasm-to-oci's, Solo.io's, the Bytecode Alliance's), and container images for wasi/wasm, where the entry point is
a file in a tar layer (`trees`). Whether it is WebAssembly is seen from its first bytes, later.
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
"""The annotation of a layer that says which file it is."""
UNPACK = "io.deis.oras.content.unpack"
"""The annotation of a layer that is a directory, packed; oras sets it."""

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
"""Media types of layers that are tar archives. How one is compressed is seen from its first bytes."""
_SYSTEMS = ("wasip1", "wasi", "linux", "wasip2", "js")
"""Operating systems that images for WebAssembly name, the most welcome first."""
_WASM = ("wasm", "wasm32")
"""What such images name as their architecture; a few have the two the other way round, as wasm/wasi."""
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_COMPAT = "module.wasm.image/variant"
_ADVICE = f"Build the image for that platform, or annotate its manifest with {_COMPAT}=compat"
LEAST = 8
"""Bytes of the smallest module."""
MAX_LAYERS = 128
MAX_ENTRIES = 1000


def for_wasm(platform: str | None) -> int | None:
    """How welcome a platform for WebAssembly is, 0 the most; None where it is for something else.

    Args:
        platform: `os/architecture`, as a descriptor has it.
    """
    system, _, machine = (platform or "").lower().partition("/")
    if machine not in _WASM and system in _WASM:
        system = machine
    elif machine not in _WASM:
        return None
    return _SYSTEMS.index(system) if system in _SYSTEMS else len(_SYSTEMS)


def is_compat(annotations: Mapping[str, str]) -> bool:
    """Whether annotations say that an image is WebAssembly, whatever platform it was built for (crun's)."""
    return annotations.get(_COMPAT) in ("compat", "compat-smart")


@attrs.frozen
class Index:
    """Manifests to choose from, and what is said of all of them."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = attrs.field(factory=dict)

    def choose(self, *, files: bool = False) -> Descriptor:
        """The one for WebAssembly: WASI preview 1 before others, one that an annotation calls compatible after these.

        Where none is said to be for WebAssembly it is the one for this machine, or the only one: its own manifest may
        say so, and tools that make an index do not repeat annotations in it.

        Args:
            files: that one wants its files, not to run it; then any platform will do.

        Raises:
            BadContent: there is none.
        """
        ranked = [(rank, one) for one in self.manifests if (rank := for_wasm(one.platform)) is not None]
        if ranked:
            best: Descriptor = min(ranked, key=lambda pair: pair[0])[1]
            return best
        real = [one for one in self.manifests if one.platform != "unknown/unknown"]  # the others attest something
        plain = [one for one in real if one.platform is None]
        ours = [one for one in real if one.platform == f"linux/{_MACHINES.get(os.uname().machine, '?')}"]
        compat = [one for one in (*ours, *real) if is_compat(one.annotations)]
        alone = [one for some in (plain, real) if len(some) == 1 for one in some]
        found: list[Descriptor] = [*ours, *alone] if files else [*compat, *alone, *ours]
        if found:
            return found[0]
        raise self.none()

    def none(self) -> BadContent:
        """The error that none of them is for WebAssembly."""
        there = ", ".join(dict.fromkeys(one.platform or "none" for one in self.manifests)) or "nothing"
        return BadContent(f"expected a manifest for wasi/wasm in the index; found {there[:200]}. {_ADVICE}")


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

        A client that was told no media type gives the layer another one (oras that of a tar archive). Then the only
        layer is taken for the module, or the only one whose file is called `*.wasm`; its first bytes say whether it is.

        Raises:
            BadContent: there is none, or more than one.
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
        """The error that no layer, or more than one, is the module."""
        kinds = ", ".join(layer.media_type for layer in self.layers) or "none"
        return BadContent(f"expected one WebAssembly layer ({WASM}), found: {kinds[:300]}")


@attrs.frozen
class Start:
    """How a container image is started.

    Attributes:
        path: of the module within the image, without a slash in front.
        folder: the working directory, an absolute path.
        command: the entry point, or the first word of the command where there is none.
        arguments: the rest.
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
    """What each of a container image's layers has to have as its digest, uncompressed, from its configuration.

    Raises:
        BadContent: it does not say so for each of them.
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
        trusted: that something else has said already that it is WebAssembly: an annotation, or the index.

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
