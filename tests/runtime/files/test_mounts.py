"""Mounts as a guest sees them: paths in volumes, single files, mounts in mounts, and every way out that was tried."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.guest import SLEEPER, image_of
from tests.descriptors import open_descriptors
from tests.runtime.files.test_volumes import CONFIG, memory_directory, mounts, pod_directory, settings, with_volume
from tests.runtime.harness import Runtime, pod_of, removed
from wasmlet.errors import Refused, WasmletError
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Container, Pod
from wasmlet.model.status import ContainerStatus, Running, Waiting
from wasmlet.runtime.files import beneath, volume_rules
from wasmlet.runtime.files import mounts as mounts_module
from wasmlet.runtime.files import storage as storage_module
from wasmlet.runtime.files import volumes as volumes_module
from wasmlet.runtime.files.hostpath import HostPaths
from wasmlet.runtime.files.mounts import MountRequest, mounted
from wasmlet.runtime.shim.client import ShimClient

EMPTY: dict[str, Any] = {"emptyDir": {}}
LIBC = ctypes.CDLL(None)


def refusal(mount: int, field: str, text: str) -> str:
    return f"spec.containers[0].volumeMounts[{mount}].{field}: {text}"


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


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"subPath": "../x"}, refusal(0, "subPath", "unable to provision SubPath `../x`: must not contain '..'")),
        ({"subPath": "/tmp"}, refusal(0, "subPath", "error SubPath `/tmp` must not be an absolute path")),
        ({"subPathExpr": "$(P)"}, refusal(0, "subPathExpr", "unable to provision SubPath `..`: must not contain '..'")),
        ({"subPathExpr": "$(A)"}, refusal(0, "subPathExpr", "error SubPath `/etc` must not be an absolute path")),
        ({"subPathExpr": "$(NONE)"}, refusal(0, "subPathExpr", "missing value for 'NONE'")),
        ({"subPathExpr": "$(EMPTY)"}, refusal(0, "subPathExpr", "$(EMPTY) comes to nothing")),
    ],
)
async def test_sub_paths_that_are_refused(runtime: Runtime, image: str, mount: dict[str, Any], message: str) -> None:
    env = [{"name": "P", "value": ".."}, {"name": "A", "value": "/etc"}, {"name": "EMPTY", "value": ""}]
    pod = with_volume("print", "x", image=image, source=EMPTY, volumeMounts=mounts(**mount), env=env)
    key = await runtime.create(pod)
    assert (await runtime.waiting(key, "CreateContainerConfigError")).message == message
    await runtime.event(key, "Failed", f"Error: {message}")


async def test_backticks_are_only_characters(runtime: Runtime, image: str) -> None:
    pod = with_volume("ls", "/all", image=image, source=EMPTY,
                      volumeMounts=[*mounts(subPathExpr="`$(X)`"), *mounts("/all")],
                      env=[{"name": "X", "value": "id"}])  # fmt: skip
    key = await runtime.create(pod)
    assert await runtime.output(key) == b"`id`\n"


async def test_a_sub_path_recovers_with_the_annotation_that_it_comes_from(timed: Runtime, image: str) -> None:
    env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['path']"}}}]
    pod = with_volume("ls", "/all", image=image, source=EMPTY, env=env,
                      volumeMounts=[*mounts(subPathExpr="$(A)/x"), *mounts("/all")])  # fmt: skip
    key = await timed.create(pod)
    assert "must not be an absolute path" in (await timed.waiting(key, "CreateContainerConfigError")).message
    metadata = {**pod.metadata, "annotations": {"path": "mended"}}
    await timed.provider.update_pod(Pod({**pod.raw, "metadata": metadata}), Inputs())
    assert await timed.output(key) == b"mended\n"


async def test_a_sub_path_does_not_follow_its_config_map_until_a_restart(runtime: Runtime, image: str) -> None:
    script = ("cat", "/opt/app/conf", "put", "/opt/app/conf", "x", "ls", "/opt/app", "await", "/v/a", "two",
              "cat", "/opt/app/conf", "exit", "1")  # fmt: skip
    volume_mounts = [*mounts("/opt/app/conf", subPath="a"), *mounts("/v")]
    pod = with_volume(*script, image=image, source=CONFIG, volumeMounts=volume_mounts, restart="OnFailure")
    key = await runtime.create(pod, settings(a="one\n"))
    await runtime.logged(key, b"\nconf\n")
    await runtime.provider.update_pod(pod, settings(a="two\n"))
    await runtime.main(key, lambda status: status.restart_count >= 1 and status.container_id != "")
    refused = b"put /opt/app/conf: Operation not permitted\nconf\n"
    assert await runtime.log(key, previous=True) == b"one\n" + refused + b"one\n"
    await runtime.logged(key, b"two\n" + refused + b"two\n")


async def test_a_key_that_is_not_there(runtime: Runtime, image: str) -> None:
    pod = with_volume("cat", "/c", image=image, source=CONFIG, volumeMounts=mounts("/c", subPath="none"))
    key = await runtime.create(pod, settings(a="one\n"))
    assert (await runtime.waiting(key, "CreateContainerConfigError")).message == refusal(
        0,
        "subPath",
        'failed to prepare subPath for volumeMount "v" of container "main": none: No such file or directory',
    )


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


@pytest.mark.parametrize(
    ("volume_mounts", "message"),
    [
        (
            [*mounts("/data"), *mounts("/data/conf", "c", subPath="a")],
            refusal(1, "mountPath", "a single file cannot be mounted within the mount at /data: a guest is handed"),
        ),
        (
            [*mounts("/opt/a", "c", subPath="a"), *mounts("/opt/f", subPath="f")],
            refusal(1, "readOnly", "single files in one directory (/opt) must all be readOnly or none"),
        ),
        ([*mounts("/data"), *mounts("/data/", "c")], refusal(1, "mountPath", "/data is mounted by spec.containers[0]")),
        (
            [*mounts("/dev/a", "c", subPath="a")],
            "spec.containers[0].terminationMessagePath: cannot be beside a single file that is readOnly (/dev)",
        ),
    ],
)
async def test_what_a_directory_cannot_give(
    runtime: Runtime, image: str, volume_mounts: list[dict[str, Any]], message: str
) -> None:
    init = [{"name": "init", "image": image, "args": ["put", "/v/f", ""], "volumeMounts": mounts()}]
    spec = {"volumes": [{"name": "v", **EMPTY}, {"name": "c", **CONFIG}], "initContainers": init}
    pod = pod_of("print", "x", image=image, spec=spec, volumeMounts=volume_mounts)
    key = await runtime.create(pod, settings(a="one\n"))
    assert (await runtime.waiting(key, "CreateContainerConfigError")).message.startswith(message)


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


async def test_a_link_that_a_guest_planted_leads_nobody_out(runtime: Runtime, image: str) -> None:
    """The first container plants links; the second is to mount what they lead to."""
    state = runtime.state_dir / "runtime"
    (state / "secret").mkdir()
    (state / "secret" / "key").write_text("hush")
    up = "../" * 6 + "secret"
    planted = ("symlink", up, "/v/up", "mkdir", "/v/d", "symlink", f"../{up}", "/v/d/e")
    init = [{"name": "init", "image": image, "args": list(planted), "volumeMounts": mounts()}]
    for number, sub in enumerate(("up", "up/key", "d/e", "d/e/key", "up/made")):
        spec = {"volumes": [{"name": "v", **EMPTY}], "initContainers": init}
        pod = pod_of("cat", "/m", "cat", "/m/key", image=image, name=f"p{number}", spec=spec,
                     volumeMounts=mounts("/m", subPath=sub))  # fmt: skip
        key = await runtime.create(pod)
        assert (await runtime.waiting(key, "CreateContainerConfigError")).message == refusal(
            0,
            "subPath",
            f'failed to prepare subPath for volumeMount "v" of container "main": {sub}: it leads out of the volume',
        )
        assert (await runtime.log(key, "init")).count(b": ok\n") == 3
        await runtime.provider.delete_pod(key, 0)
    assert sorted(os.listdir(state / "secret")) == ["key"]


@contextlib.contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Exchange two names as fast as it goes, each time at one blow."""
    stopped = threading.Event()
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE

    def swap() -> None:
        while not stopped.is_set():
            LIBC.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        stopped.set()
        swapper.join()


