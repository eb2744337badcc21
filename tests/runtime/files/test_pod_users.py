"""A user of its own for each pod: what its processes are, what they reach and what they do not, and who has which."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmlet_wasmtime import WasmtimeProvider

from tests.runtime.files.test_volumes import Claiming, mounts, settings
from tests.runtime.harness import Runtime, pod_of
from wasmlet.errors import ConfigError, WasmletError
from wasmlet.model.pod import PodKey
from wasmlet.runtime import RuntimeConfig
from wasmlet.runtime.files.idmapped import exchanged
from wasmlet.runtime.files.pod_users import BLOCK, PodUsers, Range, impossible

root = pytest.mark.needs_root("only root becomes other users")
FIRST = 2_000_000_000


@pytest.fixture
async def users(tmp_path: Path) -> AsyncGenerator[Runtime, None]:
    """A provider whose pods may mount what is below `host`, and have claims."""
    (tmp_path / "host").mkdir()
    config = RuntimeConfig(allow_local_modules=True, allow_host_path=(str(tmp_path / "host"),))
    async with Runtime(Claiming, tmp_path / "state", config) as started:
        yield started


def pid_of(runtime: Runtime, key: PodKey) -> int:
    records = runtime.provider.services.client.records.values()
    return next(r.pid for r in records if r.labels["pod"]["uid"] == key.uid and r.state == "running")


def ids(pid: int, field: str) -> list[int]:
    """What /proc says of a process: `Uid` and `Gid` (real, effective, saved, of files), `Groups`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [int(word) for line in lines if line.startswith(f"{field}:") for word in line.split()[1:]]


