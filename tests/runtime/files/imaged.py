"""Container images for tests of a running provider, and what their guest says."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from tests.artifacts import modules
from tests.artifacts.modules import descriptor, manifest, tar_of
from tests.artifacts.registries import Scripted
from tests.runtime.harness import Runtime, pod_of
from wasmlet.provider import PodKey

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def serve(server: Scripted, driver: Path, *layers: dict[str, bytes], tag: str = "v1", **settings: Any) -> str:
    """Have the server serve an image with the driver as /bin/app.wasm and these files; the image."""
    unpacked = [tar_of({"bin/app.wasm": driver.read_bytes()}), *map(tar_of, layers)]
    config = modules.image_config("/bin/app.wasm", layers=unpacked, **settings)
    packed = [gzip.compress(layer, mtime=0) for layer in unpacked]
    content = manifest(*(descriptor(one, LAYER) for one in packed), config=descriptor(config, modules.OCI_CONFIG))
    modules.serve(server, content, config, *packed, tag=tag)
    return f"{server.address}/app:{tag}"


def calls(text: str) -> list[str]:
    """The driver's instructions; what it shows of a file ends with its line."""
    words = []
    for call in text.split("; "):
        words += [*call.split(), *(["print", ""] if call.startswith("cat ") else [])]
    return words


async def lines(runtime: Runtime, key: PodKey) -> list[str]:
    await runtime.ended(key)
    return [line for line in (await runtime.output(key)).decode().splitlines() if line]


async def said(runtime: Runtime, text: str, image: str, **more: Any) -> list[str]:
    return await lines(runtime, await runtime.create(pod_of(*calls(text), image=image, **more)))
