"""Volumes as a guest sees them: what is in them, what may be written, how they follow their inputs, when they go."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.harness import PATIENCE, Runtime, pod_of, removed
from wasmlet.errors import WasmletError
from wasmlet.model.inputs import Inputs, TokenKey
from wasmlet.model.pod import Pod
from wasmlet.model.status import Running, Waiting
from wasmlet.runtime import RuntimeConfig


def mounts(path: str = "/v", name: str = "v", **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "mountPath": path, **more}]


def with_volume(*args: str, image: str, source: dict[str, Any], spec: dict[str, Any] | None = None, **more: Any) -> Pod:
    """A pod that mounts one volume of this source at /v."""
    more.setdefault("volumeMounts", mounts())
    return pod_of(*args, image=image, spec={"volumes": [{"name": "v", **source}], **(spec or {})}, **more)


def settings(**data: str) -> Inputs:
    return Inputs(config_maps={"settings": {"metadata": {"name": "settings"}, "data": data}})


CONFIG = {"configMap": {"name": "settings"}}


def pod_directory(runtime: Runtime, uid: str = "uid-of-web") -> Path:
    return runtime.state_dir / "runtime" / "pods" / uid


def memory_directory(runtime: Runtime, uid: str = "uid-of-web") -> Path:
    return Path(os.readlink(runtime.state_dir / "runtime" / "memory")) / "pods" / uid


async def test_a_config_map(runtime: Runtime, image: str) -> None:
    script = ("cat", "/v/a", "ls", "/v", "put", "/v/a", "x", "put", "/v/new", "x", "unlink", "/v/a", "mkdir", "/v/d")
    pod = with_volume(*script, "sleep", "1000", image=image, source=CONFIG)
    key = await runtime.create(pod, settings(a="one\n", b="two"))
    assert await runtime.logged(key, b"mkdir /v/d: Operation not permitted\n") == (
        b"one\n"
        + b" ".join(sorted(name.encode() for name in os.listdir(_volume(runtime, "configmap"))))
        + b"\nput /v/a: Operation not permitted\nput /v/new: Operation not permitted\n"
        b"unlink /v/a: Operation not permitted\nmkdir /v/d: Operation not permitted\n"
    )
    volume = _volume(runtime, "configmap")
    assert os.readlink(volume / "a") == "..data/a"
    assert stat.S_IMODE((volume / "a").stat().st_mode) == 0o644
    assert stat.S_IMODE(pod_directory(runtime).stat().st_mode) == 0o700


def _volume(runtime: Runtime, plugin: str, name: str = "v") -> Path:
    return pod_directory(runtime) / "volumes" / f"kubernetes.io~{plugin}" / name


async def test_a_running_guest_sees_a_config_map_change(runtime: Runtime, image: str) -> None:
    script = ("cat", "/v/a", "await", "/v/a", "two", "ls", "/v", "cat", "/v/b", "sleep", "1000")
    pod = with_volume(*script, image=image, source=CONFIG)
    key = await runtime.create(pod, settings(a="one\n", gone="x"))
    await runtime.logged(key, b"one\n")
    volume = _volume(runtime, "configmap")
    before = os.readlink(volume / "..data")
    await runtime.provider.update_pod(pod, settings(a="two\n", b="B\n"))
    listed = (await runtime.logged(key, b"B\n")).splitlines()[-2].split()
    assert {b"a", b"b"} <= set(listed)
    async with asyncio.timeout(PATIENCE):
        while "gone" in await asyncio.to_thread(os.listdir, volume):  # it goes after the rest has come
            pass
    after = os.readlink(volume / "..data")
    assert after != before
    assert sorted(os.listdir(volume)) == sorted(["..data", after, "a", "b"])
    # What is the same is not written again.
    await runtime.provider.update_pod(pod, settings(a="two\n", b="B\n"))
    assert os.readlink(volume / "..data") == after


async def test_a_missing_config_map_is_waited_for(timed: Runtime, image: str) -> None:
    pod = with_volume("cat", "/v/a", image=image, source=CONFIG)
    key = await timed.create(pod)
    event = await timed.event(key, "FailedMount")
    assert event.type == "Warning"
    assert event.message == 'MountVolume.SetUp failed for volume "v" : configmap "settings" not found'
    status = await timed.provider.pod_status(key)
    assert status.containers[0].state == Waiting("ContainerCreating")
    for pause in (0.5, 1.0, 2.0):
        assert await timed.fake_clock.next_sleep() == pause
        timed.fake_clock.advance(pause)
    await timed.fake_clock.next_sleep()
    await timed.provider.update_pod(pod, settings(a="there\n"))
    assert await timed.output(key) == b"there\n"


async def test_a_missing_optional_config_map_is_an_empty_directory(runtime: Runtime, image: str) -> None:
    source = {"configMap": {"name": "settings", "optional": True}}
    pod = with_volume("stat", "/v", "await", "/v/a", "late", "print", "seen", image=image, source=source)
    key = await runtime.create(pod)
    await runtime.logged(key, b"stat /v: directory\n")
    await runtime.provider.update_pod(pod, settings(a="late"))
    assert (await runtime.output(key)).endswith(b"seen\n")


async def test_a_volume_that_nobody_mounts_is_not_made(runtime: Runtime, image: str) -> None:
    key = await runtime.create(with_volume("print", "x", image=image, source=CONFIG, volumeMounts=[]))
    assert await runtime.output(key) == b"x\n"


async def test_secrets_are_in_memory_and_leave_nothing(runtime: Runtime, image: str) -> None:
    source = {"secret": {"secretName": "s", "defaultMode": 0o400}}
    inputs = Inputs(secrets={"s": {"metadata": {"name": "s"}, "data": {"key": "aHVzaAo="}}})
    key = await runtime.create(with_volume("cat", "/v/key", "sleep", "1000", image=image, source=source), inputs)
    await runtime.logged(key, b"hush\n")
    volume = memory_directory(runtime) / "volumes" / "kubernetes.io~secret" / "v"
    assert stat.S_IMODE((volume / "key").stat().st_mode) == 0o400
    base = memory_directory(runtime).parents[1]
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    assert base.parent == Path("/dev/shm")
    on_disk = [path for path in (runtime.state_dir / "runtime").rglob("*") if path.is_file()]
    assert not [path for path in on_disk if b"hush" in path.read_bytes() and path.suffix != ".log"]
    await runtime.provider.delete_pod(key, 0)
    assert not memory_directory(runtime).exists()
    await removed(pod_directory(runtime))
    await runtime.stop()
    assert not base.exists()
    await runtime.start()


async def test_no_secret_stays_in_memory_while_nothing_runs(runtime: Runtime, image: str) -> None:
    inputs = Inputs(secrets={"s": {"metadata": {"name": "s"}, "data": {"key": "aHVzaAo="}}})
    pod = with_volume("cat", "/v/key", image=image, source={"secret": {"secretName": "s"}})
    key = await runtime.create(pod, inputs)
    await runtime.ended(key)
    base = memory_directory(runtime).parents[1]
    await runtime.stop()
    assert not base.exists()
    await runtime.start()
    await runtime.create(pod, inputs)
    assert await runtime.output(key) == b"hush\n"


async def test_the_token_that_admission_mounts(runtime: Runtime, image: str) -> None:
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    path = "/var/run/secrets/kubernetes.io/serviceaccount"
    pod = with_volume(
        "cat", f"{path}/token", "cat", f"{path}/namespace", "cat", f"{path}/ca.crt", "await", f"{path}/token", "second",
        "print", "refreshed",
        image=image,
        source={"projected": {"defaultMode": 0o644, "sources": sources}},
        volumeMounts=mounts(path, readOnly=True),
    )  # fmt: skip
    config_maps = {"kube-root-ca.crt": {"data": {"ca.crt": "CERT\n"}}}
    key = await runtime.create(pod, Inputs(config_maps, tokens={TokenKey("", 3607): "first\n"}))
    await runtime.logged(key, b"first\ndefaultCERT\n")
    await runtime.provider.update_pod(pod, Inputs(config_maps, tokens={TokenKey("", 3607): "second\n"}))
    assert await runtime.output(key) == b"first\ndefaultCERT\nrefreshed\n"


async def test_labels_follow_the_pod(runtime: Runtime, image: str) -> None:
    source = {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    script = ("cat", "/v/labels", "print", "", "await", "/v/labels", 'app="b"', "print", "seen")
    pod = with_volume(*script, image=image, source=source)
    raw = dict(pod.raw)
    first = Pod({**raw, "metadata": {**raw["metadata"], "labels": {"app": "a"}}})
    key = await runtime.create(first)
    await runtime.logged(key, b'app="a"')
    await runtime.provider.update_pod(Pod({**raw, "metadata": {**raw["metadata"], "labels": {"app": "b"}}}), Inputs())
    assert await runtime.output(key) == b'app="a"\nseen\n'


async def test_an_empty_dir_is_shared_and_survives_restarts(runtime: Runtime, image: str) -> None:
    write = ["append", "/v/log", "x", "await", "/v/go", "", "exit", "1"]
    read = ["await", "/v/log", "xx", "stat", "/v/log", "sleep", "1000"]
    containers = [
        {"name": "main", "image": image, "args": write, "volumeMounts": mounts()},
        {"name": "other", "image": image, "args": read, "volumeMounts": mounts()},
    ]
    spec = {"containers": containers, "volumes": [{"name": "v", "emptyDir": {}}]}
    key = await runtime.create(pod_of(spec=spec, restart="OnFailure"))
    await runtime.logged(key, b"append /v/log: ok\n")
    volume = _volume(runtime, "empty-dir")
    (volume / "go").touch()
    await runtime.logged(key, b"stat /v/log: file of", "other")
    assert (volume / "log").read_text().startswith("xx")
    await runtime.provider.delete_pod(key, 0)
    await removed(pod_directory(runtime))


async def test_read_only_mounts_of_a_volume_that_another_container_writes(runtime: Runtime, image: str) -> None:
    containers = [
        {"name": "main", "image": image, "args": ["put", "/v/a", "hello"], "volumeMounts": mounts()},
        {
            "name": "reader",
            "image": image,
            "args": ["await", "/v/a", "hello", "put", "/v/a", "x", "unlink", "/v/a", "rename", "/v/a", "/v/b"],
            "volumeMounts": mounts(readOnly=True, recursiveReadOnly="Enabled"),
        },
    ]
    key = await runtime.create(pod_of(spec={"containers": containers, "volumes": [{"name": "v", "emptyDir": {}}]}))
    assert await runtime.output(key, "reader") == (
        b"put /v/a: Operation not permitted\nunlink /v/a: Operation not permitted\n"
        b"rename /v/a: Operation not permitted\n"
    )


async def test_an_empty_dir_in_memory(runtime: Runtime, image: str) -> None:
    source = {"emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}}
    pod = with_volume("fill", "/v/x", "32", "fill", "/v/y", "64", "sleep", "1000", image=image, source=source)
    key = await runtime.create(pod)
    output = await runtime.logged(key, b"fill /v/y: ")
    volume = _volume(runtime, "empty-dir")
    if os.geteuid() == 0 and volume.is_mount():
        assert output == b"fill /v/x: ok\nfill /v/y: No space left on device\n"
    else:
        assert (memory_directory(runtime) / "volumes" / "kubernetes.io~empty-dir" / "v" / "x").exists()
    await runtime.restart()
    await runtime.create(pod)
    assert isinstance((await runtime.running(key)).state, Running)
    await runtime.provider.delete_pod(key, 0)
    assert not volume.exists()
    assert str(volume) not in await asyncio.to_thread(Path("/proc/self/mountinfo").read_text)


async def test_a_pod_that_is_done_keeps_no_volumes(runtime: Runtime, image: str) -> None:
    """What it said can still be read: its log, its message."""
    spec = {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}, {"name": "c", **CONFIG}]}
    at = [*mounts(), *mounts("/c", "c")]
    script = ("put", "/v/x", "1", "put", "/dev/termination-log", "bye")
    key = await runtime.create(pod_of(*script, image=image, spec=spec, volumeMounts=at), settings(a="one"))
    assert (await runtime.ended(key)).message == "bye"
    task = runtime.provider._pods[key.uid]._task
    assert task is not None
    await asyncio.wait([task])
    await removed(pod_directory(runtime))
    assert str(pod_directory(runtime)) not in await asyncio.to_thread(Path("/proc/self/mountinfo").read_text)
    assert (await runtime.log(key)).count(b"ok") == 2
    await runtime.restart()
    assert (await runtime.ended(key)).message == "bye"


async def test_a_volume_goes_with_a_deep_tree_in_it(runtime: Runtime, image: str) -> None:
    pod = with_volume("deep", "/v", "3000", "sleep", "1000", image=image, source={"emptyDir": {}})
    key = await runtime.create(pod)
    await runtime.logged(key, b"deep /v: ok\n")
    await runtime.provider.delete_pod(key, 0)
    await removed(pod_directory(runtime))


async def test_files_of_pods_that_are_no_more_are_removed_at_start(runtime: Runtime, image: str) -> None:
    pod = with_volume("put", "/v/a", "kept", "sleep", "1000", image=image, source={"emptyDir": {}})
    key = await runtime.create(pod)
    await runtime.logged(key, b"ok\n")
    orphan = pod_directory(runtime, "orphan") / "volumes" / "kubernetes.io~empty-dir" / "v"
    orphan.mkdir(parents=True)
    (orphan / "link").symlink_to(runtime.state_dir)
    await runtime.restart()
    assert not pod_directory(runtime, "orphan").exists()
    assert (_volume(runtime, "empty-dir") / "a").read_text() == "kept"
    await runtime.create(pod)
    assert isinstance((await runtime.running(key)).state, Running)


async def test_a_change_while_the_node_loop_was_away(runtime: Runtime, image: str) -> None:
    pod = with_volume("await", "/v/a", "two", "print", "seen", image=image, source=CONFIG)
    key = await runtime.create(pod, settings(a="one"))
    await runtime.running(key)
    await runtime.restart()
    await runtime.create(pod, settings(a="two"))
    assert await runtime.output(key) == b"seen\n"


async def test_containers_go_on_where_a_config_map_was_deleted(runtime: Runtime, image: str) -> None:
    pod = with_volume("cat", "/v/a", "await", "/v/never", "x", image=image, source=CONFIG)
    key = await runtime.create(pod, settings(a="one\n"))
    await runtime.logged(key, b"one\n")
    await runtime.restart()
    await runtime.create(pod, Inputs())
    await runtime.event(key, "FailedMount", 'configmap "settings" not found')
    assert isinstance((await runtime.running(key)).state, Running)
    await runtime.provider.delete_pod(key, 0)


@pytest.mark.needs_root("only root gives files to a group of its own")
async def test_fs_group(runtime: Runtime, image: str) -> None:
    spec = {
        "securityContext": {"fsGroup": 12345},
        "volumes": [
            {"name": "v", "configMap": {"name": "settings", "defaultMode": 0o600}},
            {"name": "e", "emptyDir": {}},
        ],
    }
    key = await runtime.create(
        pod_of("cat", "/v/a", "sleep", "1000", image=image, spec=spec, volumeMounts=mounts() + mounts("/e", "e")),
        settings(a="one\n"),
    )
    assert await runtime.logged(key, b"one\n") == b"one\n"
    found = (_volume(runtime, "configmap") / "a").stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 0o640)
    found = _volume(runtime, "empty-dir", "e").stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 0o2777)


class Claiming(WasmtimeProvider):
    """Has one claim, once it is told where it is."""

    where: Path | None = None

    async def claim_directory(self, pod: Pod, claim: str) -> Path:
        if self.where is None:
            raise WasmletError(f"claim {pod.namespace}/{claim} is not bound yet")
        return self.where


async def test_claims(tmp_path: Path, image: str) -> None:
    async with Runtime(Claiming, tmp_path / "state") as runtime:
        pod = with_volume("put", "/v/a", "kept", image=image, source={"persistentVolumeClaim": {"claimName": "c"}})
        key = await runtime.create(pod)
        await runtime.event(key, "FailedMount", "claim default/c is not bound yet")
        assert isinstance(runtime.provider, Claiming)
        runtime.provider.where = tmp_path / "claim"
        runtime.provider.where.mkdir()
        await runtime.provider.update_pod(pod, Inputs())
        assert await runtime.output(key) == b"put /v/a: ok\n"
        await runtime.provider.delete_pod(key, 0)
        assert (tmp_path / "claim" / "a").read_text() == "kept"
        read_only = {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}
        key = await runtime.create(with_volume("put", "/v/a", "x", image=image, name="next", source=read_only))
        assert await runtime.output(key) == b"put /v/a: Operation not permitted\n"


async def test_host_paths(tmp_path: Path, image: str) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "file").write_text("of the node\n")
    (allowed / "out").symlink_to("/etc")
    (allowed / "in").symlink_to(allowed / "made")
    config = RuntimeConfig(allow_local_modules=True, allow_host_path=(str(allowed),))
    runtime = Runtime(WasmtimeProvider, tmp_path / "state", config)

    def pod(path: str, kind: str, *args: str, **more: Any) -> Pod:
        name = f"p{len(runtime.provider._pods)}"
        return with_volume(*args, image=image, name=name, source={"hostPath": {"path": path, "type": kind}}, **more)

    async with runtime:
        key = await runtime.create(pod(f"{allowed}/made/deep", "DirectoryOrCreate", "put", "/v/a", "x"))
        assert await runtime.output(key) == b"put /v/a: ok\n"
        assert (allowed / "made" / "deep" / "a").read_text() == "x"
        key = await runtime.create(pod(f"{allowed}/in/deep", "Directory", "cat", "/v/a", "print", ""))
        assert await runtime.output(key) == b"x\n"
        at = {"volumeMounts": mounts("/opt/one.txt")}
        key = await runtime.create(pod(f"{allowed}/file", "File", "cat", "/opt/one.txt", "ls", "/opt", **at))
        assert await runtime.output(key) == b"of the node\none.txt\n"
        key = await runtime.create(pod(f"{allowed}/new", "FileOrCreate", "put", "/opt/one.txt", "from a guest", **at))
        assert await runtime.output(key) == b"put /opt/one.txt: ok\n"
        assert (allowed / "new").read_text() == "from a guest"
        for path, kind, why in (
            (f"{allowed}/none", "Directory", f"hostPath type check failed: {allowed}/none is not a directory"),
            (f"{allowed}/none", "File", "hostPath type check failed"),
            (f"{allowed}/file", "Directory", f"hostPath type check failed: {allowed}/file is not a directory"),
            (f"{allowed}/made", "File", f"hostPath type check failed: {allowed}/made is not a file"),
            (f"{allowed}/out", "", "does not lead below a path that this node allows"),
            (f"{allowed}/out/passwd", "File", "does not lead below a path that this node allows"),
            (f"{allowed}/out/made", "DirectoryOrCreate", "Invalid cross-device link"),
            ("/etc", "", "does not lead below a path that this node allows"),
            ("/nowhere", "DirectoryOrCreate", "does not lead below a path that this node allows"),
            (f"{allowed}2", "DirectoryOrCreate", "does not lead below a path that this node allows"),
        ):
            key = await runtime.create(pod(path, kind, "print", "x"))
            event = await runtime.event(key, "FailedMount")
            assert event.message.startswith('MountVolume.SetUp failed for volume "v" : ')
            assert why in event.message, (path, kind)
            await runtime.provider.delete_pod(key, 0)
            runtime.events.clear()
        assert not await asyncio.to_thread(os.path.lexists, "/nowhere")
        assert not await asyncio.to_thread(os.path.lexists, "/etc/made")
