"""Children forked ahead of need: who gets them, what is in them, and what becomes of those that nobody needs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.worker.harness import FAKE_ENGINE, Shim, alive, kill, running, spares, wait_gone
from wasmlet.worker import wire
from wasmlet.worker.supervisor.zygotes import SPARE

FATAL = """
import os

def prepare():
    global zygote
    zygote = os.getpid()
    os.register_at_fork(after_in_child=end_in_a_child)

def end_in_a_child():
    if os.getppid() != zygote:  # that of a process that the zygote has for itself, or of one in between
        os._exit(1)
"""
"""An engine of which no child survives its fork."""

WAYS = {
    "siblings": "",
    "orphans, as on a machine that is not known": "siblings._CLONE.clear()",
    "orphans, as the kernel refuses siblings": f"siblings._FLAGS |= {0x10000}",  # a thread with memory of its own
}
"""How the shim comes to its children, and what an engine does to its zygote for that."""
BELONGING = """
import sys

siblings = sys.modules["wasmlet_worker.guest.siblings"]
{way}
sys.path.insert(0, {directory!r})
from fake_engine import *
"""


@pytest.mark.parametrize("way", WAYS)
def test_children_are_the_shims_however_they_are_made(tmp_path: Path, python: str, way: str) -> None:
    engine = tmp_path / "engine.py"
    engine.write_text(BELONGING.format(way=WAYS[way], directory=str(FAKE_ENGINE.parent)))
    with running(tmp_path / "state", python) as shim:
        shim.engine = engine
        shim.ended(shim.run("start"))
        shim.filled()
        before = _faults_of_children(shim.zygote_pid())
        names = [shim.run("start", "sleep", "1000") for _ in range(6)]
        pids = {shim.running(name)["pid"] for name in names}
        assert len(pids) == len(names)
        assert pids | shim.filled() | {shim.zygote_pid()} == set(shim.children())
        assert (_faults_of_children(shim.zygote_pid()) == before) == (way == "siblings")
        assert shim.ended(shim.run("start", "exit", "3"))["exit_code"] == 3
        left = set(shim.children())
        kill(shim.pid)
        for pid in left:
            wait_gone(pid)
        shim.restart()


def _faults_of_children(pid: int) -> int:
    """The page faults of the children for which a process has waited: more than before where there was one more."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[8])


def test_a_start_takes_a_child_that_is_ready(tmp_path: Path, python: str) -> None:
    with running(tmp_path / "state", python) as shim:
        assert spares(shim.pid) == set()  # none before the first use
        shim.ended(shim.run("start"))
        for _ in range(5):
            spare = shim.filled()
            name = shim.run("start", "sleep", "1000")
            pid = shim.running(name)["pid"]
            assert pid in spare
            assert shim.children()[pid] == "wasmlet-guest"
            assert pid not in shim.filled()
            shim.connection.ask("stop", id=name, grace=0)
            assert shim.ended(name)["exit_code"] == 137
        assert (shim.state / "shim.log").read_text() == ""


