"""An image that cannot be had: ErrImagePull and ImagePullBackOff in turn, InvalidImageName, ErrImageNeverPull.

Images here are files of the node, and one of a registry that is not there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.conformance.harness import Kube
from tests.conformance.reading import state


async def test_pull_errors_and_back_off_alternate(timed: Kube, driver_copy: Path) -> None:
    missing = driver_copy.with_name("late.wasm")
    await timed.create("print", "x", image=f"file://{missing}")
    pause = 10.0
    for _ in range(3):
        pod = await timed.waiting("ErrImagePull")
        assert str(missing) in state(pod)["waiting"]["message"]
        assert await timed.clock.next_sleep(4, 5) == 5
        timed.clock.advance(5)
        pod = await timed.waiting("ImagePullBackOff")
        assert "Back-off pulling image" in state(pod)["waiting"]["message"]
        assert pod["status"]["phase"] == "Pending"
        assert await timed.clock.next_sleep(pause - 5, pause - 5) == pause - 5
        if pause == 40:
            await asyncio.to_thread(driver_copy.rename, missing)
        timed.clock.advance(pause - 5)
        pause *= 2
    assert await timed.output() == "x\n"
    await timed.event("BackOff", part="Back-off pulling image")
    await timed.event("Failed", part="Error: ImagePullBackOff")


async def test_a_name_that_is_none(kube: Kube) -> None:
    await kube.create(image="file:///module.wasm?x=y")
    pod = await kube.waiting("InvalidImageName")
    assert pod["status"]["phase"] == "Pending"
    await kube.event("InspectFailed")


async def test_never_pull_what_is_not_there(kube: Kube) -> None:
    await kube.create(image="file:///nowhere/module.wasm", imagePullPolicy="Never")
    await kube.waiting("ErrImageNeverPull")
    await kube.event("ErrImageNeverPull", part="is not present with pull policy of Never")


async def test_a_registry_that_cannot_be_reached(kube: Kube) -> None:
    await kube.create(image="127.0.0.1:1/app:1")
    pod = await kube.until(lambda pod: state(pod).get("waiting", {}).get("reason") == "ErrImagePull")
    assert state(pod)["waiting"]["message"].startswith("127.0.0.1:1/app:1: 127.0.0.1:1 cannot be reached: ")
