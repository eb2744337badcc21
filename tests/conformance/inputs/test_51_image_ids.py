"""A container's status names its image as the manifest has it, the digest of what ran, and the id of its container."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from pathlib import Path

import aiohttp

from tests.conformance.conftest import Own
from tests.conformance.harness import Kube
from tests.conformance.images import docker_registry, login, private
from tests.conformance.reading import status

__all__ = ["docker_registry", "private"]


async def test_ids(kube: Kube, driver_copy: Path) -> None:
    image = f"file://{driver_copy}"
    await kube.create("print", "x", image=image)
    found = status(await kube.ended())
    content = await asyncio.to_thread(driver_copy.read_bytes)
    assert found["image"] == image
    assert found["imageID"] == "sha256:" + hashlib.sha256(content).hexdigest()
    assert re.fullmatch(r"wasm://[0-9a-f]{32}", found["containerID"])


async def digest(address: str, repository: str, tag: str) -> str:
    """What the registry calls the image."""
    url, entry = f"http://{address}/v2/{repository}/manifests/{tag}", login(address)["auths"][address]
    headers = {"Accept": "application/vnd.oci.image.manifest.v1+json", "Authorization": f"Basic {entry['auth']}"}
    async with aiohttp.ClientSession() as session, session.head(url, headers=headers) as answer:
        return answer.headers["Docker-Content-Digest"]


async def test_a_reference_by_digest(own: Own, private: str) -> None:
    address, _, name = private.partition("/")
    async with own(given={"insecure_registries": (address,)}) as kube:
        content = {".dockerconfigjson": json.dumps(login(address))}
        kind = "kubernetes.io/dockerconfigjson"
        await kube.make("secrets", {"metadata": {"name": "s"}, "type": kind, "stringData": content})
        spec = {"imagePullSecrets": [{"name": "s"}]}
        await kube.create("print", "x", image=private, spec=spec)
        found = status(await kube.phase("Succeeded"))
        assert found["image"] == private
        repository, _, tag = name.partition(":")
        by_digest = f"{address}/{repository}@{await digest(address, repository, tag)}"
        await kube.create("print", "y", name="q", image=by_digest, spec=spec)
        again = status(await kube.phase("Succeeded", "q"))
        assert again["imageID"] == found["imageID"]
        await kube.event("Pulled", "q", "already present on machine")