def _open_and_check(inside: Path, opening: Callable[[], int]) -> None:
    """Open until it went well and was refused many times; what was opened is always inside."""
    opened, refused = 0, 0
    while opened < 100 or refused < 100:
        try:
            descriptor = opening()
        except (OSError, WasmletError):
            refused += 1
            continue
        where = os.readlink(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
        assert where.startswith(f"{inside}/"), where
        opened += 1


def test_paths_that_are_swapped_while_they_are_opened(tmp_path: Path) -> None:
    """A guest that turns a directory into a link and back gains nothing, at any moment."""
    inside, outside = tmp_path / "volume", tmp_path / "outside"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "link").symlink_to("../outside")
    root = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    numbers = itertools.count()
    try:
        with swapping(inside / "real", inside / "link"):
            _open_and_check(inside, lambda: beneath.make_beneath(root, f"real/{next(numbers)}/deep", 0o755))
    finally:
        os.close(root)
    assert os.listdir(outside) == []


def test_a_host_path_that_is_swapped_while_it_is_opened(tmp_path: Path) -> None:
    inside, outside = tmp_path / "allowed", tmp_path / "outside"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    numbers = itertools.count()
    host_paths = HostPaths([inside])
    with swapping(inside / "real", inside / "link"):
        _open_and_check(inside, lambda: host_paths.open(f"{inside}/real", "Directory"))
        _open_and_check(inside, lambda: host_paths.open(f"{inside}/real/{next(numbers)}", "DirectoryOrCreate"))
    assert os.listdir(outside) == []


