"""A pod leaves the API only once its last status has been written: how it ended is seen before it is gone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import terminated
from wasmlet.model.pod import Raw


async def test_the_last_status_comes_first(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    pod = await kube.running()
    seen: list[tuple[str, Raw]] = []
    since = pod["metadata"]["resourceVersion"]
    async with asyncio.timeout(SECONDS), aclosing(kube.versions("p", since=since)) as versions:
        await kube.delete()
        async for kind, version in versions:
            seen.append((kind, version))
            if kind == "DELETED":
                break
    kinds = [kind for kind, _ in seen]
    assert kinds == ["MODIFIED"] * (len(kinds) - 1) + ["DELETED"]
    last = seen[-1][1]
    assert last["metadata"]["uid"] == pod["metadata"]["uid"]
    assert last["metadata"]["deletionGracePeriodSeconds"] == 0
    assert terminated(last)["exitCode"] == 143
    assert any(terminated(version) for kind, version in seen if kind == "MODIFIED")
