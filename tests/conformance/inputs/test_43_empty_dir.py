"""emptyDir: shared by a pod's containers, kept over restarts, on disk or in memory, with a size that is held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.harness import SECONDS, Kube
from tests.conformance.reading import status

MOUNTS = [{"name": "v", "mountPath": "/v"}]


def with_volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", "emptyDir": source}]}


@pytest.mark.parametrize("medium", ["", "Memory"])
async def test_shared_between_containers(kube: Kube, medium: str) -> None:
    writer = kube.container("put", "/w/file", "written", name="writer", volumeMounts=[{"name": "v", "mountPath": "/w"}])
    reader = kube.container("await", "/v/file", "written", "cat", "/v/file", volumeMounts=MOUNTS)
    await kube.create(spec={**with_volume(medium=medium), "containers": [reader, writer]})
    assert await kube.output() == "written"


async def test_kept_over_restarts(kube: Kube) -> None:
    script = ("append", "/v/n", "x", "cat", "/v/n", "fewer", "/v/n", "3")
    await kube.create(*script, spec={**with_volume(), "restartPolicy": "OnFailure"}, volumeMounts=MOUNTS)
    pod = await kube.phase("Succeeded")
    assert status(pod)["restartCount"] == 2
    assert (await kube.log()).endswith("xxx")


async def test_another_pod_has_another(kube: Kube) -> None:
    script = ("ls", "/v", "put", "/v/file", "x")
    for turn in ("one", "two"):
        await kube.create(*script, name=turn, spec=with_volume(), volumeMounts=MOUNTS)
        assert await kube.output(turn) == "\nput /v/file: ok\n"


async def test_its_limit_is_held(timed: Kube) -> None:
    spec = {**with_volume(sizeLimit="1Mi"), "restartPolicy": "Always"}
    await timed.create("fill", "/v/file", "2048", "print", "full", "sleep", "1000", spec=spec, volumeMounts=MOUNTS)
    await timed.logged("full")
    async with asyncio.timeout(SECONDS):
        await timed.clock.next_sleep(0, 10)
    timed.clock.advance(10)
    pod = await timed.phase("Failed")
    assert pod["status"]["reason"] == "Evicted"
    assert pod["status"]["message"] == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
