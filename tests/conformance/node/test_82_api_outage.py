"""While the API server is away pods run on; when it is back, or has forgotten a watch, what happened is made good."""

from __future__ import annotations

from typing import Any

from tests.conformance.harness import Kube
from tests.conformance.reading import status


async def test_an_outage(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    await kube.create("sleep", "1", "exit", "3", name="ends")
    before = await kube.ready()
    await kube.running("ends")
    faults: Any = kube.machine.plane.faults
    async with faults.outage():
        pass
    ended = await kube.phase("Failed", "ends")
    assert status(ended)["state"]["terminated"]["exitCode"] == 3
    await kube.create("print", "x", name="after")
    await kube.phase("Succeeded", "after")
    pod = await kube.get()
    assert status(pod) == status(before)


async def test_a_watch_that_is_cut_off(kube: Kube) -> None:
    await kube.create("sleep", "1000")
    before = await kube.ready()
    faults: Any = kube.machine.plane.faults
    await faults.restart()
    await kube.create("print", "x", name="after")
    await kube.phase("Succeeded", "after")
    assert status(await kube.get()) == status(before)
