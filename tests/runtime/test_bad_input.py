"""Modules and manifests that cannot run: a message that names what is wrong, an event, and recovery when mended."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import Runtime, pod_of
from tests.runtime.images.test_local_modules import answer_to
from tests.runtime.text import text_module
from wasmlet.errors import Refused
from wasmlet.model.inputs import Inputs
from wasmlet.model.status import Waiting
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.pods import manifest
from wasmlet.testing.clock import FakeClock

COMPONENT = b"\0asm\x0d\0\x01\0"


def content_of(path: Path) -> bytes:
    return path.read_bytes()


UNKNOWN_IMPORT = '(module (import "env" "conjure" (func)) (func (export "_start")))'
WRONG_IMPORT = '(module (import "wasi_snapshot_preview1" "fd_close" (func)) (func (export "_start")))'
NO_START = '(module (func (export "run")))'
WRONG_START = '(module (func (export "_start") (param i32)))'


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"", "ErrImagePull", "is no module that pods may run: the file has to exist, to be a regular file"),
        (b"#!/bin/sh\n", "ErrImagePull", "is no module that pods may run"),
        (b"(module)", "ErrImagePull", "is no module that pods may run"),
        (b"\0as", "ErrImagePull", "is no module that pods may run"),
        (b"\0asm\x01", "ErrImagePull", "has a WebAssembly version that is not known here"),
        (b"\0asm\x02\0\0\0", "ErrImagePull", "has a WebAssembly version that is not known here"),
        (COMPONENT, "CreateContainerError", "found a library that exports nothing"),
        (COMPONENT + b"\xff", "CreateContainerError", "not a valid WebAssembly component"),
        (b"\0asm\x01\0\0\0\xff", "CreateContainerError", "not a valid WebAssembly module"),
        (text_module(UNKNOWN_IMPORT), "CreateContainerError", "imports what does not exist here: env.conjure"),
        (text_module(WRONG_IMPORT), "CreateContainerError", "incompatible import type"),
        (text_module(NO_START), "CreateContainerError", "has no _start function"),
        (text_module(WRONG_START), "CreateContainerError", "has no _start function"),
    ],
)
async def test_content(timed: Runtime, driver: Path, tmp_path: Path, content: bytes, reason: str, message: str) -> None:
    path = tmp_path / "guest.wasm"
    path.write_bytes(content)
    key = await timed.create(pod_of("print", "mended", image=f"file://{path}"))
    waiting = await timed.waiting(key, reason)
    assert message in waiting.message
    assert str(path) in waiting.message
    assert "Traceback" not in waiting.message
    event = await timed.event(key, "Failed", message)
    assert event.type == "Warning"
    path.write_bytes(content_of(driver))
    await _until_ended(timed, key)
    assert await timed.log(key) == b"mended\n"
    # Not rglob(), which fails of a directory that goes meanwhile.
    assert not [name for _, _, names in os.walk(timed.state_dir) for name in names if name.endswith(".new")]


async def _until_ended(timed: Runtime, key: Any) -> None:
    """Let time pass until the next try has been made."""
    await timed.fake_clock.next_sleep()
    timed.fake_clock.advance(5)
    timed.fake_clock.advance(5)
    status = (await timed.provider.pod_status(key)).containers[0]
    if isinstance(status.state, Waiting) and status.state.reason == "ErrImagePull":
        await timed.waiting(key, "ImagePullBackOff")
        timed.fake_clock.advance(await timed.fake_clock.next_sleep())
    assert (await timed.ended(key)).exit_code == 0


async def test_a_truncated_module(timed: Runtime, driver: Path, tmp_path: Path) -> None:
    whole = content_of(driver)
    path = tmp_path / "guest.wasm"
    for size in (8 + 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        key = await timed.create(pod_of("print", "x", name=f"cut-{size}", image=f"file://{path}"))
        waiting = await timed.waiting(key, "CreateContainerError")
        assert "not a valid WebAssembly module" in waiting.message


async def test_back_off_of_pulling(timed: Runtime, tmp_path: Path) -> None:
    image = f"file://{tmp_path}/none.wasm"
    key = await timed.create(pod_of(image=image))
    waiting = await timed.waiting(key, "ErrImagePull")
    assert waiting.message == (answer := answer_to(image))
    clock = timed.fake_clock
    for pause in (10, 20, 40, 80, 160, 300, 300):
        await timed.waiting(key, "ErrImagePull")
        assert await clock.next_sleep() == 5
        clock.advance(5)
        waiting = await timed.waiting(key, "ImagePullBackOff")
        assert waiting.message.startswith(f'Back-off pulling image "{image}": ErrImagePull: image ')
        assert await clock.next_sleep() == pause - 5
        clock.advance(pause - 5)
    told = [(event.type, event.reason, event.message) for event in timed.events[:5]]
    assert told == [
        ("Normal", "Pulling", f'Pulling image "{image}"'),
        ("Warning", "Failed", f'Failed to pull image "{image}": {answer}'),
        ("Warning", "Failed", "Error: ErrImagePull"),
        ("Normal", "BackOff", f'Back-off pulling image "{image}"'),
        ("Warning", "Failed", "Error: ImagePullBackOff"),
    ]


@pytest.mark.parametrize(
    ("image", "reason", "message"),
    [
        ("registry.example/team/App:v1", "InvalidImageName", "the repository has to be small letters"),
        ("app:v1:v2", "InvalidImageName", "expected [REGISTRY"),
        (
            "https://example.com/x.wasm",
            "InvalidImageName",
            "leave out https://; expected REGISTRY/REPOSITORY:TAG or file:///",
        ),
        ("file://relative/x.wasm", "InvalidImageName", "names no absolute path"),
        ("file://./x.wasm", "InvalidImageName", "names no absolute path"),
        ("file://", "InvalidImageName", "is not a file's URL"),
        ("file:///x.wasm?y=1", "InvalidImageName", "is not a file's URL"),
        ("file:///x%00.wasm", "InvalidImageName", "is not a file's URL"),
    ],
)
async def test_images_that_are_none(timed: Runtime, image: str, reason: str, message: str) -> None:
    pod = pod_of(image=image)
    pod.raw["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    key = await timed.create(pod)
    waiting = await timed.waiting(key, reason)
    assert message in waiting.message
    assert image in waiting.message
    assert "Pulling" not in {event.reason for event in timed.events}
    await timed.provider.delete_pod(key, 30)  # also while it backs off


async def test_compiling_has_a_time_limit(tmp_path: Path, driver: Path) -> None:
    config = RuntimeConfig(allow_local_modules=True, compile_timeout=0.01)
    runtime = Runtime(WasmtimeProvider, tmp_path / "state", config)
    runtime.clock = FakeClock()
    async with runtime:
        key = await runtime.create(pod_of("print", "x", image=f"file://{driver}"))
        waiting = await runtime.waiting(key, "CreateContainerError")
        assert waiting.message == (
            f"compiling module file://{driver} took longer than the 0.01 s allowed; --compile-timeout sets it"
        )
        assert not list((tmp_path / "state").rglob("*.part"))


async def test_a_damaged_artifact_is_compiled_again(timed: Runtime, image: str) -> None:
    key = await timed.create(pod_of("print", "x", image=image))
    await timed.ended(key)
    (artifact,) = (timed.state_dir / "runtime" / "images" / "compiled").iterdir()
    whole = artifact.read_bytes()
    artifact.write_bytes(whole[: len(whole) // 2])
    key = await timed.create(pod_of("print", "y", name="next", image=image))
    assert (await timed.ended(key)).exit_code == 0
    assert await timed.log(key) == b"y\n"
    assert artifact.read_bytes() == whole


async def test_an_artifact_that_the_engine_cannot_load_is_compiled_again(timed: Runtime, image: str) -> None:
    key = await timed.create(pod_of("print", "x", image=image))
    await timed.ended(key)
    (artifact,) = (timed.state_dir / "runtime" / "images" / "compiled").iterdir()
    half = artifact.read_bytes()[:-100_000]
    artifact.unlink()
    form, _, _ = artifact.name.rpartition("-")
    artifact.with_name(f"{form}-{hashlib.sha256(half).hexdigest()}").write_bytes(half)
    key = await timed.create(pod_of("print", "y", name="next", image=image, restart="OnFailure"))
    status = await timed.main(key, lambda s: s.restart_count == 1 and s.state.__class__.__name__ == "Terminated")
    assert status.last_state is not None
    assert status.last_state.reason == "StartError"
    assert "cannot be loaded" in status.last_state.message
    assert await timed.log(key) == b"y\n"


async def test_an_artifact_that_others_may_write_is_compiled_again(timed: Runtime, image: str) -> None:
    key = await timed.create(pod_of("print", "x", image=image))
    await timed.ended(key)
    (artifact,) = (timed.state_dir / "runtime" / "images" / "compiled").iterdir()
    before = artifact.stat().st_ino
    artifact.chmod(0o666)
    key = await timed.create(pod_of("print", "x", name="next", image=image))
    assert (await timed.ended(key)).exit_code == 0
    assert artifact.stat().st_ino != before
    assert artifact.stat().st_mode & 0o777 == 0o644


async def test_a_module_is_compiled_once(runtime: Runtime, image: str) -> None:
    keys = [await runtime.create(pod_of("print", "x", name=f"pod-{n}", image=image)) for n in range(10)]
    for key in keys:
        assert (await runtime.ended(key)).exit_code == 0
    assert len(list((runtime.state_dir / "runtime" / "images" / "compiled").iterdir())) == 1


ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1000},
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "schedulerName": "default-scheduler",
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
            "hostNetwork": False,
            "volumes": [],
            "tolerations": [{"operator": "Exists"}],
        },
        {
            "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "stdin": True,
            "stdinOnce": True,
            "tty": True,
        },
    ),
]

REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("spec.containers[0].readinessProbe.httpGet", {}, {"readinessProbe": {"httpGet": {"port": 80}}}),
    ("spec.containers[0].startupProbe.tcpSocket", {}, {"startupProbe": {"tcpSocket": {"port": 80}}}),
    ("spec.containers[0].volumeDevices", {}, {"volumeDevices": [{"name": "x", "devicePath": "/x"}]}),
    ("spec.containers[0].workingDir", {}, {"workingDir": "/x"}),
    ("spec.containers[0].unheardOf", {}, {"unheardOf": 1}),
    ("spec.containers[0].securityContext.privileged", {}, {"securityContext": {"privileged": True}}),
    ("spec.containers[0].securityContext.runAsUser", {}, {"securityContext": {"runAsUser": 0}}),
    ("spec.containers[0].securityContext.capabilities", {}, {"securityContext": {"capabilities": {"add": ["X"]}}}),
    ("spec.containers[0].securityContext.seLinuxOptions", {}, {"securityContext": {"seLinuxOptions": {"type": "x"}}}),
    ("spec.securityContext.sysctls", {"securityContext": {"sysctls": [{"name": "x", "value": "1"}]}}, {}),
    ("spec.hostNetwork", {"hostNetwork": True}, {}),
    ("spec.containers[0].ports", {}, {"ports": [{"containerPort": 80, "hostPort": 80}]}),
    ("spec.unheardOf", {"unheardOf": {"x": 1}}, {}),
]


@pytest.mark.parametrize(("spec", "container"), ACCEPTED)
async def test_accepted_manifests(
    runtime: Runtime, image: str, spec: dict[str, Any], container: dict[str, Any]
) -> None:
    key = await runtime.create(pod_of("print", "x", image=image, spec=spec, **container))
    assert (await runtime.ended(key)).exit_code == 0


@pytest.mark.parametrize(("field", "spec", "container"), REFUSED)
def test_refused_manifests(field: str, spec: dict[str, Any], container: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refusal:
        manifest.check(pod_of(image="file:///x", spec=spec, **container))
    assert refusal.value.field == field
    assert refusal.value.reason == "CreateContainerConfigError"
    assert str(refusal.value).startswith(f"{field}: ")


async def test_a_refused_pod_is_not_kept(runtime: Runtime, image: str) -> None:
    pod = pod_of(image=image, volumeDevices=[{"name": "disk", "devicePath": "/dev/disk"}])
    with pytest.raises(Refused):
        await runtime.provider.create_pod(pod, Inputs())
    assert await runtime.provider.list_pods() == []
