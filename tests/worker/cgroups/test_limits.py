"""What control groups hold: a shim is driven for real on trees of version 1, where this process may write such."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.shared.machine import own_group
from tests.worker.cgroups.own_groups import ALL, CONTROLLERS, MEBIBYTE, eventually, group, groups_of, tops, until_gone
from tests.worker.harness import PATIENCE, Connection, Shim, alive, running
from wasmlet.worker import wire
from wasmlet.worker.supervisor import cgroups, groups
from wasmlet.worker.supervisor.groups import ALLOWANCE, ENGINE_TASKS, MOST_TASKS, Resources, shares_of
from wasmlet.worker.supervisor.workers import MOST_CONTAINERS


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
        listening = 2
        eventually(lambda: len(os.listdir(f"/proc/{pid}/task")) == 1 + 1 + listening)
        most.write_text("2")
        for _ in range(listening - 1):  # on threads that are there
            assert shim.running(shim.run("start", "sleep", "1000", dense="ns"))["pid"] == pid
        record = shim.ended(shim.run("start", dense="ns"))
        assert (record["exit_code"], record["reason"]) == (128, wire.START_ERROR)
        assert record["message"].startswith("the worker has no room for another thread: ")
        assert alive(pid)
        most.write_text("10")
        assert shim.ended(shim.run("start", "exit", "3", dense="ns"))["exit_code"] == 3
