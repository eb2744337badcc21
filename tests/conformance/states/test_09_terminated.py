"""How a container ended: exit code, reason, times, message and the id of what ran.

WASI has no signals, so `signal` is only there where the node itself killed the guest's process.
"""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import status, terminated


@pytest.mark.parametrize(("args", "code", "reason"), [(["print", "x"], 0, "Completed"), (["exit", "7"], 7, "Error")])
async def test_how_it_ended(kube: Kube, args: list[str], code: int, reason: str) -> None:
    await kube.create(*args)
    pod = await kube.ended()
    ended = terminated(pod)
    assert (ended["exitCode"], ended["reason"]) == (code, reason)
    begun, over = (datetime.fromisoformat(ended[key]) for key in ("startedAt", "finishedAt"))
    assert datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) <= begun <= over
    assert ended["containerID"] == status(pod)["containerID"]
    assert ended["containerID"].startswith("wasm://")


async def test_a_guest_that_is_killed(kube: Kube) -> None:
    """By a delete: interrupted as by SIGTERM, 143."""
    await kube.create("spin", metadata={"finalizers": ["example.com/look"]})
    await kube.running()
    await kube.delete()
    pod = await kube.until(terminated)
    assert terminated(pod)["exitCode"] == 143
    assert terminated(pod)["reason"] == "Error"
