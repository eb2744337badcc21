"""Pods that are deleted: how soon they end, in whatever state, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time

import pytest

from tests.runtime.harness import Runtime, files_of, has_files, pod_of
from tests.shared.descriptors import open_descriptors
from tests.worker.harness import children
from wasmlet.errors import NotFound
from wasmlet.model.status import Terminated


@pytest.mark.parametrize("work", [["sleep", "1000"], ["spin"]])
async def test_delete_ends_a_guest_at_once(runtime: Runtime, image: str, work: list[str]) -> None:
    key = await runtime.create(pod_of("print", "up", *work, image=image))
    await runtime.running(key)
    began = time.monotonic()
    status = await runtime.provider.delete_pod(key, 30)
    assert time.monotonic() - began < 20
    assert status is not None
    state = status.containers[0].state
    assert isinstance(state, Terminated)
    assert (state.exit_code, state.signal, state.reason) == (143, None, "Error")
    assert (await runtime.event(key, "Killing")).message == "Stopping container main"
    with pytest.raises(NotFound):
        await runtime.provider.pod_status(key)
    with pytest.raises(NotFound):
        await runtime.provider.delete_pod(key, 30)


async def test_nothing_is_left_of_a_deleted_pod(runtime: Runtime, image: str) -> None:
    before = files_of(runtime.state_dir)
    for number in range(3):
        key = await runtime.create(pod_of("sleep", "1000", name=f"pod-{number}", image=image))
        await runtime.running(key)
    descriptors = open_descriptors()
    for number in range(3):
        await runtime.provider.delete_pod(pod_of(name=f"pod-{number}").key, 0)
    await has_files(runtime.state_dir, before)
    assert set(children(runtime.shim).values()) <= {"wasmlet-zygote", "wasmlet-spare"}
    assert open_descriptors() <= descriptors
    assert await runtime.provider.list_pods() == []
    assert runtime.provider.services.client.records == {}


async def test_delete_without_grace_kills(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("sleep", "1000", image=image))
    await runtime.running(key)
    status = await runtime.provider.delete_pod(key, 0)
    assert status is not None
    assert isinstance(status.containers[0].state, Terminated)
    assert status.containers[0].state.exit_code == 137


async def test_a_delete_that_is_cancelled_goes_on_when_repeated(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("sleep", "1000", image=image))
    await runtime.running(key)
    for pause in (0.0, 0.001, 0.003):
        call = asyncio.create_task(runtime.provider.delete_pod(key, 30))
        await asyncio.sleep(pause)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    with contextlib.suppress(NotFound):  # where the last of the cancelled calls got to its end
        await runtime.provider.delete_pod(key, 0)
    assert await runtime.provider.list_pods() == []
    assert set(children(runtime.shim).values()) <= {"wasmlet-zygote", "wasmlet-spare"}


async def test_a_pod_deleted_while_it_starts_leaves_nothing(runtime: Runtime, image: str) -> None:
    await runtime.ended(await runtime.create(pod_of("print", "x", name="first", image=image)))
    await runtime.provider.delete_pod(pod_of(name="first").key, 0)
    for number, pause in enumerate((0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)):
        key = await runtime.create(pod_of("sleep", "1000", name=f"pod-{number}", image=image, restart="Always"))
        await asyncio.sleep(pause)
        await runtime.provider.delete_pod(key, 30)
    assert runtime.provider.services.client.records == {}
    for pid, name in children(runtime.shim).items():
        if name not in ("wasmlet-zygote", "wasmlet-spare"):
            # A fork that came too late is on its way out: it ends by itself, and soon.
            assert await asyncio.to_thread(_ends, pid, 10), f"{name} ({pid}) is left"
    assert set(children(runtime.shim).values()) <= {"wasmlet-zygote", "wasmlet-spare"}


def _ends(pid: int, seconds: float) -> bool:
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], seconds)[0])
    finally:
        os.close(watch)
