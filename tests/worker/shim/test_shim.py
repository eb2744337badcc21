"""The shim, with an engine that needs nothing: what a node loop may ask of it, what it survives, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.shared.descriptors import open_descriptors
from tests.worker.harness import (
    FAKE_ENGINE,
    WORKER,
    Connection,
    Shim,
    alive,
    kill,
    running,
    unconnected,
    wait_gone,
)
from wasmlet.worker import wire
from wasmlet.worker.supervisor.store import RECORDS


def test_lists_until_forgotten(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        done, busy = shim.run("start"), shim.run("start", "sleep", "1000")
        shim.ended(done)
        assert {item["id"] for item in shim.connection.ask("list")} == {done, busy}
        assert shim.connection.ask("forget", ids=[done, busy, "unknown"]) == {"count": 1}
        assert [item["id"] for item in shim.connection.ask("list")] == [busy]
        assert shim.recorded(done) == {}
        assert shim.recorded(busy)["id"] == busy


def test_goes_on_without_a_node_loop(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "print", "before", "sleep", "0.3", "print", "after", "exit", "3")
        shim.connection.close()
        shim.connection = Connection(shim.state)
        (item,) = shim.connection.ask("list", watch=True)
        assert item["id"] == name
        record = item if item["state"] == wire.ENDED else shim.ended(name)
        assert record["exit_code"] == 3
        assert shim.output(name) == b"before\nafter\n"


def test_a_start_that_is_waited_for_takes_one_message(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        for number in range(100, 200):
            ask_to_run(shim, number, f"{number:016}", "start", "sleep", "1000")
            told = shim.connection.next()
            assert (told["re"], told["event"]) == (number, "container")
            if told["container"]["state"] == wire.RUNNING:
                break
            shim.running(told["container"]["id"])  # the zygote was not there yet
        else:
            raise AssertionError("every start was slow")
        ask_to_run(shim, 71, f"{number:016}", "start")  # once more, as after a lost connection
        assert shim.connection.next() == {"re": 71, "ok": {"container": told["container"]}}
        ask_to_run(shim, 72, "b" * 16, "refuse", "no such thing")
        while (told := shim.connection.next())["container"]["state"] == wire.STARTING:
            assert told["re"] == 72
        assert (told["event"], told["container"]["reason"]) == ("container", wire.START_ERROR)


def test_a_slow_start_is_told_before_it_has_begun(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        ask_to_run(shim, 71, "a" * 16, "sleep", "1000", "start")
        told = shim.connection.next()
        assert (told["re"], told["container"]["state"]) == (71, wire.STARTING)


def test_who_greets_is_told_all_first(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        ask_to_run(shim, 71, "a" * 16, "sleep", "1000", "start")
        wire.send(shim.connection.socket, wire.pack({"op": "hello", "n": 72}))
        told, greeting = shim.connection.next(), shim.connection.next()
        assert (told["re"], told["container"]["state"]) == (71, wire.STARTING)
        assert greeting["re"] == 72
        shim.connection.ask("stop", id="a" * 16)
        assert shim.ended("a" * 16)["exit_code"] == wire.KILLED_CODE


def ask_to_run(shim: Shim, number: int, name: str, *args: str) -> None:
    """Ask for a container, and for an answer when it has begun."""
    spec, module = os.memfd_create("spec"), os.memfd_create("module")
    os.write(spec, json.dumps({"args": args, "env": [], "memory": None}).encode())
    fields = {"id": name, "labels": {}, "log": f"logs/{name}/0.log", "zygote": shim.zygote, "wait": True}
    wire.send(shim.connection.socket, wire.pack({"op": "run", "n": number, **fields}), (spec, module))
    wire.close((spec, module))


def test_every_watcher_is_told(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        other, silent = Connection(shim.state), Connection(shim.state)
        other.ask("list", watch=True)
        silent.ask("list")
        name = shim.run("start", "exit", "4")
        assert shim.ended(name) == other.until(name, wire.ENDED)
        assert silent.ask("hello")["pid"] == shim.pid
        assert silent.events == []
        other.close()
        silent.close()


def test_a_dead_zygote_is_replaced_and_its_children_live(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        survivor = shim.run("start", "sleep", "1000")
        pid = shim.running(survivor)["pid"]
        first = shim.zygote_pid()
        kill(first)
        record = shim.ended(shim.run("start", "exit", "5"))
        assert record["exit_code"] == 5
        assert shim.zygote_pid() != first
        assert alive(pid)
        shim.connection.ask("stop", id=survivor, grace=0)
        assert shim.ended(survivor)["exit_code"] == 137


def test_containers_that_wait_for_a_zygote_that_dies_get_another(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        shim.ended(shim.run("start"))
        os.kill(shim.zygote_pid(), 19)  # SIGSTOP: what is asked for now waits in the channel
        waiting = [shim.run("start", "exit", "6") for _ in range(5)]
        kill(shim.zygote_pid())
        assert [shim.ended(name)["exit_code"] for name in waiting] == [6] * 5


def test_an_engine_that_cannot_be_loaded(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def prepare():\n    raise ImportError('no such engine')\n")
    with running(tmp_path / "state") as shim:
        shim.engine = broken
        record = shim.ended(shim.run("start"))
        assert (record["exit_code"], record["reason"]) == (128, "StartError")
        assert record["message"] == "the engine cannot be loaded: ImportError: no such engine"
        shim.engine = FAKE_ENGINE
        assert shim.ended(shim.run("start"))["exit_code"] == 0


def test_an_interpreter_that_does_not_exist(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", zygote={"python": "/nowhere/python", "module": str(FAKE_ENGINE)})
        record = shim.ended(name)
        assert (record["exit_code"], record["reason"]) == (128, "StartError")
        assert "/nowhere/python" in record["message"]


def test_killed_shim_takes_its_containers_along_and_they_are_lost(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        done, busy = shim.run("start", "exit", "9"), shim.run("start", "sleep", "1000")
        shim.ended(done)
        record = shim.running(busy)
        zygote = shim.zygote_pid()
        kill(shim.pid)
        wait_gone(record["pid"])
        wait_gone(zygote)
        shim.restart()
        items = {item["id"]: item for item in shim.connection.ask("list")}
        assert items[done]["exit_code"] == 9
        lost = items[busy]
        assert (lost["state"], lost["reason"], lost["exit_code"]) == (wire.ENDED, wire.LOST, 137)
        assert lost["message"] == "The container could not be located: the shim that ran it has died"
        assert lost["finished"] >= lost["started"]


def test_sigterm_ends_containers_first_and_records_it(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        shim.running(name)
        os.kill(shim.pid, 15)
        wait_gone(shim.pid)
        record = shim.recorded(name)
        assert (record["state"], record["exit_code"]) == (wire.ENDED, 143)
        assert unconnected(shim.state)


def test_shutdown_is_refused_while_containers_run(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        pid = shim.running(name)["pid"]
        with pytest.raises(RuntimeError, match="1 containers are running"):
            shim.connection.ask("shutdown", force=False)
        shim.connection.ask("shutdown", force=True)
        wait_gone(shim.pid)
        assert not alive(pid)


def test_leaves_by_itself_when_nobody_needs_it(tmp_path: Path) -> None:
    with running(tmp_path / "state", idle_exit=0.2) as shim:
        name = shim.run("start", "sleep", "0.5")
        shim.connection.close()
        wait_gone(shim.pid)
        record = shim.recorded(name)
        assert record["exit_code"] == 0  # it stayed for as long as the container ran
        assert sorted(path.name for path in shim.state.iterdir()) == [
            "logs", RECORDS, "shim.lock", "shim.log", "state.json",
        ]  # fmt: skip


def test_stays_while_connected(tmp_path: Path) -> None:
    with running(tmp_path / "state", idle_exit=0.5) as shim:
        time.sleep(1.0)
        assert shim.connection.ask("hello")["pid"] == shim.pid


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"id": "../escape"}, "container id"),
        ({"id": "0" * 65}, "container id"),
        ({"id": 7}, "container id"),
        ({"log": "/etc/passwd"}, "below logs/"),
        ({"log": "logs/../../x"}, "below logs/"),
        ({"log": RECORDS}, "below logs/"),
        ({"labels": "text"}, "labels"),
        ({"labels": {"x": "y" * 20_000}}, "labels"),
        ({"zygote": {"python": "python", "module": "x"}}, "absolute paths"),
        ({"zygote": None}, "absolute paths"),
    ],
)
def test_refuses_what_breaks_the_rules(tmp_path: Path, fields: dict[str, object], complaint: str) -> None:
    with running(tmp_path / "state") as shim:
        whole = {
            "id": "00ff00ff",
            "labels": {},
            "log": "logs/x/0.log",
            "zygote": {"python": sys.executable, "module": str(FAKE_ENGINE)},
        } | fields
        before = open_descriptors(shim.pid)
        pair = os.pipe()
        with pytest.raises(RuntimeError, match=complaint):
            shim.connection.ask("run", pair, **whole)
        with pytest.raises(RuntimeError, match="two descriptors"):
            shim.connection.ask("run", pair[:1], **whole | _sound())
        for descriptor in pair:
            os.close(descriptor)
        assert shim.connection.ask("list") == []
        assert open_descriptors(shim.pid) <= before


def _sound() -> dict[str, object]:
    zygote = {"python": sys.executable, "module": str(FAKE_ENGINE)}
    return {"id": "00ff00ff", "labels": {}, "log": "logs/x/0.log", "zygote": zygote}


def test_nonsense_ends_a_connection_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        for nonsense in (b"\xff\xfe", b"[1, 2]", b"{", b"null"):
            bad = Connection(shim.state)
            bad.socket.send(nonsense)
            assert bad.socket.recv(100) == b""
            bad.close()
        with pytest.raises(RuntimeError, match="expected an operation, found 'dance'"):
            shim.connection.ask("dance")
        with pytest.raises(RuntimeError):
            shim.connection.ask("stop", id="x", grace="soon")
        assert shim.connection.ask("hello")["pid"] == shim.pid


def test_a_node_loop_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        for _ in range(30):
            shim.ended(shim.run("start", labels={"x": "y" * 16_000}))
        with contextlib.closing(Connection(shim.state)) as deaf:
            with contextlib.suppress(ConnectionError):  # it may be cut off before it has asked everything
                for number in range(200):  # each answer has half a megabyte
                    wire.send(deaf.socket, wire.pack({"op": "list", "n": number}))
            hung_up = select.poll()
            hung_up.register(deaf.socket, 0)
            assert hung_up.poll(10_000)
        assert shim.connection.ask("hello")["pid"] == shim.pid
        assert "unread: cut off" in (shim.state / "shim.log").read_text()
        assert _resident(shim.pid) < 150 * 2**20


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_flood_starves_nobody_and_stays_small(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        loud = shim.run("start", "flood", "100000000")
        shim.running(loud)
        logged = (0, 0)
        for number in range(5):
            began = time.monotonic()
            name = shim.run("start", "print", str(number))
            assert shim.ended(name)["exit_code"] == 0
            assert shim.output(name) == f"{number}\n".encode()
            assert time.monotonic() - began < 20
            grown = shim.logged(loud)
            assert grown > logged  # it goes on meanwhile
            logged = grown
            assert shim.taken(loud) <= 5 * 10 * 2**20 + 2**20  # five files, and one being compressed
        assert _resident(shim.pid) < 64 * 2**20
        shim.connection.ask("stop", id=loud, grace=30)
        assert shim.ended(loud)["exit_code"] == 143
        assert shim.log(loud).endswith(b"\n")


def test_the_worker_imports_nothing_of_wasmlet(python: str) -> None:
    """Every module, under the interpreter that an engine may need, with this project out of reach."""
    files = [path.relative_to(WORKER).with_suffix("") for path in WORKER.rglob("*.py") if path.stem != "__main__"]
    names = sorted(".".join(path.parts) for path in files if path.stem != "__init__")
    script = (
        "import importlib, importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('w', {str(WORKER / '__init__.py')!r}, "
        f"submodule_search_locations=[{str(WORKER)!r}])\n"
        "package = importlib.util.module_from_spec(spec)\n"
        "sys.modules['w'] = package\n"
        "spec.loader.exec_module(package)\n"
        f"for name in {names!r}:\n    importlib.import_module('w.' + name)\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('wasmlet', 'attrs', 'attr', 'structlog')]\n"
        "print(len([m for m in sys.modules if m[:2] == 'w.' and m[2:] not in ('broker', 'guest', 'supervisor')]))\n"
    )
    answer = subprocess.run(
        [python, "-I", "-S", "-W", "error", "-c", script], capture_output=True, text=True, cwd="/", env={}
    )
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) == len(names)


def test_an_unknown_command_is_said_so() -> None:
    answer = subprocess.run([sys.executable, "-I", str(WORKER), "dance"], capture_output=True, text=True)
    assert answer.returncode == 2
    assert "expected one of shim, zygote, broker, compile" in answer.stderr


def test_messages_are_bounded() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        with pytest.raises(wire.WireError, match="longer than"):
            wire.pack({"x": "y" * wire.MAX_MESSAGE})
        ours.send(b"{" + b" " * wire.MAX_MESSAGE + b"}")
        with pytest.raises(wire.WireError, match="too long"):
            wire.receive(theirs)
        pair = os.pipe()
        before = open_descriptors()
        wire.send(ours, b"{}", pair * (wire.MAX_DESCRIPTORS // 2 + 1))
        with pytest.raises(wire.WireError, match="too many descriptors"):
            wire.receive(theirs)
        assert open_descriptors() <= before
        for descriptor in pair:
            os.close(descriptor)
        ours.close()
        assert wire.receive(theirs) is None
