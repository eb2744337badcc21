"""Manifests and inputs of unreasonable size or form: handled whole or refused by name, and nothing is left of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.files.test_volumes import memory_directory, mounts, pod_directory, settings, with_volume
from tests.runtime.harness import Runtime, pod_of, removed
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey


def with_metadata(pod: Pod, **metadata: Any) -> Pod:
    return Pod({**pod.raw, "metadata": {**pod.raw["metadata"], **metadata}})


async def nothing_is_left(runtime: Runtime, key: PodKey) -> None:
    """Delete the pod; no file, mount, record or process of it is left then."""
    records = runtime.provider.services.client.records
    pids = [record.pid for record in records.values() if record.labels["pod"]["uid"] == key.uid and record.pid]
    await runtime.provider.delete_pod(key, 0)
    mounts = await asyncio.to_thread(Path("/proc/self/mountinfo").read_text)
    kept = runtime.provider.services.storage.in_memory(key.uid)
    for directory in filter(None, (pod_directory(runtime, key.uid), kept)):
        await removed(directory)
        assert str(directory) not in mounts
    assert not list((runtime.state_dir / "runtime" / "logs").rglob(f"{key.uid},*"))
    assert not [record for record in records.values() if record.labels["pod"]["uid"] == key.uid]
    assert not [pid for pid in pids if _is_guest(pid)]


def _is_guest(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "wasmlet-guest\n"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("key", ["a/b", "../a", "/etc/passwd", "..data", "a\0b", "x" * 256, ""])
@pytest.mark.parametrize("kind", ["configMap", "secret"])
async def test_keys_that_are_no_file_names(runtime: Runtime, image: str, kind: str, key: str) -> None:
    """An API server refuses these keys; whoever gets one past it reaches nothing outside the volume."""
    source = {kind: {"name": "s"} if kind == "configMap" else {"secretName": "s"}}
    inputs = (
        Inputs(config_maps={"s": {"metadata": {"name": "s"}, "data": {key: "out"}}})
        if kind == "configMap"
        else Inputs(secrets={"s": {"metadata": {"name": "s"}, "data": {key: "b3V0"}}})
    )
    pod = with_volume("ls", "/v", image=image, source=source)
    made = await runtime.create(pod, inputs)
    if key == "a/b":  # below the volume, so it is a file in a directory
        assert b"a" in (await runtime.output(made)).split()
    else:
        event = await runtime.event(made, "FailedMount", "invalid path")
        assert 'volume "v"' in event.message
        assert "out" not in event.message.replace("without", "")
    await nothing_is_left(runtime, made)


async def test_a_thousand_variables(runtime: Runtime, image: str) -> None:
    """Each made of the one before: the last has all of them in it, and the guest gets every one."""
    env = [{"name": "V0", "value": "."}] + [
        {"name": f"V{number}", "value": f"$(V{number - 1})."} for number in range(1, 1000)
    ]
    inputs = settings(**{f"K{number}": "x" * 100 for number in range(1000)})
    pod = pod_of("env", "V999", "env", "K999", image=image, env=env, envFrom=[{"configMapRef": {"name": "settings"}}])
    key = await runtime.create(pod, inputs)
    assert await runtime.output(key) == b"V999=" + b"." * 1000 + b"\nK999=" + b"x" * 100 + b"\n"
    await nothing_is_left(runtime, key)


async def test_variables_that_grow_without_end(runtime: Runtime, image: str) -> None:
    """A few lines of YAML that would come to 2^60 bytes."""
    env = [{"name": "V0", "value": "xx"}] + [
        {"name": f"V{number}", "value": f"$(V{number - 1})$(V{number - 1})"} for number in range(1, 60)
    ]
    key = await runtime.create(pod_of("print", "x", image=image, env=env))
    waiting = await runtime.waiting(key, "CreateContainerConfigError")
    assert "spec.containers[0].env" in waiting.message
    await nothing_is_left(runtime, key)


async def test_a_mebibyte_of_annotations(runtime: Runtime, image: str) -> None:
    """More than an API server takes (256 KiB), seen as a file."""
    annotations = {f"example.com/a{number}": "x" * 1024 for number in range(1024)}
    size = sum(len(name) + len(value) + 4 for name, value in annotations.items()) - 1
    items = [{"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}]
    script = ("has", "/v/annotations", "print", "there", "sleep", "1000")
    pod = with_volume(*script, image=image, source={"downwardAPI": {"items": items}})
    key = await runtime.create(with_metadata(pod, annotations=annotations))
    await runtime.logged(key, b"there\n")
    volume = memory_directory(runtime) / "volumes" / "kubernetes.io~downward-api" / "v"
    assert (volume / "annotations").stat().st_size == size
    await nothing_is_left(runtime, key)


@pytest.mark.needs_root("only root can mount what holds a guest to a size")
async def test_a_guest_that_fills_its_disk(runtime: Runtime, image: str) -> None:
    """It is told that there is no space; what it had is gone with the pod."""
    source = {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    script = ("fill", "/v/a", "2048", "put", "/v/b", "x", "unlink", "/v/a", "put", "/v/c", "x")
    key = await runtime.create(with_volume(*script, "sleep", "1000", image=image, source=source))
    text = await runtime.logged(key, b"put /v/c: ok\n")
    assert text.splitlines()[0] == b"fill /v/a: No space left on device"
    await nothing_is_left(runtime, key)


async def test_more_mounts_than_there_is_room_for(runtime: Runtime, image: str) -> None:
    spec = {"volumes": [{"name": "v", "emptyDir": {}}]}
    many = [mount for number in range(200) for mount in mounts(f"/m{number}")]
    key = await runtime.create(pod_of("print", "x", image=image, spec=spec, volumeMounts=many))
    waiting = await runtime.waiting(key, "CreateContainerConfigError")
    assert "spec.containers[0].volumeMounts: expected at most 100 directories, found 20" in waiting.message
    await nothing_is_left(runtime, key)
