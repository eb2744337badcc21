"""Execs and stdin as the shim has them: what they are given, and what they end with."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.worker.harness import Connection, Shim, running, wait_gone
from wasmlet.worker import wire
from wasmlet.worker.supervisor.store import RECORDS


def test_an_exec_gets_what_its_container_was_given(tmp_path: Path, python: str) -> None:
    with running(tmp_path / "state", python) as shim:
        name = shim.run("start", "sleep", "1000", env=[["COLOR", "blue"]])
        shim.running(name)
        record, output = shim.exec(name, "start", "env", "module", "cat", "exit", "7", stdin=b"typed")
        assert (record["exit_code"], record["reason"]) == (7, "")
        assert output == b"[['COLOR', 'blue']]\nthe module\ntyped"
        record, output = shim.exec(name, "start", "world")
        assert b"'descriptors': [0, 1, 2, 3, 6]" in output
        assert shim.log(name) == b""
        assert [item["id"] for item in shim.connection.ask("list")] == [name]
        assert {json.loads(line)["id"] for line in (shim.state / RECORDS).read_text().split()} == {name}


def test_how_an_exec_fails(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        shim.running(name)
        record, _ = shim.exec(name, "refuse", "no such thing")
        assert (record["reason"], record["exit_code"], record["message"]) == ("StartError", 128, "no such thing")
        record, _ = shim.exec(name, "start", "signal", "11")
        assert (record["exit_code"], record["signal"]) == (139, 11)
        for fields in ({"container": "0" * 16}, {"container": name, "id": "no"}, {"container": [1]}):
            with pytest.raises(RuntimeError):
                shim.connection.ask("exec", **({"id": "1" * 16, "zygote": shim.zygote} | fields))
        with pytest.raises(RuntimeError, match="expected five descriptors"):
            shim.connection.ask("exec", id="1" * 16, container=name, zygote=shim.zygote)
        with pytest.raises(RuntimeError, match="is not running"):
            shim.connection.ask("given", id="0" * 16)


def begin(shim: Shim, connection: Connection, name: str, *args: str) -> tuple[str, int]:
    """Ask for an exec and do not wait for its end; its id and where its output can be read."""
    connection.ask("given", id=name)
    spec, *given = connection.take()
    changed = os.memfd_create("spec")
    os.write(changed, json.dumps({"args": args, "env": [], "memory": None}).encode())
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    message = {"op": "exec", "n": 9000, "id": "e" * 16, "container": name, "zygote": shim.zygote}
    wire.send(connection.socket, wire.pack(message), (null, writer, null, changed, *given))
    wire.close((spec, *given, changed, writer, null))
    return "e" * 16, reader


@pytest.mark.parametrize("end", ["container", "connection", "stop"])
def test_what_an_exec_ends_with(tmp_path: Path, end: str) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        shim.running(name)
        other = Connection(shim.state)
        exec_id, reader = begin(shim, other, name, "stubborn", "start", "print", "on", "spin")
        assert os.read(reader, 100) == b"on\n"
        (pid,) = [
            pid for pid, process in shim.children().items() if process == "wasmlet-guest" and pid != _pid(shim, name)
        ]
        if end == "container":
            shim.connection.ask("stop", id=name, grace=0)
            shim.ended(name)
            assert not Path(f"/proc/{pid}").exists()  # it has ended only with its execs
        elif end == "connection":
            other.close()
        else:
            shim.connection.ask("stop", id=exec_id, grace=0)
        wait_gone(pid)
        assert os.read(reader, 100) == b""
        if end != "container":
            assert shim.exec(name, "start", "exit", "3")[0]["exit_code"] == 3
        os.close(reader)
        other.close()


def _pid(shim: Shim, name: str) -> int:
    (item,) = [item for item in shim.connection.ask("list", watch=True) if item["id"] == name]
    return int(item["pid"])


@pytest.mark.parametrize("once", [True, False])
def test_stdin_is_held_for_those_who_attach(tmp_path: Path, python: str, once: bool) -> None:
    with running(tmp_path / "state", python) as shim:
        name = shim.run("start", "print", "up", "cat", "exit", "5", stdin=True, stdin_once=once)
        shim.running(name)
        other = Connection(shim.state)
        other.ask("attach", id=name, stdin=True)
        (stdin,) = other.take()
        os.write(stdin, b"typed")
        os.close(stdin)
        other.close()  # without a word, as when a node loop dies
        if not once:
            for text in (b" again", b" and again"):
                token = shim.connection.ask("attach", id=name, stdin=True)["token"]
                (stdin,) = shim.connection.take()
                os.write(stdin, text)
                os.close(stdin)
                shim.connection.ask("detach", token=token)
            position = shim.connection.ask("attach", id=name)["position"]
            assert position[0] == 1
            while b"and again" not in shim.log(name):  # unfinished, and there because somebody reads along
                time.sleep(0.01)
            shim.connection.ask("stop", id=name, grace=0)
        assert shim.ended(name)["exit_code"] == (5 if once else 137)
        assert shim.output(name) == (b"up\ntyped" if once else b"up\ntyped again and again")
        with pytest.raises(RuntimeError, match="is not running"):
            shim.connection.ask("attach", id=name)


def test_a_terminal(tmp_path: Path, python: str) -> None:
    with running(tmp_path / "state", python) as shim:
        name = shim.run("start", "terminal", "error", "both", "cat", "exit", "4", tty=True, stdin=True)
        shim.running(name)
        shim.connection.ask("attach", id=name, stdin=True)
        (stdin,) = shim.connection.take()
        os.write(stdin, b"line\r\x04")
        assert shim.ended(name)["exit_code"] == 4
        os.close(stdin)
        output = shim.output(name)
        assert b"[True, True, True]\r\n" in output
        assert b"both\r\n" in output
        assert output.count(b"line\r\n") == 2
        assert b" stderr " not in shim.log(name)
