"""What ends a pod, or its node, comes while the shim is starting one of its containers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.pods.test_order import sidecar
from tests.worker.harness import children
from wasmlet.model.inputs import Inputs
from wasmlet.model.status import phase_of
from wasmlet.worker import wire


def once_asked(runtime: Runtime, then: Callable[[], object], delay: float = 0.0) -> None:
    """Call `then` so many seconds after the next start was asked for."""
    client = runtime.provider.services.client
    send = client._send

    async def sent(data: bytes, descriptors: list[int]) -> None:
        await send(data, descriptors)
        if b'"run"' in data[:2000]:
            client._send = send  # type: ignore[method-assign]
            asyncio.get_running_loop().call_later(delay, then)

    client._send = sent  # type: ignore[method-assign, assignment]


async def warmed_up(runtime: Runtime, image: str) -> None:
    """The module is compiled, and a zygote is there, so that a start is quick."""
    key = await runtime.create(pod_of("print", "x", image=image, name="warm"))
    await runtime.ended(key)
    await runtime.provider.delete_pod(key, 0)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.002, 0.004])
async def test_a_pod_that_fails_meanwhile_has_nothing_that_runs(runtime: Runtime, image: str, seconds: float) -> None:
    await warmed_up(runtime, image)
    pod = pod_of("sleep", "1000", image=image)
    once_asked(runtime, lambda: runtime.provider._pods[pod.uid].fail("Evicted", "no room", 0), seconds)
    key = await runtime.create(pod)
    status = await runtime.until(key, lambda status: status.phase == "Failed")
    assert status.reason == "Evicted"
    client = runtime.provider.services.client
    await client.settled()
    assert [record.state for record in client.records.values()] == [wire.ENDED]


async def test_a_sidecar_that_is_being_started_anew_ends_with_its_pod(runtime: Runtime, image: str) -> None:
    changed = runtime.state_dir.parent / "changed.wasm"
    shutil.copy(image.removeprefix("file://"), changed)
    with changed.open("ab") as file:
        file.write(b"\x00\x03\x01aa")  # a custom section
    await warmed_up(runtime, f"file://{changed}")
    pod = pod_of("sleep", "1000", image=image, spec={"initContainers": [sidecar("side", image)]})
    key = await runtime.create(pod)
    await runtime.running(key)
    client = runtime.provider.services.client
    main = runtime.provider._pods[key.uid].containers["main"].record
    assert main is not None
    ended = attrs.evolve(main, state=wire.ENDED, exit_code=0, finished=1.0)
    once_asked(runtime, lambda: client._update(ended))
    spec = {"initContainers": [sidecar("side", f"file://{changed}")]}
    pod = pod_of("sleep", "1000", image=image, spec=spec)
    await runtime.provider.update_pod(pod, Inputs())
    await runtime.until(key, lambda status: phase_of(pod, status) == "Succeeded")


async def test_a_node_that_stops_meanwhile_leaves_the_files(runtime: Runtime, image: str) -> None:
    await warmed_up(runtime, image)
    asked = asyncio.Event()
    once_asked(runtime, asked.set)
    zygotes = children(runtime.shim)
    name = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    volume = {"name": "about", "downwardAPI": {"items": [name]}}
    mount = {"name": "about", "mountPath": "/about"}
    for zygote in zygotes:
        os.kill(zygote, signal.SIGSTOP)
    try:
        key = await runtime.create(
            pod_of("sleep", "1000", image=image, spec={"volumes": [volume]}, volumeMounts=[mount])
        )
        await asked.wait()
        memory = runtime.provider.services.storage.in_memory(key.uid)
        before = await asyncio.to_thread(listed, memory)
        assert any(path.name == "name" for path in before)
        await runtime.stop()
    finally:
        for zygote in zygotes:
            os.kill(zygote, signal.SIGCONT)
    assert await asyncio.to_thread(listed, memory) == before
    await runtime.start()
    await runtime.provider.create_pod(
        pod_of("sleep", "1000", image=image, spec={"volumes": [volume]}, volumeMounts=[mount]), Inputs()
    )
    await runtime.running(key)


def listed(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


async def test_an_error_of_ours_about_a_start_does_not_hold_it_up(runtime: Runtime, image: str) -> None:
    await warmed_up(runtime, image)
    client = runtime.provider.services.client
    changed, told = client._changed, list[str]()

    def fails(record: object) -> None:
        client._changed = changed
        raise RuntimeError("ours")

    client._changed = fails
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    key = await runtime.create(pod_of("sleep", "1000", image=image))
    await runtime.running(key)
    assert told == ["ours"]
    assert client._replies == {}
