"""Logs of init containers, sidecars, ephemeral containers and pods that have ended; 400 for what has none yet."""

from __future__ import annotations

import pytest

from tests.conformance.harness import Kube
from tests.conformance.lifecycle.test_63_ephemeral_containers import add
from tests.conformance.reading import terminated


async def test_every_kind(kube: Kube) -> None:
    inits = [
        kube.container("print", "init", name="init"),
        kube.container("print", "sidecar", "sleep", "1000", name="sidecar", restartPolicy="Always"),
    ]
    await kube.create("await", "/go/on", "now", "print", "main", **kube.gate(initContainers=inits))
    await kube.ready()
    await add(kube, "debug", "print", "ephemeral")
    await kube.until(lambda pod: terminated(pod, "debug"))
    await kube.open_gate()
    await kube.phase("Succeeded")
    logs = [await kube.log(container=name) for name in ("init", "sidecar", "c", "debug")]
    assert logs == ["init\n", "sidecar\n", "main\n", "ephemeral\n"]


async def test_what_waits_to_start(kube: Kube) -> None:
    await kube.create("print", "x", **kube.gate(optional=False))
    await kube.waiting("ContainerCreating")
    text = await kube.kubectl("logs", "p", code=1)
    assert 'container "c" in pod "p" is waiting to start: ContainerCreating' in text
    await kube.create("print", "x", name="no-image", image="file:///nowhere.wasm")
    await kube.waiting("ErrImagePull", "no-image")
    assert "is waiting to start: " in await kube.kubectl("logs", "no-image", code=1)
    assert await kube.log_status("no-image") == 400


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
async def test_what_somebody_else_has_ended(kube: Kube, phase: str) -> None:
    """The log is there until the pod is deleted: it may say why."""
    inits = [kube.container("print", "init", name="init")]
    await kube.create("print", "main", "sleep", "1000", spec={"restartPolicy": "Always", "initContainers": inits})
    await kube.ready()
    await kube.logged("main")
    await kube.patch({"status": {"phase": phase, "reason": "Marked"}}, "p/status")
    await kube.until(terminated)
    assert await kube.kubectl("logs", "p", "-c", "c") == "main\n"
    assert await kube.log(container="init") == "init\n"
    assert "main" in await kube.kubectl("logs", "-f", "p", "-c", "c", "--timestamps")
    await kube.remove()
    assert await kube.log_status() == 404


async def test_what_is_past_its_deadline(kube: Kube) -> None:
    await kube.create("print", "main", "sleep", "1000")
    await kube.ready()
    await kube.logged("main")
    await kube.patch({"spec": {"activeDeadlineSeconds": 1}})
    assert (await kube.phase("Failed"))["status"]["reason"] == "DeadlineExceeded"
    assert await kube.kubectl("logs", "p") == "main\n"
