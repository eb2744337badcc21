"""A Node object that somebody deletes is made again, under another UID, and its pods go on."""

from __future__ import annotations

import asyncio

from tests.conformance.conftest import Own
from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import condition, status
from wasmlet.kube import errors


async def test_it_is_made_again(own: Own) -> None:
    async with own() as kube:
        await kube.create("sleep", "1000")
        pod = await kube.ready()
        before = (await kube.node_object())["metadata"]["uid"]
        await kube.admin.delete(f"/api/v1/nodes/{kube.node}")
        after = await made_again(kube, before)
        assert after != before
        await kube.create("print", "x", name="q")
        await kube.phase("Succeeded", "q")
        assert status(await kube.get())["containerID"] == status(pod)["containerID"]


async def made_again(kube: Kube, before: str) -> str:
    """The UID of the Node, once it is another one and Ready."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                node = await kube.node_object()
            except errors.ObjectNotFound:
                continue
            uid: str = node["metadata"]["uid"]
            if uid != before and condition(node, "Ready").get("status") == "True":
                return uid