def capabilities(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return max(int(line.split()[1], 16) for line in lines if line.startswith(("CapPrm:", "CapEff:", "CapInh:")))


@root
async def test_each_pod_is_somebody_else(users: Runtime, image: str) -> None:
    context = {"fsGroup": 4321, "supplementalGroups": [77, 4321], "runAsUser": 1000}
    first = await users.create(pod_of("sleep", "1000", image=image, spec={"securityContext": context}))
    second = await users.create(pod_of("sleep", "1000", image=image, name="other", spec={"securityContext": context}))
    found = []
    for key in (first, second):
        await users.running(key)
        pid = pid_of(users, key)
        user = ids(pid, "Uid")
        assert user == ids(pid, "Gid") == [user[0]] * 4
        assert FIRST <= user[0] < FIRST + 10**8
        assert ids(pid, "Groups") == [77, 4321]
        assert capabilities(pid) == 0
        found.append(user[0])
    assert found[0] != found[1]
    assert ids(users.shim, "Uid") == [0] * 4


@root
async def test_what_a_guest_is_given_is_its_own(users: Runtime, image: str, tmp_path: Path) -> None:
    """Every kind of volume can be read, and written where the manifest lets it be, whatever its mode."""
    assert isinstance(users.provider, Claiming)
    users.provider.where = tmp_path / "claim"
    for directory in (tmp_path / "claim", tmp_path / "host" / "d"):
        directory.mkdir(mode=0o700)
        (directory / "there").write_text("[there]")
        (directory / "there").chmod(0o600)
    (tmp_path / "host" / "file").write_text("[file]")
    (tmp_path / "host" / "file").chmod(0o600)
    volumes = [
        {"name": "config", "configMap": {"name": "settings", "defaultMode": 0o400}},
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "host", "hostPath": {"path": f"{tmp_path}/host/d"}},
        {"name": "file", "hostPath": {"path": f"{tmp_path}/host/file", "type": "File"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
    ]
    at = [
        *mounts("/config", "config"),
        *mounts("/one/a", "config", subPath="a"),
        *mounts("/disk", "disk"),
        *mounts("/sub", "disk", subPath="deep/er"),
        *mounts("/memory", "memory"),
        *mounts("/host", "host"),
        *mounts("/below", "host", subPath="new"),
        *mounts("/single/f", "file"),
        *mounts("/claim", "claim"),
    ]
    read = [word for path in ("/config/a", "/one/a", "/host/there", "/single/f", "/claim/there", "/etc/hostname")
            for word in ("cat", path)]  # fmt: skip
    paths = ["/disk/x", "/sub/x", "/memory/x", "/host/x", "/below/x", "/single/f", "/claim/x", "/dev/termination-log"]
    written = [word for path in paths for word in ("put", path, "written")]
    pod = pod_of(*read, *written, image=image, spec={"volumes": volumes}, volumeMounts=at)
    key = await users.create(pod, settings(a="[a]"))
    expected = "[a][a][there][file][there]web\n" + "".join(f"put {path}: ok\n" for path in paths)
    assert (await users.output(key)).decode() == expected
    assert (await users.ended(key)).message == "written"
    for path in ("host/d/x", "host/d/new/x", "host/file", "claim/x"):
        found = (tmp_path / path).stat()
        assert ((tmp_path / path).read_text(), found.st_uid, found.st_gid) == ("written", 0, 0)


@root
async def test_files_that_are_made_for_all_can_be_read_whatever_the_umask_of_the_node_is(
    users: Runtime, image: str
) -> None:
    before = os.umask(0o077)
    try:
        volumes = [{"name": "config", "configMap": {"name": "settings"}}]
        at, words = mounts("/etc/below", "config"), ("cat", "/etc/hostname", "cat", "/etc/below/a")
        pod = pod_of(*words, image=image, spec={"volumes": volumes}, volumeMounts=at)
        key = await users.create(pod, settings(a="[a]"))
        assert await users.output(key) == b"web\n[a]"
        assert (await users.ended(key)).exit_code == 0
    finally:
        os.umask(before)


@root
async def test_what_belongs_to_run_as_user_is_the_pods(users: Runtime, image: str, tmp_path: Path) -> None:
    """A container's own runAsUser goes before the pod's; what is somebody else's stays so."""
    for name, owner in (("mine", 1000), ("roots", 0), ("others", 1001)):
        (tmp_path / "host" / name).mkdir(mode=0o700)
        os.chown(tmp_path / "host" / name, owner, 2000)
    (tmp_path / "host").chmod(0o755)
    spec = {
        "securityContext": {"runAsUser": 1001, "runAsGroup": 2000},
        "volumes": [{"name": "v", "hostPath": {"path": f"{tmp_path}/host"}}],
    }
    script = ("put", "/v/mine/x", "1", "put", "/v/roots/x", "1", "put", "/v/others/x", "1")
    pod = pod_of(*script, image=image, spec=spec, volumeMounts=mounts(), securityContext={"runAsUser": 1000})
    text = await users.output(await users.create(pod))
    assert text.splitlines()[0] == b"put /v/mine/x: ok"
    assert text.count(b": ok") == 1
    found = (tmp_path / "host/mine/x").stat()
    assert (found.st_uid, found.st_gid) == (1000, 2000)


@root
async def test_groups_of_the_manifest(users: Runtime, image: str, tmp_path: Path) -> None:
    (tmp_path / "host/shared").mkdir()
    os.chown(tmp_path / "host/shared", 5, 4321)
    (tmp_path / "host/shared").chmod(0o2770)
    spec = {
        "securityContext": {"supplementalGroups": [4321]},
        "volumes": [{"name": "v", "hostPath": {"path": f"{tmp_path}/host/shared"}}],
    }
    key = await users.create(pod_of("put", "/v/x", "1", image=image, spec=spec, volumeMounts=mounts()))
    assert await users.output(key) == b"put /v/x: ok\n"
    assert (tmp_path / "host/shared/x").stat().st_gid == 4321


@root
async def test_fs_group_of_a_claim(users: Runtime, image: str, tmp_path: Path) -> None:
    """Everything in it becomes the group's, as with a kubelet; with OnRootMismatch only where the top is not yet."""
    assert isinstance(users.provider, Claiming)
    claim = users.provider.where = tmp_path / "claim"
    (claim / "d").mkdir(parents=True)
    (claim / "d/f").write_text("x")
    (claim / "d/f").chmod(0o600)
    (tmp_path / "outside").write_text("x")
    (claim / "link").symlink_to(tmp_path / "outside")

    def looks(path: Path) -> tuple[int, int]:
        found = path.lstat()
        return found.st_gid, stat.S_IMODE(found.st_mode)

    async def run(name: str, policy: str) -> None:
        spec = {
            "securityContext": {"fsGroup": 4321, "fsGroupChangePolicy": policy},
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
        }
        key = await users.create(pod_of("put", "/v/d/n", "1", image=image, name=name, spec=spec, volumeMounts=mounts()))
        assert await users.output(key) == b"put /v/d/n: ok\n"

    await run("one", "OnRootMismatch")
    assert (looks(claim), looks(claim / "d"), looks(claim / "d/f")) == ((4321, 0o2775), (4321, 0o2775), (4321, 0o660))
    assert (claim / "link").lstat().st_gid == 4321
    assert (tmp_path / "outside").stat().st_gid == 0
    os.chown(claim / "d/f", 0, 0)
    await run("two", "OnRootMismatch")
    assert looks(claim / "d/f")[0] == 0
    await run("three", "Always")
    assert looks(claim / "d/f")[0] == 4321


@root
async def test_a_command_is_the_same_user(users: Runtime, image: str) -> None:
    volumes = {"volumes": [{"name": "v", "emptyDir": {}}]}
    key = await users.create(pod_of("sleep", "1000", image=image, spec=volumes, volumeMounts=mounts()))
    await users.running(key)
    code, output = await users.provider.services.commands.run(key, "main", ["driver", "put", "/v/x", "1"])
    assert (code, output) == (0, b"put /v/x: ok\n")
    written = next(users.state_dir.rglob("kubernetes.io~empty-dir/v/x"))
    assert [written.stat().st_uid] * 4 == ids(pid_of(users, key), "Uid")


@root
async def test_it_stays_the_same_and_is_free_again(users: Runtime, image: str) -> None:
    """Over restarts of the container and of the node loop, and until the pod is gone."""
    key = await users.create(pod_of("sleep", "1000", image=image))
    await users.running(key)
    user = ids(pid_of(users, key), "Uid")[0]
    await users.restart()
    pods = users.provider.services.users
    assert pods is not None
    assert pods._given == {key.uid: user}
    await users.create(pod_of("sleep", "1000", image=image))
    other = await users.create(pod_of("sleep", "1000", image=image, name="other"))
    await users.running(other)
    assert ids(pid_of(users, other), "Uid")[0] != user
    for each in (key, other):
        await users.provider.delete_pod(each, 0)
    assert pods._given == {}


@root
async def test_a_restarted_container_is_the_same_user(tmp_path: Path, image: str) -> None:
    async with Runtime(WasmtimeProvider, tmp_path / "state") as runtime:
        volumes = {"volumes": [{"name": "v", "emptyDir": {}}]}
        script = ("append", "/v/x", "1", "fewer", "/v/x", "2", "sleep", "1000")
        pod = pod_of(*script, image=image, spec=volumes, restart="Always", volumeMounts=mounts())
        key = await runtime.create(pod)
        await runtime.main(key, lambda status: status.restart_count == 1)
        await runtime.running(key)
        assert len({r.labels["user"] for r in runtime.provider.services.client.records.values()}) == 1


@root
async def test_without_users_of_its_own(tmp_path: Path, image: str) -> None:
    config = RuntimeConfig(allow_local_modules=True, pod_users="none")
    async with Runtime(WasmtimeProvider, tmp_path / "state", config) as runtime:
        key = await runtime.create(pod_of("sleep", "1000", image=image))
        await runtime.running(key)
        assert ids(pid_of(runtime, key), "Uid") == [0] * 4


@root
async def test_a_node_whose_users_are_all_taken(timed: Runtime, tmp_path: Path, image: str) -> None:
    config = RuntimeConfig(allow_local_modules=True, pod_users="1900000000-1900000000")
    runtime = Runtime(WasmtimeProvider, tmp_path / "small", config)
    runtime.clock = timed.fake_clock
    async with runtime:
        first = await runtime.create(pod_of("sleep", "1000", image=image))
        await runtime.running(first)
        second = await runtime.create(pod_of("print", "mine now", image=image, name="second"))
        await runtime.event(second, "FailedCreatePodSandBox", "give it more with --pod-users")
        await runtime.provider.delete_pod(first, 0)
        await runtime.fake_clock.next_sleep()
        runtime.fake_clock.advance(1)
        assert await runtime.output(second) == b"mine now\n"


def node(tmp_path: Path, name: str, wanted: Range) -> PodUsers:
    state = tmp_path / name
    state.mkdir(exist_ok=True)
    made = PodUsers(state, wanted, tmp_path / "claims")
    made.start()
    return made


def test_nodes_of_one_machine_share_no_user(tmp_path: Path) -> None:
    wanted = Range(1000, 1000 + 2 * BLOCK - 1)
    one, two = node(tmp_path, "one", wanted), node(tmp_path, "two", Range(1000 + BLOCK, 1000 + 3 * BLOCK - 1))
    taken = {one.of(f"a{n}") for n in range(BLOCK + 5)}
    assert len(taken) == BLOCK + 5
    assert not taken & {two.of(f"b{n}") for n in range(BLOCK)}
    with pytest.raises(WasmletError, match="no user is left"):
        two.of("one more")
    again = node(tmp_path, "one", wanted)
    assert not {again.of(f"c{n}") for n in range(2 * BLOCK)} & set(two._given.values())
    for pods in (again, two):
        for pod in list(pods._given):
            pods.free(pod)
        pods.close()
    assert os.listdir(tmp_path / "claims") == []


def test_pods_that_ask_at_once(tmp_path: Path) -> None:
    pods = node(tmp_path, "one", Range(1000, 1000 + 10 * BLOCK))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(pods.of, map(str, range(200))))
    assert len(set(found)) == 200
    assert len(os.listdir(tmp_path / "claims")) == 1


def test_blocks_of_a_node_that_is_gone_are_free(tmp_path: Path) -> None:
    gone = node(tmp_path, "gone", Range(1000, 1000))
    assert gone.of("a") == 1000
    (tmp_path / "gone/pod-users").unlink()
    assert node(tmp_path, "new", Range(1000, 1000)).of("b") == 1000


def test_a_user_is_used_again_as_late_as_possible(tmp_path: Path) -> None:
    pods = node(tmp_path, "one", Range(1000, 1009))
    seen = []
    for number in range(10):
        seen.append(pods.of(str(number)))
        pods.free(str(number))
    assert sorted(seen) == list(range(1000, 1010))


@given(st.integers(0, 2**32 - 2), st.integers(1, 2**32 - 2))
def test_maps_exchange_two_and_leave_out_nobody(one: int, other: int) -> None:
    lines = [tuple(map(int, line.split())) for line in exchanged(one, other).splitlines()]

    def seen(disk: int) -> int:
        return next(outside + disk - inside for inside, outside, size in lines if inside <= disk < inside + size)

    assert (seen(one), seen(other)) == (other, one)
    assert all(seen(disk) == disk for disk in {0, 1, 2**32 - 2, one + 1, max(other - 1, 0)} - {one, other, 2**32 - 1})
    assert sum(size for _, _, size in lines) == 2**32 - 1


@pytest.mark.parametrize("text", ["", "0-5", "5-4", "1", "1-", "-1", "a-b", "1-4294967295"])
def test_no_ranges(text: str) -> None:
    with pytest.raises(ConfigError, match="FIRST-LAST of user ids"):
        RuntimeConfig(pod_users=text).users()


@root
def test_where_it_is_possible() -> None:
    assert impossible(Range(FIRST, FIRST + 1)) == ""
