"""Many containers in one worker, with an engine that needs nothing: each is recorded, logged and ended by itself."""

from __future__ import annotations

import ast
import json
import os
import resource
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.shared.descriptors import open_descriptors
from tests.worker import fake_engine
from tests.worker.harness import PATIENCE, Shim, alive, kill, running, wait_gone
from wasmlet.worker import wire
from wasmlet.worker.guest import dense
from wasmlet.worker.loop import Loop
from wasmlet.worker.supervisor import workers

OWN_THREADS = 3
"""The threads of a worker beside one for each container: its main thread, and two that wait for messages."""


def worker_pids(shim: Shim) -> list[int]:
    return [pid for pid, name in shim.children().items() if name == "wasmlet-dense"]


def test_runs_containers_of_a_group_in_one_process(tmp_path: Path, python: str) -> None:
    with running(tmp_path / "state", python) as shim:
        args = ("start", "print", "hello", "error", "oops", "env", "exit", "207")
        name = shim.run(*args, dense="first", env=[["COLOR", "blue"]])
        record = shim.ended(name)
        assert (record["exit_code"], record["signal"], record["reason"], record["message"]) == (207, 0, "", "")
        assert record["created"] <= record["started"] <= record["finished"]
        assert shim.output(name) == b"hello\n[['COLOR', 'blue']]\n"
        assert shim.output(name, "stderr") == b"oops\n"
        assert shim.recorded(name) == record
        same = [shim.running(shim.run("start", "sleep", "1000", dense="first")) for _ in range(3)]
        other = shim.running(shim.run("start", "sleep", "1000", dense="second"))
        alone = shim.running(shim.run("start", "sleep", "1000"))
        assert {one["pid"] for one in same} == {record["pid"]}
        assert len({one["thread"] for one in same}) == 3
        assert {one["memory"] for one in same} == {4096}
        assert len({record["pid"], other["pid"], alone["pid"]}) == 3
        assert (alone["thread"], alone["memory"]) == (0, 0)


def test_a_worker_without_room_for_descriptors_goes_on(tmp_path: Path) -> None:
    """A guest may have opened all that its worker may have; the others are not to end with the next start."""
    with running(tmp_path / "state") as shim:
        pid = shim.running(shim.run("start", "sleep", "1000", dense="ns"))["pid"]
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        record = shim.ended(shim.run("start", dense="ns"))
        assert (record["exit_code"], record["reason"]) == (128, wire.START_ERROR)
        assert record["message"] == "the worker has no room for more descriptors"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        again = shim.ended(shim.run("start", "exit", "3", dense="ns"))
        assert (again["pid"], again["exit_code"]) == (pid, 3)


