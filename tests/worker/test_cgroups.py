"""Control groups: where they may be, what they hold, and that nothing is left of them.

A shim is driven for real on trees of version 1 where this process may write such. Of version 2 there is a directory
that imitates it (`Imitation`): what is asked of the kernel is checked, not what the kernel makes of it.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.machine import NOBODY, as_nobody, may_limit, own_group
from tests.worker.harness import PATIENCE, Connection, Shim, alive, kill, running, wait_gone
from wasmlet.worker import linux, wire
from wasmlet.worker.loop import Loop
from wasmlet.worker.supervisor import cgroups, groups
from wasmlet.worker.supervisor.groups import ALLOWANCE, ENGINE_TASKS, MOST_TASKS, Group, Groups, Resources, shares_of
from wasmlet.worker.supervisor.workers import MOST_CONTAINERS

CONTROLLERS = {controller for controller in ("memory", "pids", "cpu", "cpuacct") if may_limit(controller)}
ALL = len(CONTROLLERS) == 4
MEBIBYTE = 2**20


def group(shim: Shim, record: dict[str, Any], controller: str) -> Path:
    """Directory of a container's group."""
    places = shim.connection.ask("hello")["groups"]
    return Path(places[controller]["directory"], record["group"])


def groups_of(pid: int) -> dict[str, str]:
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def tops(state: Path) -> list[Path]:
    """Where a shim of this state directory may have groups."""
    name = cgroups.name_of(str(state))
    names = (name, name + cgroups.LEAF)
    return [path for c in sorted(CONTROLLERS) for name in names if (path := own_group(c) / name).exists()]


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def until_gone(*paths: Path) -> None:
    eventually(lambda: not any(path.exists() for path in paths))


# What limits come to


def test_the_kubelet_s_formulas() -> None:
    assert [groups.cpu_quota(cpu) for cpu in (None, 0, 1, 10, 500, 2000)] == [-1, -1, 1000, 1000, 50_000, 200_000]
    assert [groups.cpu_shares(cpu) for cpu in (0, 1, 100, 1000, 10**6)] == [2, 2, 102, 1024, 262144]
    assert [groups.cpu_weight(shares) for shares in (2, 102, 1024, 262144)] == [1, 4, 39, 10000]
    resources = (Resources(cpu=500), Resources(cpu=500, cpu_request=100), Resources())
    assert [shares_of(one) for one in resources] == [512, 102, 2]


@pytest.mark.parametrize("bad", [[], "x", 5, {"memory": "1"}, {"cpu": -1}, {"cpu_request": True}, {"cpu": 1.5}])
def test_resources_that_are_none(bad: Any) -> None:
    if not bad:
        assert Resources.of(bad) == Resources()
        return
    with pytest.raises(wire.WireError, match="expected resources"):
        Resources.of(bad)


# Where groups may be


def proc(directory: Path, groups: str, mounts: str) -> str:
    (directory / "self").mkdir(parents=True)
    (directory / "self/cgroup").write_text(groups)
    (directory / "self/mountinfo").write_text(mounts)
    return str(directory)


