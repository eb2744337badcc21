"""Modules and images as bytes, made for tests."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.artifacts.registries import Scripted, reply
from wasmlet.artifacts.store import Store

EMPTY = b"\0asm\x01\0\0\0"
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"


def leb(value: int) -> bytes:
    """Unsigned LEB128."""
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def name(text: str) -> bytes:
    data = text.encode()
    return leb(len(data)) + data


def section(number: int, body: bytes) -> bytes:
    return bytes([number]) + leb(len(body)) + body


def module(padding: int = 0) -> bytes:
    """A module that does nothing, and is as large as one likes."""
    return EMPTY + section(0, name("padding") + bytes(i * 7 % 251 for i in range(padding)))


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha(data), "size": len(data), **more}


def manifest(*layers: dict[str, Any], config: dict[str, Any] | None = None, **more: Any) -> bytes:
    config = config or descriptor(b"{}", "application/vnd.wasm.config.v1+json")
    return json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": config, "layers": layers, **more}).encode()


def index(*manifests: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


def serve(server: Scripted, content: bytes, *blobs: bytes, tag: str = "v1", kind: str = OCI) -> None:
    """Have the server answer with that manifest and those blobs, as `app`."""
    for wanted in (tag, sha(content)):
        server.answers[f"/v2/app/manifests/{wanted}"] = reply(content, Content_Type=kind)
    for blob in (b"{}", *blobs):
        server.answers[f"/v2/app/blobs/{sha(blob)}"] = reply(blob)


def tar(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        fill(archive)
    return out.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    def fill(archive: tarfile.TarFile) -> None:
        for path, data in files.items():
            add(archive, path, data)

    return tar(fill)


def add(archive: tarfile.TarFile, path: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.size, entry.linkname = kind, len(data), link
    archive.addfile(entry, io.BytesIO(data))


def image_config(
    *command: str, platform: str = "wasi/wasm", layers: Sequence[bytes] = (b"",), **settings: Any
) -> bytes:
    """A container image's configuration; `layers` are not compressed."""
    system, _, architecture = platform.partition("/")
    config = {
        "os": system,
        "architecture": architecture,
        "config": {"Entrypoint": list(command), **settings},
        "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in layers]},
    }
    return json.dumps(config).encode()


def left_in(store: Store) -> list[Path]:
    """Every file of the store but its format."""
    return sorted(path for path in store.directory.rglob("*") if path.is_file() and path.name != "format")
