"""restartPolicy says which ends are followed by a restart: the kubelet's "should run with the expected status"."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import status


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded")],
)
async def test_no_restart(kube: Kube, policy: str, code: int, phase: str) -> None:
    await kube.create("exit", str(code), spec={"restartPolicy": policy})
    pod = await kube.ended()
    assert pod["status"]["phase"] == phase
    assert status(pod)["restartCount"] == 0
    assert status(pod)["ready"] is False


@pytest.mark.parametrize(("policy", "code"), [("Always", 0), ("Always", 1), ("OnFailure", 1)])
async def test_restarts(kube: Kube, policy: str, code: int) -> None:
    await kube.create("exit", str(code), spec={"restartPolicy": policy})
    pod = await kube.until(lambda pod: status(pod).get("restartCount") == 2)
    assert pod["status"]["phase"] == "Running"
    last = status(pod)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (code, "Error" if code else "Completed")


async def test_on_failure_until_it_is_well(kube: Kube) -> None:
    """The third instance succeeds: a file counts them, in a volume that outlives each."""
    volume: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "OnFailure"}
    mounts = [{"name": "v", "mountPath": "/v"}]
    await kube.create("append", "/v/n", "x", "fewer", "/v/n", "3", spec=volume, volumeMounts=mounts)
    pod = await kube.phase("Succeeded")
    assert status(pod)["restartCount"] == 2
