"""imagePullPolicy: Always reads the image anew, IfNotPresent takes what is there, Never does not look elsewhere."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.harness import Kube
from tests.conformance.reading import status


async def test_what_is_told_of_each(kube: Kube, driver_copy: Path) -> None:
    image = f"file://{driver_copy}"
    for policy in ("Always", "IfNotPresent", "Never"):
        name = policy.lower()
        await kube.create("print", "x", name=name, image=image, imagePullPolicy=policy)
        await kube.phase("Succeeded", name)
        pulled = await kube.event("Pulled", name)
        reasons = {event["reason"] for event in await kube.events(name)}
        assert ("Pulling" in reasons) == (policy == "Always")
        expected = "Successfully pulled image" if policy == "Always" else "already present on machine"
        assert expected in pulled["message"]


async def test_never_and_absent(kube: Kube, driver_copy: Path) -> None:
    image = f"file://{driver_copy.with_name('absent.wasm')}"
    await kube.create("print", "x", image=image, imagePullPolicy="Never", spec={"restartPolicy": "Always"})
    pod = await kube.waiting("ErrImageNeverPull")
    assert status(pod)["imageID"] == ""
