"""Ephemeral containers join a pod that runs, one after the other, and leave its other containers alone."""

from __future__ import annotations

from tests.conformance.harness import Kube
from tests.conformance.reading import status, terminated
from wasmlet.kube.client import STRATEGIC_PATCH


async def test_two_in_turn(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    before = await kube.ready()
    await add(kube, "one", "print", "first")
    pod = await kube.until(lambda pod: terminated(pod, "one"))
    assert terminated(pod, "one")["exitCode"] == 0
    await add(kube, "two", "print", "second", "exit", "3", targetContainerName="c")
    pod = await kube.until(lambda pod: terminated(pod, "two"))
    assert terminated(pod, "two")["exitCode"] == 3
    assert status(pod, "two")["restartCount"] == 0
    assert await kube.log(container="one") == "first\n"
    assert await kube.log(container="two") == "second\n"
    assert status(pod) == status(before)
    assert pod["status"]["phase"] == "Running"


async def add(kube: Kube, name: str, *script: str, **fields: str) -> None:
    """As `kubectl debug` does."""
    body = {"spec": {"ephemeralContainers": [kube.container(*script, name=name, **fields)]}}
    await kube.patch(body, "p/ephemeralcontainers", how=STRATEGIC_PATCH)
