"""A container's status names its image as the manifest has it, the digest of what ran, and the id of its container."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path

from tests.conformance.harness import Kube, status


async def test_ids(kube: Kube, driver_copy: Path) -> None:
    image = f"file://{driver_copy}"
    await kube.create("print", "x", image=image)
    found = status(await kube.ended())
    content = await asyncio.to_thread(driver_copy.read_bytes)
    assert found["image"] == image
    assert found["imageID"] == "sha256:" + hashlib.sha256(content).hexdigest()
    assert re.fullmatch(r"wasm://[0-9a-f]{32}", found["containerID"])
