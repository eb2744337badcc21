"""Requests and limits: a memory limit is a container's own, the QoS class is the API server's and is kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.harness import Kube
from tests.conformance.reading import status, terminated


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "10m"}}, "Burstable"),
        ({"limits": {"cpu": "10m", "memory": "40Mi"}}, "Guaranteed"),
    ],
)
async def test_qos_class(kube: Kube, resources: dict[str, Any], qos: str) -> None:
    await kube.create("sleep", "1000", resources=resources)
    pod = await kube.ready()
    assert pod["status"]["qosClass"] == qos
    wanted = pod["spec"]["containers"][0]["resources"]
    assert (status(pod).get("resources") or {}) == wanted
    assert (status(pod).get("allocatedResources") or {}) == (wanted.get("requests") or {})


async def test_the_memory_limit_is_held_for_each_container(kube: Kube) -> None:
    small = kube.container("alloc", "80", name="small", resources={"limits": {"memory": "40Mi"}})
    large = kube.container("alloc", "80", name="large", resources={"limits": {"memory": "240Mi"}})
    await kube.create(spec={"containers": [small, large]})
    pod = await kube.ended()
    ended = [(terminated(pod, name)["exitCode"], terminated(pod, name)["reason"]) for name in ("small", "large")]
    assert ended == [(137, "OOMKilled") if kube.machine.oom_kills else (0, "Completed"), (0, "Completed")]
    assert await kube.output(container="small") == ("" if kube.machine.oom_kills else "no memory\n")
    assert await kube.output(container="large") == "80 MiB\n"


async def test_an_oom_kill_is_a_failure_as_any_other(kube: Kube) -> None:
    """Restarted under its policy, and told as the last state."""
    limited = {"resources": {"limits": {"memory": "40Mi"}}}
    await kube.create("print", "on", "alloc", "80", "exit", "5", spec={"restartPolicy": "OnFailure"}, **limited)
    pod = await kube.until(lambda pod: status(pod).get("restartCount", 0) > 0)
    last = status(pod)["lastState"]["terminated"]
    wanted = (137, "OOMKilled") if kube.machine.oom_kills else (5, "Error")
    assert (last["exitCode"], last["reason"]) == wanted