def test_usage_and_removal_do_not_leave_the_tree(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (outside / "big").write_bytes(b"x" * 1_000_000)
    (tree / "out").symlink_to(outside)
    (tree / "file").write_bytes(b"x" * 100_000)
    os.link(tree / "file", tree / "same")
    os.mkfifo(tree / "pipe")
    assert 100_000 <= beneath.usage(tree) < 200_000
    at = os.open(tree, beneath.DIRECTORY)
    for _ in range(1000):
        os.mkdir("d" * 20, dir_fd=at)
        below = os.open("d" * 20, beneath.DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with pytest.raises(beneath.TooDeep):
        beneath.usage(tree)
    beneath.remove(tree)
    assert not tree.exists()
    assert (outside / "big").exists()
    beneath.remove(tree)


def test_a_directory_is_removed_though_files_in_it_are_renamed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the shim does with a log when it has compressed it."""
    unlink, files = os.unlink, [tmp_path / "logs" / name for name in ("a", "b", "c")]
    files[0].parent.mkdir()
    for file in files:
        file.touch()

    def renamed_first(name: str, *, dir_fd: int) -> None:
        if not name.endswith(".gz"):
            os.rename(name, f"{name}.gz", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(beneath.os, "unlink", renamed_first)
    beneath.remove(files[0].parent)
    assert not files[0].parent.exists()


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
    assert os.listdir(pod_directory(runtime)) == ["main.1-1"]
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


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("spec.volumes[0].nfs", {"volumes": [{"name": "v", "nfs": {"server": "x"}}]}, {}),
    ("spec.volumes[0].csi", {"volumes": [{"name": "v", "csi": {"driver": "x"}}]}, {}),
    ("spec.volumes[0].persistentVolumeClaim", {"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}, {}),
    ("spec.volumes[0].ephemeral", {"volumes": [{"name": "v", "ephemeral": {}}]}, {}),
    ("spec.volumes[0].hostPath", {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, {}),
    ("spec.volumes[0].emptyDir.medium", {"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]}, {}),
    ("spec.volumes[0].emptyDir.sizeLimit", {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "much"}}]}, {}),
    ("spec.volumes[0].name", {"volumes": [{"name": "../v", "emptyDir": {}}]}, {}),
    ("spec.volumes[0]", {"volumes": [{"name": "v"}]}, {}),
    ("spec.containers[0].volumeMounts[0].name", {}, {"volumeMounts": mounts(name="none")}),
    ("spec.containers[0].volumeMounts[0].mountPath", {}, {"volumeMounts": mounts("")}),
    ("spec.containers[0].volumeMounts[0].mountPropagation", {}, {"volumeMounts": mounts(mountPropagation="Other")}),
    ("spec.containers[0].volumeMounts[0].recursiveReadOnly", {}, {"volumeMounts": mounts(recursiveReadOnly="Enabled")}),
    ("spec.containers[0].volumeMounts[0].subPathExpr", {}, {"volumeMounts": mounts(subPath="a", subPathExpr="b")}),
    ("spec.containers[0].volumeMounts[0].unheardOf", {}, {"volumeMounts": mounts(unheardOf=True)}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "spec", "container"), REFUSED)
def test_refused_by_name(field: str, spec: dict[str, Any], container: dict[str, Any]) -> None:
    pod = pod_of(spec={"volumes": [{"name": "v", **EMPTY}], **spec}, **container)
    with pytest.raises(Refused) as refused:
        volume_rules.check(pod, host_paths=False, claims=False)
    assert refused.value.field == field


@pytest.mark.parametrize("kind", ["csi", "flexVolume"])
def test_a_driver_that_is_not_here_is_named(kind: str) -> None:
    pod = pod_of(spec={"volumes": [{"name": "v", kind: {"driver": "secrets-store.csi.k8s.io"}}]})
    with pytest.raises(Refused, match=rf"volumes\[0\].{kind}: it needs the storage driver 'secrets-store.csi.k8s.io'"):
        volume_rules.check(pod, host_paths=False, claims=False)


@pytest.mark.parametrize(("kind", "path"), [("Socket", "/x"), ("CharDevice", "/x"), ("", "x"), ("", "/x/../y")])
def test_host_paths_refused_by_name(kind: str, path: str) -> None:
    pod = pod_of(spec={"volumes": [{"name": "v", "hostPath": {"path": path, "type": kind}}]})
    with pytest.raises(Refused) as refused:
        volume_rules.check(pod, host_paths=True, claims=False)
    assert refused.value.field == f"spec.volumes[0].hostPath.{'type' if kind else 'path'}"


def test_container_field_is_that_of_its_kind() -> None:
    with pytest.raises(Refused, match=r"spec.ephemeralContainers\[0\].volumeMounts\[0\].name"):
        volume_rules.check_mounts(
            Container({"name": "d", "volumeMounts": mounts()}, "spec.ephemeralContainers[0]"), set()
        )