def test_a_module_is_loaded_once(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        module = tmp_path / "module.bin"
        module.write_bytes(b"compiled")
        names = []
        for _ in range(3):
            spec, code = os.memfd_create("spec"), os.open(module, os.O_RDONLY)
            os.write(spec, json.dumps({"args": ["start", "loaded"], "env": []}).encode())
            names.append(f"{len(names):016x}")
            fields = {"id": names[-1], "labels": {}, "log": f"logs/{names[-1]}/0.log", "zygote": shim.zygote}
            shim.connection.ask("run", (spec, code), dense="ns", **fields)
            os.close(spec)
            os.close(code)
            assert shim.ended(names[-1])["exit_code"] == 0
        assert [shim.output(name) for name in names] == [b"1 1\n"] * 3


def test_a_directory_that_was_replaced_is_not_opened(tmp_path: Path) -> None:
    """As a guest may that can write to what is above it."""
    kept, replaced, gone, secret = (tmp_path / name for name in ("kept", "replaced", "gone", "secret"))
    for path in (kept, replaced, gone, secret):
        path.mkdir()
    wanted = {str(path): workers.Directory.named(str(path)) for path in (kept, replaced, gone)}
    worker = workers.Worker(Loop(), "worker", wanted, lambda _: None)
    assert worker.may_open(wanted)
    replaced.rename(tmp_path / "elsewhere")
    replaced.symlink_to(secret)
    gone.rmdir()
    before = open_descriptors()
    message, opened = worker._instructions(None)
    assert message == {"dense": True, "readable": 0}
    assert [os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in opened] == [str(kept)]
    wire.close(opened)
    assert open_descriptors() <= before
    assert worker.may_open({f"{kept}/below": workers.Directory(True, (0, 0))})
    assert not worker.may_open({str(replaced): wanted[str(replaced)]})
    assert not worker.may_open({str(gone): wanted[str(gone)]})


@pytest.mark.parametrize(
    ("args", "code", "reason", "message"),
    [
        (("start", "trap", "wasm trap: unreachable"), 134, "", "wasm trap: unreachable"),
        (("refuse", "no memory"), 128, "StartError", "no memory"),
        (("start", "exit", "255"), 255, "", ""),
        (("bug", "before"), 128, "StartError", "RuntimeError: before"),
        (("start", "bug", "after"), 128, "StartError", "RuntimeError: after"),
    ],
)
def test_how_a_container_ended(tmp_path: Path, args: tuple[str, ...], code: int, reason: str, message: str) -> None:
    with running(tmp_path / "state") as shim:
        other = shim.run("start", "sleep", "1000", dense="ns")
        pid = shim.running(other)["pid"]
        record = shim.ended(shim.run(*args, dense="ns"))
        assert (record["exit_code"], record["signal"], record["reason"], record["message"]) == (
            code,
            0,
            reason,
            message,
        )
        assert alive(pid)
        shim.connection.ask("stop", id=other, grace=30)
        assert shim.ended(other)["exit_code"] == 143


def test_a_worker_may_say_anything_of_its_containers(tmp_path: Path) -> None:
    """A guest that has broken its engine: what it sends becomes no record that others stumble over."""
    name = secrets.token_hex(8)
    begins = {"id": name, "started": "../../1", "memory": {"a": [1e999]}}
    ends = {"id": name, "over": True, "code": "none", "message": ["no text"], "interrupted": 0}
    with running(tmp_path / "state") as shim:
        shim.run("say", json.dumps(begins), "say", json.dumps(ends), "sleep", "1000", name=name, dense="ns")
        record = shim.ended(name)
        assert (record["thread"], record["memory"]) == (0, 0)
        assert (record["exit_code"], record["message"]) == (0, "")
        assert b"Traceback" not in (shim.state / "shim.log").read_bytes()


def test_what_is_nested_without_end_is_not_understood(tmp_path: Path) -> None:
    """Descriptors that come with it are closed, and nothing is logged each time."""
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "say", "[" * 60_000, "sleep", "1000", dense="ns")
        assert shim.ended(name)["exit_code"] == 137  # of a worker that breaks the rules nothing more is heard
        assert b"Traceback" not in (shim.state / "shim.log").read_bytes()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        before = open_descriptors()
        wire.send(ours, b'{"a":' * 10_000, (0, 0, 0))
        with pytest.raises(wire.WireError):
            wire.receive(theirs)
        assert open_descriptors() <= before


