"""A container's last word: the file at terminationMessagePath, or its log where it failed and wrote none and may."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import terminated

PATH = "/dev/termination-log"
FALL_BACK = {"terminationMessagePolicy": "FallbackToLogsOnError"}


@pytest.mark.parametrize(
    ("script", "fields", "message"),
    [
        (["put", PATH, "DONE"], {}, "DONE"),
        (["put", "/dev/custom", "DONE", "exit", "1"], {"terminationMessagePath": "/dev/custom"}, "DONE"),
        (["put", PATH, "OK"], FALL_BACK, "OK"),
        (["print", "said"], FALL_BACK, ""),
        (["print", "DONE", "exit", "1"], FALL_BACK, "DONE\n"),
        (["print", "said", "exit", "1"], {}, ""),
        (["print", "said", "put", PATH, "FILE", "exit", "1"], FALL_BACK, "FILE"),
    ],
)
async def test_what_it_says(kube: Kube, script: list[str], fields: dict[str, Any], message: str) -> None:
    await kube.create(*script, **fields)
    assert terminated(await kube.ended()).get("message", "") == message


async def test_bounds(kube: Kube) -> None:
    await kube.create("fill", PATH, "6", name="file")
    await kube.create("line", "5000", "exit", "1", name="line", **FALL_BACK)
    await kube.create("flood", "200", "exit", "1", name="lines", **FALL_BACK)
    assert len(terminated(await kube.ended("file"))["message"]) == 4096
    assert len(terminated(await kube.ended("line"))["message"]) <= 2048
    message = terminated(await kube.ended("lines"))["message"]
    assert 0 < len(message) <= 2048
    assert message.count("\n") <= 80


async def test_the_messages_of_a_pod_have_12_kib_together(kube: Kube) -> None:
    """Every container has the same part of it, whether it needs it or not."""
    others = [kube.container("fill", PATH, "6", name=f"c{number}") for number in range(4)]
    first = kube.container("fill", PATH, "6", name="first")
    await kube.create(spec={"initContainers": [first], "containers": others})
    found = (await kube.ended())["status"]
    statuses = [*found["initContainerStatuses"], *found["containerStatuses"]]
    assert [len(each["state"]["terminated"]["message"]) for each in statuses] == [12 * 1024 // 5] * 5