def test_trees_of_both_versions(tmp_path: Path) -> None:
    found = cgroups.trees(
        proc(
            tmp_path,
            "5:memory:/a/b\n4:cpu,cpuacct:/\n3:pids:/../other\n2:freezer:/\n1:name=systemd:/x\n0::/unit/node\n",
            "30 29 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
            "31 29 0:27 /a /sys/my\\040own/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
            "32 29 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
            "33 29 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
            "34 29 0:30 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
            "35 29 0:31 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n"
            "36 29 0:32 / /proc rw - proc proc rw\n",
        )
    )
    assert found == [
        cgroups.Tree(1, "/sys/my own/memory", "/sys/my own/memory/b", frozenset({"memory"})),
        cgroups.Tree(1, "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu", frozenset({"cpu", "cpuacct"})),
        cgroups.Tree(2, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/unit/node", frozenset()),
    ]


def test_a_machine_without_any(tmp_path: Path) -> None:
    places, missing = cgroups.open_places("x", proc(tmp_path, "", ""))
    assert places == []
    assert cgroups.description(places, missing) == "off: not mounted"
    places, missing = cgroups.open_places("x", str(tmp_path / "none"))
    assert cgroups.description(places, missing).startswith(f"off: {tmp_path}/none/self cannot be read: ")


class Imitation:
    """A directory that looks like version 2: a group has the files that its parent's controllers give it."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, delegated: str = "") -> None:
        self.top = tmp_path / "cgroup"
        self.delegated = self.top / delegated
        self._mkdir, self._rmdir = os.mkdir, os.rmdir
        self.mkdir(self.top)
        (self.top / "cgroup.type").unlink()
        directory = self.top
        for part in own.split("/") if own else ():
            self.write(directory / "cgroup.subtree_control", "memory pids cpu io")
            directory /= part
            self.mkdir(directory)
        self.write(directory / "cgroup.controllers", "memory pids cpu io")
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(os, "rmdir", self.rmdir)
        monkeypatch.setattr(os, "getxattr", self.getxattr)
        mounts = f"1 1 0:1 / {self.top} rw - cgroup2 none rw\n"
        self.proc = proc(tmp_path / "proc", f"0::/{own}\n", mounts)
        self.told: list[tuple[str, str]] = []
        for module in (cgroups, groups):
            monkeypatch.setattr(module, "write", self.heard)

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        path = Path(path)
        self._mkdir(path)
        if path == self.top or self.top not in path.parents:
            names = ["memory", "pids", "cpu", "io"]
        else:
            enabled = (path.parent / "cgroup.subtree_control").read_text().replace("+", " ").split()
            names = sorted(set(enabled))
        files = {"cgroup.controllers": " ".join(names), "cgroup.subtree_control": "", "cgroup.procs": ""}
        files |= {"cgroup.type": "domain"}
        if "memory" in names and path != self.top:
            files |= {"memory.max": "max", "memory.current": "4096", "memory.oom.group": "0", "memory.swap.max": "max"}
            files |= {"memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 0\noom_group_kill 0\n"}
        if "cpu" in names and path != self.top:
            files |= {"cpu.max": "max 100000", "cpu.weight": "100"}
        if "pids" in names and path != self.top:
            files |= {"pids.max": "max"}
        for name, text in files.items():
            self.write(path / name, text)

    def rmdir(self, path: Any) -> None:
        for entry in list(Path(path).iterdir()):
            if entry.is_file():
                entry.unlink()
        self._rmdir(path)

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.write_text(text)

    def getxattr(self, path: Any, name: str) -> bytes:
        if name == "user.delegate" and Path(path) == self.delegated:
            return b"1"
        raise OSError(61, "No data available")

    def heard(self, path: str, text: str) -> None:
        self.told.append((str(Path(path).relative_to(self.top)), text))
        if path.endswith("subtree_control"):
            text = Path(path).read_text() + " " + text.replace("+", "")
        assert Path(path).exists()
        Path(path).write_text(text.strip())


def test_version_2_below_a_delegated_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Imitation(tmp_path, monkeypatch, "system.slice/wasmlet.service/node", "system.slice/wasmlet.service")
    unit = "system.slice/wasmlet.service"
    (tree.top / unit / "cgroup.subtree_control").write_text("")
    places, missing = cgroups.open_places("wasmlet-1", tree.proc)
    assert cgroups.description(places, missing) == "v2: memory, pids, cpu"
    assert missing == {}
    assert [place.directory for place in places] == [str(tree.top / unit / "wasmlet-1")]
    assert tree.told[0] == (f"{unit}/wasmlet-1.shim/cgroup.procs", "0")  # first of all: no process in an inner group
    assert set(tree.told[1:]) == {
        (f"{unit}/{where}cgroup.subtree_control", f"+{name}")
        for where in ("", "wasmlet-1/")
        for name in ("cpu", "memory", "pids")
    }
    one = Group(places, "1-1")
    directory = tree.top / unit / "wasmlet-1/1-1"

    def files(*names: str) -> list[str]:
        return [(directory / name).read_text() for name in names]

    names = ("pids.max", "cpu.weight", "cpu.max", "memory.max", "memory.oom.group")
    assert files(*names) == [str(MOST_TASKS), "1", "max 100000", "max", "1"]
    one.limit(Resources(memory=MEBIBYTE, cpu=250, cpu_request=100))
    assert files(*names, "memory.swap.max") == [
        str(MOST_TASKS), "4", "25000 100000", str(MEBIBYTE + ALLOWANCE), "1", "0",
    ]  # fmt: skip
    assert not one.oom_killed()
    (directory / "memory.events").write_text("max 9\noom 2\noom_kill 1\noom_group_kill 0\n")
    assert [one.oom_killed(), one.oom_killed()] == [True, False]
    (directory / "memory.current").write_text(str(6 * MEBIBYTE))
    with pytest.raises(wire.WireError, match="6291456 are in use"):
        one.limit(Resources(memory=MEBIBYTE // 2))
    one.set_cpu_shares(2 * 1024)
    one.set_task_limit(10)
    assert files(*names[:2]) == [str(ENGINE_TASKS + 10), "79"]
    one.set_cpu_shares(10**6)
    assert files("cpu.weight") == ["10000"]
    one.limit(Resources())
    assert files(*names[1:4], "memory.swap.max") == ["1", "max 100000", "max", "max"]
    door = one.open_cgroup_fds()
    linux.join_group(door)
    assert (directory / "cgroup.procs").read_text() == "0"
    wire.close(door)
    one.close_cgroup_fds()
    assert one.remove()
    assert not directory.exists()


def test_version_2_that_is_not_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Imitation(tmp_path, monkeypatch, "user.slice/session", "nowhere")
    (tree.top / "user.slice/session/cgroup.procs").write_text("1\n")
    places, missing = cgroups.open_places("wasmlet-1", tree.proc)
    assert places == []
    assert "session is not delegated to this node; expected a unit with Delegate=" in (
        cgroups.description(places, missing)
    )
    assert sorted(path.name for path in (tree.top / "user.slice/session").iterdir() if path.is_dir()) == []


def test_version_2_with_the_unit_s_processes_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Imitation(tmp_path, monkeypatch, "system.slice/wasmlet.service", "system.slice/wasmlet.service")
    places, missing = cgroups.open_places("wasmlet-1", tree.proc)
    assert cgroups.description(places, missing).endswith("expected DelegateSubgroup= in the unit beside Delegate=")
    assert tree.told == []


def test_a_controller_that_cannot_be_enabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Imitation(tmp_path, monkeypatch, "unit/node", "unit")

    def refusing(path: str, text: str) -> None:
        if text == "+cpu":
            raise OSError(22, "Invalid argument")
        tree.heard(path, text)

    monkeypatch.setattr(cgroups, "write", refusing)
    places, missing = cgroups.open_places("wasmlet-1", tree.proc)
    assert cgroups.description(places, missing) == "v2: memory, pids (off: cpu: cannot be enabled below {})".format(
        tree.top / "unit"
    )


# For real, on version 1


def test_what_is_on_is_what_the_machine_can(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        hello = shim.connection.ask("hello")
        assert {name for name, place in hello["groups"].items() if place["version"] == 1} == CONTROLLERS
        if ALL:
            assert hello["confinement"]["cgroup"] == "v1: memory, pids, cpu"
        for controller in CONTROLLERS:
            directory = own_group(controller) / cgroups.name_of(str(shim.state))
            assert hello["groups"][controller]["directory"] == str(directory)
            assert directory.is_dir()
            for pid in (shim.pid, *shim.children()):
                assert groups_of(pid)[controller].endswith(f"/{directory.name}.shim")
    assert tops(tmp_path / "state") == []
    assert not (tmp_path / "state/cgroups.json").exists()


def test_a_container_has_a_group_with_its_limits(tmp_path: Path, python: str) -> None:
    resources = {"memory": 64 * MEBIBYTE, "cpu": 250, "cpu_request": 100}
    with running(tmp_path / "state", python) as shim:
        name = shim.run("start", "sleep", "1000", resources=resources)
        record = shim.running(name)
        other = shim.running(shim.run("start", "sleep", "1000"))
        assert (record["group"] == "") == (not CONTROLLERS)
        expected = {
            "memory": {"memory.limit_in_bytes": 64 * MEBIBYTE + ALLOWANCE},
            "cpu": {"cpu.cfs_quota_us": 25_000, "cpu.cfs_period_us": 100_000, "cpu.shares": 102},
            "pids": {"pids.max": MOST_TASKS},
        }
        unlimited = {"cpu": {"cpu.cfs_quota_us": -1, "cpu.shares": 2}, "pids": {"pids.max": MOST_TASKS}}
        for one, wanted in ((record, expected), (other, unlimited)):
            for controller in CONTROLLERS:
                directory = group(shim, one, controller)
                assert groups_of(one["pid"])[controller].endswith(f"/{directory.parent.name}/{one['group']}")
                for file, value in wanted.get(controller, {}).items():
                    assert int((directory / file).read_text()) == value, file
        executing = copy.copy(shim)
        executing.connection = Connection(shim.state)
        thread = Thread(target=executing.exec, args=(name, "start", "sleep", "1000"))
        if CONTROLLERS:
            thread.start()
            for controller in CONTROLLERS:
                members = group(shim, record, controller) / "cgroup.procs"
                eventually(lambda members=members: len(members.read_text().split()) == 2)
        directories = [group(shim, record, controller) for controller in CONTROLLERS]
        shim.connection.ask("stop", id=name, grace=0)
        shim.ended(name)
        if CONTROLLERS:
            thread.join()
        executing.connection.close()
        until_gone(*directories)


def test_limits_change_while_it_runs(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000", resources={"memory": 64 * MEBIBYTE, "cpu": 500})
        record = shim.running(name)
        if not ALL:
            with pytest.raises(RuntimeError, match="has no control group"):
                shim.connection.ask("resize", id=name, resources={"memory": MEBIBYTE})
            return
        memory, cpu = group(shim, record, "memory"), group(shim, record, "cpu")
        for limit, millis, quota in ((256 * MEBIBYTE, 1500, 150_000), (32 * MEBIBYTE, 20, 2000), (None, None, -1)):
            shim.connection.ask("resize", id=name, resources={"memory": limit, "cpu": millis})
            found = int((memory / "memory.limit_in_bytes").read_text())
            assert found == limit + ALLOWANCE if limit else found > 2**60
            assert int((memory / "memory.memsw.limit_in_bytes").read_text()) == found
            assert int((cpu / "cpu.cfs_quota_us").read_text()) == quota
        shim.connection.ask("stop", id=name, grace=0)
        name = shim.run("start", "take", "50", "print", "up", "sleep", "1000", resources={"memory": 64 * MEBIBYTE})
        shim.running(name)
        while b"up" not in shim.log(name):
            time.sleep(0.01)
        with pytest.raises(RuntimeError, match=r"cannot become 16777216 bytes: 5[0-9]{7} are in use"):
            shim.connection.ask("resize", id=name, resources={"memory": 16 * MEBIBYTE})
        shim.connection.ask("stop", id=name, grace=0)
        assert shim.ended(name)["reason"] == ""


def test_too_much_memory_is_an_oom_kill(tmp_path: Path, python: str) -> None:
    limit = {"memory": 32 * MEBIBYTE}
    with running(tmp_path / "state", python) as shim:
        name = shim.run("start", "take", "16", "take", "100", resources=limit)
        early = shim.run("take", "100", resources=limit)
        killed = shim.run("start", "sleep", "1000", resources=limit)
        record = shim.running(killed)
        if "memory" in CONTROLLERS:
            for one in (name, early):
                ended = shim.ended(one)
                assert (ended["reason"], ended["exit_code"], ended["message"]) == (wire.OOM_KILLED, 137, "")
            assert shim.output(name) == b"%d\n" % (16 * MEBIBYTE)
            ended, output = shim.exec(killed, "start", "take", "100")
            assert (ended["reason"], ended["exit_code"], output) == (wire.OOM_KILLED, 137, b"")
            assert alive(record["pid"])
        else:
            assert shim.ended(name)["exit_code"] == 0
        os.kill(record["pid"], 9)  # by somebody else, and not for want of memory
        ended = shim.ended(killed)
        assert (ended["reason"], ended["exit_code"], ended["signal"]) == ("", 137, 9)


HELPER = """
import os, signal, sys
with open(sys.argv[1], "w") as procs:
    procs.write("0")
count = 0
try:
    while os.fork() != 0:
        count += 1
    signal.pause()
except OSError:
    print(count, flush=True)
    signal.pause()
"""


def test_no_more_processes_than_it_may_have_and_none_is_left(tmp_path: Path) -> None:
    """A guest can start none, so a process of the test's own is in its group."""
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        record = shim.running(name)
        if "pids" not in CONTROLLERS:
            assert record["group"] == ""
            return
        directory = group(shim, record, "pids")
        assert int((directory / "pids.max").read_text()) == MOST_TASKS
        (directory / "pids.max").write_text("20")
        command = [sys.executable, "-c", HELPER, str(directory / "cgroup.procs")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as helper:
            assert helper.stdout is not None
            assert int(helper.stdout.readline()) == 18  # and itself, and the container's own
            shim.connection.ask("stop", id=name, grace=0)
            shim.ended(name)
            assert helper.wait(PATIENCE) == -9
            until_gone(directory)


def group_of_worker(shim: Shim, pid: int, controller: str) -> Path:
    """Directory of a dense worker's group, which is on no container's record."""
    return group(shim, {"group": os.path.basename(groups_of(pid)[controller])}, controller)


def test_a_worker_weighs_as_much_as_its_containers(tmp_path: Path) -> None:
    """And is limited in nothing else by what they ask for."""
    with running(tmp_path / "state") as shim:
        names = [shim.run("start", "sleep", "1000", dense="ns", resources={"cpu": 500, "memory": MEBIBYTE})]
        pid = shim.running(names[0])["pid"]
        names += [shim.run("start", "sleep", "1000", dense="ns", resources={"cpu_request": 250}) for _ in range(3)]
        assert {shim.running(name)["pid"] for name in names[1:]} == {pid}
        if "cpu" not in CONTROLLERS:
            assert shim.running(names[0])["group"] == ""
            return
        directory = group_of_worker(shim, pid, "cpu")

        def weighs(shares: int) -> bool:
            return int((directory / "cpu.shares").read_text()) == shares

        eventually(lambda: weighs(512 + 3 * 256))
        assert int((directory / "cpu.cfs_quota_us").read_text()) == -1
        shim.connection.ask("resize", id=names[0], resources={"cpu": 1000, "memory": MEBIBYTE})
        eventually(lambda: weighs(1024 + 3 * 256))
        for name in names[1:]:
            shim.connection.ask("stop", id=name, grace=0)
            shim.ended(name)
        eventually(lambda: weighs(1024))
        if "memory" in CONTROLLERS:
            assert int((group_of_worker(shim, pid, "memory") / "memory.limit_in_bytes").read_text()) > 2**60


def test_a_worker_without_room_for_a_thread_says_so(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        pid = shim.running(shim.run("start", "sleep", "1000", dense="ns"))["pid"]
        if "pids" not in CONTROLLERS:
            assert shim.ended(shim.run("start", dense="ns"))["exit_code"] == 0
            return
        most = group_of_worker(shim, pid, "pids") / "pids.max"
        assert int(most.read_text()) == ENGINE_TASKS + MOST_CONTAINERS
        most.write_text("2")
        record = shim.ended(shim.run("start", dense="ns"))
        assert (record["exit_code"], record["reason"]) == (128, wire.START_ERROR)
        assert record["message"].startswith("the worker has no room for another thread: ")
        assert alive(pid)
        most.write_text("3")
        assert shim.ended(shim.run("start", "exit", "3", dense="ns"))["exit_code"] == 3


def test_the_next_shim_removes_what_a_dead_one_left(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        record = shim.running(name)
        left = [group(shim, record, controller) for controller in CONTROLLERS]
        foreign = []
        if "pids" in CONTROLLERS:
            # One of ours that has lost its shim, and one beside our groups that is nobody's business.
            stray = os.posix_spawn(sys.executable, [sys.executable, "-c", "import time; time.sleep(1000)"], {})
            (group(shim, record, "pids") / "cgroup.procs").write_text(str(stray))
            foreign.append(own_group("pids") / f"wasmlet-{os.getpid()}-not-ours")
            foreign[0].mkdir()
        try:
            kill(shim.pid)
            wait_gone(record["pid"])
            assert all(path.exists() for path in left)
            shim.restart()
            until_gone(*left)
            if foreign:
                assert os.waitpid(stray, 0)[1] == 9
                assert foreign[0].exists()
            assert next(r for r in shim.connection.ask("list", watch=True) if r["id"] == name)["reason"] == wire.LOST
            assert shim.ended(shim.run("start", "exit", "4"))["exit_code"] == 4
        finally:
            for path in foreign:
                path.rmdir()
    assert tops(tmp_path / "state") == []


def test_groups_elsewhere_are_removed_too_if_they_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim before may have been started in another group."""
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.chdir(state)
    ours = tmp_path / "elsewhere" / cgroups.name_of(str(state))
    theirs = tmp_path / "elsewhere" / cgroups.name_of(str(tmp_path / "other"))
    for path in (ours, theirs):
        (path / "1-1").mkdir(parents=True)
    Path(groups.PLACES).write_text(json.dumps([str(ours), str(theirs)]))
    Groups(Loop(), wanted=False)
    assert not ours.exists()
    assert (theirs / "1-1").exists()
    assert json.loads(Path(groups.PLACES).read_text()) == []


def test_nodes_of_one_machine_do_not_meet(tmp_path: Path) -> None:
    with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        first, second = one.running(one.run("start", "sleep", "1000")), two.running(two.run("start", "sleep", "1000"))
        for controller in CONTROLLERS:
            assert group(one, first, controller).parent != group(two, second, controller).parent
        kill(one.pid)
        one.restart()
        assert alive(second["pid"])
        for controller in CONTROLLERS:
            assert group(two, second, controller).exists()


def test_nothing_is_left_of_many_groups(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        names = [shim.run("start", "print", "x") for _ in range(40)]
        assert {shim.ended(name)["exit_code"] for name in names} == {0}
        spare = shim.filled()
        in_use = {groups_of(pid)[c].rpartition("/")[2] for pid in spare for c in CONTROLLERS}
        until = time.monotonic() + PATIENCE
        for directory in [path for path in tops(shim.state) if path.suffix != cgroups.LEAF]:
            while {path.name for path in directory.iterdir() if path.is_dir()} != in_use:
                assert time.monotonic() < until
                time.sleep(0.01)


def test_without_groups_on_demand(tmp_path: Path) -> None:
    with running(tmp_path / "state", sys.executable, 60.0, "--no-cgroups") as shim:
        hello = shim.connection.ask("hello")
        assert (hello["confinement"]["cgroup"], hello["groups"]) == ("off: this node does not want it", {})
        record = shim.ended(shim.run("start", "exit", "3", resources={"memory": MEBIBYTE}))
        assert (record["exit_code"], record["group"]) == (3, "")
        assert tops(shim.state) == []


UNPRIVILEGED = """
import json, os, sys
from pathlib import Path
from tests.worker.harness import running

with running(Path(sys.argv[1])) as shim:
    hello = shim.connection.ask("hello")
    name = shim.run("start", "print", str(os.getuid()), "sleep", "1000", resources={"memory": 1 << 20, "cpu": 10})
    shim.running(name)
    executed, output = shim.exec(name, "start", "exit", "4")
    shim.connection.ask("resize", id=name, resources={"memory": 1 << 20, "cpu": 20})
    shim.connection.ask("stop", id=name, grace=30)
    print(json.dumps([hello, executed, shim.ended(name), shim.output(name).decode()]))
"""


@pytest.mark.needs_root("only root becomes another user")
def test_an_unprivileged_user_has_none_and_is_told_why(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, NOBODY, NOBODY)
    hello, executed, ended, output = json.loads(as_nobody(UNPRIVILEGED, str(state)))
    assert hello["groups"] == {}
    why = hello["confinement"]["cgroup"]
    assert why.startswith("off: ")
    if CONTROLLERS:
        assert f"uid {NOBODY} may not write {own_group('memory')}" in why
    assert (executed["exit_code"], ended["exit_code"], ended["group"]) == (4, 143, "")
    assert output == f"{NOBODY}\n"
