"""Whose control groups are removed, and that nothing is left of them."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.shared.machine import NOBODY, as_nobody, own_group
from tests.worker.cgroups.own_groups import CONTROLLERS, MEBIBYTE, group, groups_of, tops, until_gone
from tests.worker.harness import PATIENCE, alive, kill, running, wait_gone
from wasmlet.worker import wire
from wasmlet.worker.loop import Loop
from wasmlet.worker.supervisor import cgroups, groups
from wasmlet.worker.supervisor.groups import Groups


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