def test_more_at_once_than_are_ready(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        names = [shim.run("start", "print", str(number), "sleep", "1000") for number in range(30)]
        pids = {shim.running(name)["pid"] for name in names}
        assert len(pids) == len(names)
        for number, name in enumerate(names):
            shim.connection.ask("stop", id=name, grace=0)
            shim.ended(name)
            assert shim.output(name) == b"%d\n" % number
        assert len(shim.filled()) == SPARE


def test_nobody_gets_a_child_that_has_died(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        shim.ended(shim.run("start"))
        for number in range(5):
            spare = shim.filled()
            os.kill(shim.pid, signal.SIGSTOP)  # so that it is asked for a container before it has seen them die
            for pid in spare:
                os.kill(pid, signal.SIGKILL)
                while alive(pid):
                    os.sched_yield()
            name = f"{number:016x}"
            _ask_to_run(shim, name, "start", "exit", "4")
            os.kill(shim.pid, signal.SIGCONT)
            record = shim.ended(name)
            assert (record["exit_code"], record["reason"]) == (4, "")
            assert record["pid"] not in spare


def _ask_to_run(shim: Shim, name: str, *args: str) -> None:
    """As `Shim.run`, without waiting for the answer."""
    spec, module = os.memfd_create("spec"), os.memfd_create("module")
    os.write(spec, json.dumps({"args": args, "env": []}).encode())
    message = {"op": "run", "n": 0, "id": name, "labels": {}, "log": f"logs/{name}/0.log", "zygote": shim.zygote}
    wire.send(shim.connection.socket, wire.pack(message), (spec, module))
    wire.close((spec, module))


def test_spare_children_go_when_they_are_not_used(tmp_path: Path) -> None:
    with running(tmp_path / "state", idle_exit=0.5) as shim:
        shim.ended(shim.run("start"))
        spare = shim.filled()
        for pid in spare:
            wait_gone(pid)
        assert shim.children() == {shim.zygote_pid(): "wasmlet-zygote"}
        assert shim.ended(shim.run("start", "exit", "3"))["exit_code"] == 3


def test_spare_children_end_with_their_zygote_and_with_the_shim(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        shim.ended(shim.run("start"))
        spare = shim.filled()
        kill(shim.zygote_pid())
        for pid in spare:
            wait_gone(pid)
        shim.ended(shim.run("start"))
        spare = shim.filled()
        kill(shim.pid)
        for pid in spare:
            wait_gone(pid)
        shim.restart()


def test_no_container_leaves_anything_in_the_next_one(tmp_path: Path) -> None:
    secret = "".join(["7b1c", "e55e", "0ff1"] * 4)
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000", env=[["SECRET", secret]])
        pid = shim.running(name)["pid"]
        assert _holds(pid, secret)
        for other in (shim.zygote_pid(), shim.pid, *shim.filled()):
            assert not _holds(other, secret)


def _holds(pid: int, text: str) -> bool:
    """Whether the text is somewhere in the memory of the process."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            bounds, rights = line.split()[:2]
            begin, end = (int(bound, 16) for bound in bounds.split("-"))
            if rights.startswith("rw"):
                memory.seek(begin)
                if text.encode() in memory.read(end - begin):
                    return True
    return False


def test_an_engine_whose_children_are_never_ready(tmp_path: Path) -> None:
    fatal = tmp_path / "fatal.py"
    fatal.write_text(FATAL)
    with running(tmp_path / "state") as shim:
        shim.engine = fatal
        record = shim.ended(shim.run("start"))
        assert (record["exit_code"], record["reason"]) == (128, wire.START_ERROR)
        assert record["message"] == "processes of the engine end before they are ready"
        assert record["pid"] == 0
        assert spares(shim.pid) == set()


def _warmed(shim: Shim, version: str) -> int:
    """Have a zygote of this version of the engine; its pid."""
    before = shim.children()
    shim.connection.ask("warm", zygote=shim.zygote | {"version": version})
    (pid,) = shim.children().keys() - before.keys()
    return pid


def test_a_zygote_that_was_only_warmed_goes_when_the_engine_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        old = _warmed(shim, "1")
        new = _warmed(shim, "2")
        wait_gone(old)
        shim.ended(shim.run("start", zygote=shim.zygote | {"version": "2"}))
        assert alive(new)


def test_a_zygote_that_was_warmed_for_a_newer_engine_outlives_the_older_one(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        old = _warmed(shim, "1")
        names = [shim.run("start", "sleep", "1000", zygote=shim.zygote | {"version": "1"}) for _ in range(2)]
        for name in names:
            shim.running(name)
        shim.filled()
        new = _warmed(shim, "2")
        for name in names:
            assert (alive(old), alive(new)) == (True, True)
            shim.connection.ask("stop", id=name, grace=0)
            shim.ended(name)
        wait_gone(old)
        assert alive(new)