def test_ends_the_one_that_is_meant(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        names = [shim.run("start", "sleep", "1000", dense="ns") for _ in range(200)]
        pid = shim.running(names[0])["pid"]
        for name in names:
            assert shim.running(name)["pid"] == pid
        for number, name in enumerate(names[::2]):
            shim.connection.ask("stop", id=name, grace=30 if number % 2 else 0)
        codes = [shim.ended(name)["exit_code"] for name in names[::2]]
        assert codes == [137, 143] * 50
        states = {item["id"]: item["state"] for item in shim.connection.ask("list", watch=True)}
        assert {states[name] for name in names[1::2]} == {wire.RUNNING}
        assert worker_pids(shim) == [pid]
        assert len(os.listdir(f"/proc/{pid}/task")) <= 100 + OWN_THREADS


def test_a_worker_has_room_for_a_thousand(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        names = [shim.run("start", "sleep", "1000", dense="ns") for _ in range(workers.MOST_CONTAINERS + 1)]
        records = [shim.connection.until(name, wire.RUNNING, wire.ENDED) for name in names]
        assert [record["message"] for record in records if record["state"] != wire.RUNNING] == []
        *one, last = (record["pid"] for record in records)
        assert set(one) == {one[0]} != {last}
        assert len(os.listdir(f"/proc/{one[0]}/task")) == workers.MOST_CONTAINERS + OWN_THREADS


def test_who_shares_a_worker_may_open_the_same_files(tmp_path: Path) -> None:
    """A worker is left the directories of its first container, and those that pods have theirs in."""
    with running(tmp_path / "state") as shim:
        (tmp_path / "link").symlink_to("pods")

        def pid(*mounts: str) -> int:
            for mount in mounts:
                (tmp_path / mount).mkdir(parents=True, exist_ok=True)
            spec, module = os.memfd_create("spec"), os.memfd_create("module")
            words = {"args": ["start", "sleep", "1000"], "env": [], "mounts": [{"path": f"/{n}"} for n in mounts]}
            os.write(spec, json.dumps(words).encode())
            opened = [spec, module, *(os.open(tmp_path / mount, os.O_PATH | os.O_DIRECTORY) for mount in mounts)]
            name = secrets.token_hex(8)
            fields = {"labels": {}, "log": f"logs/{name}/0.log", "zygote": shim.zygote, "dense": "ns"}
            shim.connection.ask("run", opened, id=name, within=[str(tmp_path / "link")], **fields)
            wire.close(opened)
            found: int = shim.running(name)["pid"]
            return found

        (tmp_path / "pods").mkdir()
        first = pid("pods/a")
        assert [pid("pods/b"), pid("pods/a", "pods/b/c"), pid()] == [first] * 3
        elsewhere = pid("pods/d", "elsewhere")
        assert elsewhere != first
        assert [pid("elsewhere/e"), pid("pods/f"), pid("elsewhere", "pods/g")] == [elsewhere, first, elsewhere]
        assert pid("elsewhere-too") not in (first, elsewhere)
        (tmp_path / "pods").rename(tmp_path / "earlier")
        assert pid("pods/h") not in (first, elsewhere)


@pytest.mark.parametrize("grace", [0, 30])
def test_whenever_it_is_stopped_it_ends(tmp_path: Path, grace: int) -> None:
    with running(tmp_path / "state") as shim:
        stopped = shim.run("start", "sleep", "1000", dense="ns")  # before there is a worker
        shim.connection.ask("stop", id=stopped, grace=grace)
        assert shim.ended(stopped)["exit_code"] == (143 if grace else 137)
        for number in range(40):
            name = shim.run("start", "sleep", "1000", dense="ns")
            until = time.monotonic() + number * 0.0001
            while time.monotonic() < until:
                pass
            shim.connection.ask("stop", id=name, grace=grace)
            assert shim.ended(name)["exit_code"] == (143 if grace else 137)
        assert shim.ended(shim.run("start", "exit", "3", dense="ns"))["exit_code"] == 3
        assert (shim.state / "shim.log").read_text() == ""


def test_guests_that_take_long_to_begin_hold_up_nobody(tmp_path: Path) -> None:
    """As one may whose module has a start function."""
    with running(tmp_path / "state") as shim:
        slow = [shim.run("sleep", "1000", dense="ns") for _ in range(5)]
        for code in range(3):
            assert shim.ended(shim.run("start", "exit", str(code), dense="ns"))["exit_code"] == code
        for name in slow:
            shim.connection.ask("stop", id=name, grace=30)
        assert [shim.ended(name)["exit_code"] for name in slow] == [143] * 5
        assert len(worker_pids(shim)) == 1


def test_one_may_be_stopped_before_its_thread_has_said_that_it_is_there() -> None:
    """The threads of a worker read the messages, so one may be quicker than the one that has read what came before."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    engine: Any = fake_engine
    name, files = "0" * 16, [os.memfd_create(name) for name in ("stdout", "stderr", "spec", "module")]
    os.write(files[2], json.dumps({"args": ["sleep", "1000"], "env": []}).encode())
    worker = dense._Worker(theirs, engine, None)
    worker._stop(name)
    serving = threading.Thread(target=worker.serve)
    serving.start()
    with ours, theirs:
        wire.send(ours, wire.pack({"run": name}), tuple(files))
        received = wire.receive(ours)
        assert received is not None
        said, _ = received
        assert (said["id"], said["over"], said["interrupted"]) == (name, True, True)
        ours.shutdown(socket.SHUT_RDWR)
        serving.join(PATIENCE)
        assert not serving.is_alive()
    wire.close(files)


@pytest.mark.parametrize("number", [9, 11])
def test_a_worker_that_dies_ends_what_was_in_it(tmp_path: Path, number: int) -> None:
    with running(tmp_path / "state") as shim:
        names = [shim.run("start", "print", "up", "sleep", "1000", dense="ns") for _ in range(5)]
        pids = {shim.running(name)["pid"] for name in names}
        elsewhere = shim.run("start", "sleep", "1000", dense="other")
        shim.running(elsewhere)
        shim.run("start", "signal", str(number), dense="ns")
        for name in names:
            record = shim.ended(name)
            assert (record["exit_code"], record["signal"], record["reason"]) == (128 + number, number, "")
            assert "shared with other containers" in record["message"]
            assert shim.output(name) == b"up\n"
        again = shim.running(shim.run("start", "sleep", "1000", dense="ns"))
        assert again["pid"] not in pids
        assert {item["id"] for item in shim.connection.ask("list", watch=True) if item["state"] == wire.RUNNING} == {
            elsewhere,
            again["id"],
        }


def test_one_that_does_not_end_takes_its_worker_along(tmp_path: Path) -> None:
    """It cannot be had out of the process alone; nothing that was killed may go on."""
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "stubborn", dense="ns")
        other = shim.run("start", "sleep", "1000", dense="ns")
        pid = shim.running(name)["pid"]
        shim.running(other)
        began = time.monotonic()
        shim.connection.ask("stop", id=name, grace=0)
        record = shim.ended(name)
        assert time.monotonic() - began >= workers.KILL_SECONDS * 0.9
        assert (record["exit_code"], record["requested"]) == (137, "kill")
        assert (shim.ended(other)["exit_code"], shim.ended(other)["signal"]) == (137, 9)
        wait_gone(pid)
        assert f"its worker {pid} is killed" in (shim.state / "shim.log").read_text()


def test_a_dead_zygote_does_not_lose_what_was_asked_for(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        shim.ended(shim.run("start", dense="ns"))
        os.kill(shim.zygote_pid(), 19)  # SIGSTOP: what is asked for now waits in the channel
        waiting = [shim.run("start", "exit", "6", dense=f"ns{number % 2}") for number in range(6)]
        kill(shim.zygote_pid())
        assert [shim.ended(name)["exit_code"] for name in waiting] == [6] * 6


def test_an_engine_that_cannot_be_loaded(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def prepare():\n    raise ImportError('no such engine')\n")
    with running(tmp_path / "state") as shim:
        shim.engine = broken
        record = shim.ended(shim.run("start", dense="ns"))
        assert (record["exit_code"], record["reason"]) == (128, "StartError")
        assert record["message"] == "the engine cannot be loaded: ImportError: no such engine"


def test_a_flood_slows_down_nobody_but_itself(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        loud = shim.run("start", "flood", "100000000", dense="ns")
        shim.running(loud)
        logged = (0, 0)
        for number in range(5):
            name = shim.run("start", "print", str(number), dense="ns")
            assert shim.ended(name)["exit_code"] == 0
            assert shim.output(name) == f"{number}\n".encode()
            until = time.monotonic() + PATIENCE
            while (grown := shim.logged(loud)) <= logged:  # it goes on meanwhile
                assert time.monotonic() < until, "the flood has ended"
                time.sleep(0.01)
            logged = grown
        shim.connection.ask("stop", id=loud, grace=30)
        assert shim.ended(loud)["exit_code"] == 143
        assert shim.log(loud).endswith(b"\n")


def test_an_exec_is_a_process_that_ends_with_its_container(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000", dense="ns", env=[["COLOR", "blue"]])
        pid = shim.running(name)["pid"]
        record, output = shim.exec(name, "start", "env", "cat", "exit", "7", stdin=b"typed")
        assert (record["exit_code"], output) == (7, b"[['COLOR', 'blue']]\ntyped")
        assert record["pid"] != pid


def test_what_a_dense_container_cannot_have(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        for fields in ({"stdin": True}, {"tty": True}):
            with pytest.raises(RuntimeError, match="neither stdin nor a terminal"):
                shim.run("start", dense="ns", **fields)
        for group in ("", 7, "x" * 300):
            with pytest.raises(RuntimeError, match="expected a group"):
                shim.run("start", dense=group)
        for within in ("/tmp", ["tmp"], [7], ["/tmp"] * 9):
            with pytest.raises(RuntimeError, match="expected at most 8 absolute paths"):
                shim.run("start", dense="ns", within=within)
        assert shim.connection.ask("list") == []


def test_nothing_is_left_of_many_containers(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        shim.ended(shim.run("start", dense="ns"))
        (pid,) = worker_pids(shim)

        def world() -> list[int]:
            name = shim.run("start", "world", dense="ns")
            shim.ended(name)
            found: list[int] = ast.literal_eval(shim.output(name).decode())["descriptors"]
            return found

        inside, outside = world(), open_descriptors(shim.pid)
        # Streams, control, and the two streams of the guest that looks.
        assert len(inside) == 6
        names = [shim.run("start", "print", "x", dense="ns") for _ in range(200)]
        assert {shim.ended(name)["exit_code"] for name in names} == {0}
        shim.connection.ask("forget", ids=names)
        assert len(world()) == 6
        assert open_descriptors(shim.pid) <= outside
        assert worker_pids(shim) == [pid]


def test_workers_end_with_their_shim(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000", dense="ns")
        pid = shim.running(name)["pid"]
        kill(shim.pid)
        wait_gone(pid)
        shim.restart()
        (lost,) = shim.connection.ask("list")
        assert (lost["state"], lost["reason"], lost["exit_code"]) == (wire.ENDED, wire.LOST, 137)
