"""Mounts as a guest sees them: paths in volumes, single files, mounts in mounts, and what is staged for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.guest import SLEEPER, image_of
from tests.runtime.files.test_refused_mounts import EMPTY
from tests.runtime.files.test_volumes import CONFIG, memory_directory, mounts, pod_directory, settings, with_volume
from tests.runtime.harness import Runtime, pod_of, removed
from tests.shared.descriptors import open_descriptors
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod
from wasmlet.model.status import ContainerStatus, Running, Waiting
from wasmlet.runtime.files import mounts as mounts_module
from wasmlet.runtime.files import storage as storage_module
from wasmlet.runtime.files import volumes as volumes_module
from wasmlet.runtime.files.mounts import MountRequest, mounted
from wasmlet.runtime.shim.client import ShimClient


async def test_sub_paths(runtime: Runtime, image: str) -> None:
    volume_mounts = [*mounts("/all"), *mounts("/one", subPath="a/b"), *mounts("/two", subPathExpr="$(NAME)-$(KIND)")]
    script = ("put", "/one/x", "1", "put", "/two/y", "2", "cat", "/all/a/b/x", "cat", "/all/web-test/y", "print", "")
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "KIND", "value": "test"},
    ]
    pod = with_volume(*script, image=image, source=EMPTY, volumeMounts=volume_mounts, env=env)
    key = await runtime.create(pod)
    assert await runtime.output(key) == b"put /one/x: ok\nput /two/y: ok\n12\n"


async def test_a_sub_path_recovers_with_the_annotation_that_it_comes_from(timed: Runtime, image: str) -> None:
    env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['path']"}}}]
    pod = with_volume("ls", "/all", image=image, source=EMPTY, env=env,
                      volumeMounts=[*mounts(subPathExpr="$(A)/x"), *mounts("/all")])  # fmt: skip
    key = await timed.create(pod)
    assert "must not be an absolute path" in (await timed.waiting(key, "CreateContainerConfigError")).message
    metadata = {**pod.metadata, "annotations": {"path": "mended"}}
    await timed.provider.update_pod(Pod({**pod.raw, "metadata": metadata}), Inputs())
    assert await timed.output(key) == b"mended\n"


async def test_a_sub_path_does_not_follow_its_config_map_until_a_restart(timed: Runtime, image: str) -> None:
    script = ("cat", "/opt/app/conf", "put", "/opt/app/conf", "x", "ls", "/opt/app", "await", "/v/a", "two",
              "cat", "/opt/app/conf", "exit", "1")  # fmt: skip
    volume_mounts = [*mounts("/opt/app/conf", subPath="a"), *mounts("/v")]
    pod = with_volume(*script, image=image, source=CONFIG, volumeMounts=volume_mounts, restart="OnFailure")
    key = await timed.create(pod, settings(a="one\n"))
    await timed.logged(key, b"\nconf\n")
    await timed.provider.update_pod(pod, settings(a="two\n"))
    await timed.main(key, lambda status: status.restart_count >= 1 and status.container_id != "")
    refused = b"put /opt/app/conf: Operation not permitted\nconf\n"
    await timed.logged(key, b"two\n" + refused + b"two\n")
    # The second instance ends at once. The third waits for the clock, so there is one instance before the present one.
    (earlier,) = timed.provider.earlier_logs(key, "main")
    first = b"".join([piece async for piece in earlier]).splitlines(keepends=True)
    assert b"".join(line.partition(b" ")[2] for line in first) == b"one\n" + refused + b"one\n"


async def test_a_single_file_that_two_containers_write(runtime: Runtime, image: str) -> None:
    read, write = ["await", "/v/f", "hello", "cat", "/v/f"], ["put", "/data/one.txt", "hello\n"]
    containers = [
        {"name": "main", "image": image, "args": read, "volumeMounts": mounts()},
        {"name": "other", "image": image, "args": write, "volumeMounts": mounts("/data/one.txt", subPath="f")},
    ]
    init = [{"name": "init", "image": image, "args": ["put", "/v/f", ""], "volumeMounts": mounts()}]
    spec = {"containers": containers, "initContainers": init, "volumes": [{"name": "v", **EMPTY}]}
    key = await runtime.create(pod_of(spec=spec))
    assert await runtime.output(key) == b"hello\n"
    assert await runtime.output(key, "other") == b"put /data/one.txt: ok\n"


async def test_mounts_in_mounts(runtime: Runtime, image: str) -> None:
    volume_mounts = [*mounts("/a"), *mounts("/a/b", "c"), *mounts("/a/b/deep", "w")]
    script = ("put", "/a/x", "1", "cat", "/a/b/a", "put", "/a/b/a", "2", "put", "/a/b/deep/y", "3", "cat", "/a/../a/x")
    spec = {"volumes": [{"name": "v", **EMPTY}, {"name": "c", **CONFIG}, {"name": "w", **EMPTY}]}
    key = await runtime.create(
        pod_of(*script, image=image, spec=spec, volumeMounts=volume_mounts), settings(a="config\n")
    )
    assert await runtime.output(key) == (
        b"put /a/x: ok\nconfig\nput /a/b/a: Operation not permitted\nput /a/b/deep/y: ok\n"
        b"cat /a/../a/x: Operation not permitted\n"
    )


async def test_a_volume_at_the_root(runtime: Runtime, image: str) -> None:
    pod = with_volume(
        "put", "/x", "1", "ls", "/", "mkdir", "/dev", "put", "/dev/termination-log", "said", "exit", "1",
        image=image, source=EMPTY, volumeMounts=mounts("/"),
    )  # fmt: skip
    key = await runtime.create(pod)
    assert (await runtime.ended(key)).message == "said"
    assert await runtime.log(key) == b"put /x: ok\nx\nmkdir /dev: ok\nput /dev/termination-log: ok\n"


async def test_a_guest_without_volumes_sees_only_the_kubelets_files(runtime: Runtime, image: str) -> None:
    key = await runtime.create(
        pod_of("ls", "/", "ls", "/etc", "ls", "/dev", "cat", "/etc/passwd", "put", "/etc/hosts", "", "cat",
               "/proc/mounts", "cat", "/dev/../etc/hosts", "symlink", "/etc/shadow", "/dev/s", "symlink", "../" * 8,
               "/dev/t", "cat", "/dev/t", "mkdir", "/dev/d", image=image)
    )  # fmt: skip
    assert await runtime.output(key) == (
        b"ls /: No such file or directory\nhostname hosts resolv.conf\ntermination-log\n"
        b"cat /etc/passwd: No such file or directory\nput /etc/hosts: Operation not permitted\n"
        b"cat /proc/mounts: No such file or directory\ncat /dev/../etc/hosts: Operation not permitted\n"
        b"symlink /dev/s: Operation not permitted\nsymlink /dev/t: ok\ncat /dev/t: Operation not permitted\n"
        b"mkdir /dev/d: ok\n"
    )


async def test_hosts_and_host_name(runtime: Runtime, image: str) -> None:
    aliases = [{"ip": "10.0.0.9", "hostnames": ["db", "db.local"]}]
    options = [{"name": "ndots", "value": "2"}]
    dns = {"nameservers": ["10.0.0.10"], "searches": ["x.test"], "options": options}
    spec = {"hostAliases": aliases, "hostname": "front", "subdomain": "web", "dnsPolicy": "None", "dnsConfig": dns}
    pod = pod_of("cat", "/etc/hosts", "cat", "/etc/hostname", "cat", "/etc/resolv.conf", image=image, spec=spec)
    key = await runtime.create(pod, Inputs(node_ips=["192.0.2.7"]))
    output = (await runtime.output(key)).decode()
    assert output.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "192.0.2.7\tfront.web.default.svc.cluster.local\tfront\n" in output
    assert output.endswith(
        "# Entries added by HostAliases.\n10.0.0.9\tdb\tdb.local\nfront\n"
        "nameserver 10.0.0.10\nsearch x.test\noptions ndots:2\n"
    )


async def test_a_mount_at_etc_takes_the_place_of_the_kubelets_files(runtime: Runtime, image: str) -> None:
    pod = with_volume("ls", "/etc/app", "cat", "/etc/app/a", "ls", "/etc", image=image, source=CONFIG,
                      volumeMounts=mounts("/etc/app"))  # fmt: skip
    key = await runtime.create(pod, settings(a="one\n"))
    assert (await runtime.output(key)).endswith(b" a\none\napp hostname hosts resolv.conf\n")
    pod = with_volume("cat", "/etc/hosts", "put", "/etc/hosts", "mine", name="own", image=image, source=EMPTY,
                      volumeMounts=mounts("/etc"))  # fmt: skip
    key = await runtime.create(pod)
    assert await runtime.output(key) == b"cat /etc/hosts: No such file or directory\nput /etc/hosts: ok\n"


async def test_no_descriptor_is_left(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("put", "/dev/termination-log", "so far", "sleep", "1000", image=image))
    await runtime.logged(key, b": ok\n")
    life = runtime.provider._pods[key.uid]
    before = open_descriptors()
    async with mounted(
        MountRequest(life.manifest, life.manifest.containers[0], life.inputs, {}, 1), life.volumes
    ) as opened:
        assert {mount.path: mount.read_only for mount in opened.entries} == {"/etc": True, "/dev": False}
        assert open_descriptors() <= before + 2
    assert open_descriptors() <= before
    assert isinstance((await runtime.running(key)).state, Running)


def backs_off(status: ContainerStatus) -> bool:
    return isinstance(status.state, Waiting) and status.state.reason == "CrashLoopBackOff"


async def test_staged_files_of_earlier_instances_go(runtime: Runtime, image: str) -> None:
    left = pod_of("put", "/dev/more", "x", "exit", "1", image=image, restart="OnFailure")
    key = await runtime.create(left)
    await runtime.main(key, lambda status: status.restart_count == 1 and backs_off(status))
    # The shim removes a directory with the termination message and nothing else. This one has another file.
    assert os.listdir(pod_directory(runtime)) == ["main.1-1.shim"]
    assert os.listdir(memory_directory(runtime)) == ["main.1-2"]
    await runtime.provider.delete_pod(key, 0)
    await removed(pod_directory(runtime))
    assert not memory_directory(runtime).exists()


async def test_what_was_staged_on_disk_goes_with_its_instance(runtime: Runtime, image: str) -> None:
    key = await runtime.create(pod_of("put", "/dev/termination-log", "x", "exit", "1", image=image, restart="Always"))
    await runtime.main(key, lambda status: status.restart_count == 1 and backs_off(status))
    await removed(pod_directory(runtime))
    assert os.listdir(memory_directory(runtime)) == ["main.1-2"]


async def test_a_pod_with_nothing_but_the_kubelets_files_takes_no_thread_for_them(
    runtime: Runtime, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"secret": {"secretName": "s"}}
    inputs = Inputs(secrets={"s": {"metadata": {"name": "s"}, "data": {"key": "aHVzaAo="}}})
    handed = list[str]()
    for module in (mounts_module, storage_module, volumes_module):
        in_thread = module.in_thread

        async def counted(
            work: Callable[..., Any],
            *args: Any,
            in_thread: Any = in_thread,
            name: str = module.__name__,
            **more: Any,
        ) -> Any:
            handed.append(name)
            return await in_thread(work, *args, **more)

        monkeypatch.setattr(module, "in_thread", counted)
    for number in range(3):
        handed.clear()
        pod = with_volume("cat", "/v/key", "cat", "/etc/hostname", image=image, source=source)
        key = await runtime.create(pod, inputs)
        assert await runtime.output(key) == b"hush\nweb\n"
        await runtime.provider.delete_pod(key, 0)
        await removed(pod_directory(runtime))
        assert not memory_directory(runtime).exists()
        assert number == 0 or handed == []  # the first one finds the directory in memory


async def test_an_older_shim_makes_no_directories(
    runtime: Runtime, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShimClient, "makes_directories", False)
    key = await runtime.create(pod_of("put", "/dev/termination-log", "DONE", image=image))
    assert (await runtime.ended(key)).message == "DONE"
    await runtime.provider.delete_pod(key, 0)
    await removed(pod_directory(runtime))
    assert not memory_directory(runtime).exists()


async def test_what_can_find_no_file_gets_none_unless_it_mounts_a_volume(runtime: Runtime, tmp_path: Path) -> None:
    asleep = image_of("asleep", SLEEPER, tmp_path)
    volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
    mounting = pod_of(image=asleep, name="mounts", spec=volume, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    pods = [pod_of(image=asleep, name="bare"), mounting]
    for pod in pods:
        assert await runtime.logged(await runtime.create(pod), b"ready\n")
    assert [pod_directory(runtime, pod.uid).exists() for pod in pods] == [False, True]
    await runtime.restart()  # a later node loop removes what an earlier one has made
    for pod in pods:
        await runtime.create(pod)
        await runtime.provider.delete_pod(pod.key, 0)
        await removed(pod_directory(runtime, pod.uid))
