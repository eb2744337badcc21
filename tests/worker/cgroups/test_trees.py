"""Where control groups may be: trees of version 1, and a directory that imitates version 2 (`Imitation`).

What is asked of the kernel there is checked, not what the kernel makes of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.worker.cgroups.own_groups import MEBIBYTE
from wasmlet.worker import linux, wire
from wasmlet.worker.supervisor import cgroups, groups
from wasmlet.worker.supervisor.groups import ALLOWANCE, ENGINE_TASKS, MOST_TASKS, Group, Resources


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
    (directory / "memory.current").write_text(str(ALLOWANCE + MEBIBYTE))
    with pytest.raises(wire.WireError, match=f"{ALLOWANCE + MEBIBYTE} are in use"):
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
