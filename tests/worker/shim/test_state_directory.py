"""The shim's state directory: who may have it, and what of it is read again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.harness import (
    kill,
    launch,
    running,
)
from wasmlet.worker import wire
from wasmlet.worker.supervisor.records import Record
from wasmlet.worker.supervisor.store import RECORDS


def test_one_shim_per_state_directory(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim, pytest.raises(subprocess.CalledProcessError) as failure:
        launch(sys.executable, shim.state, 60)
    assert f"another shim uses the state directory {tmp_path}/state" in failure.value.stderr


def test_refuses_a_state_directory_of_another_format(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "state.json").write_text('{"format": 99, "boot_id": ""}')
    with pytest.raises(subprocess.CalledProcessError) as failure:
        launch(sys.executable, tmp_path, 60)
    assert "has format 99, expected 2" in failure.value.stderr


def test_refuses_a_state_directory_that_others_may_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError) as failure:
        launch(sys.executable, tmp_path, 60)
    assert "mode 0755" in failure.value.stderr
    assert f"chmod 0700 {tmp_path}" in failure.value.stderr


def test_refuses_a_state_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(subprocess.CalledProcessError) as failure:
        launch(sys.executable, tmp_path / "file", 60)
    assert "cannot use the state directory" in failure.value.stderr


def test_containers_of_an_earlier_boot_are_lost(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        shim.running(name)
        kill(shim.pid)
        state = shim.state / "state.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"boot_id": "another boot"}))
        shim.restart()
        (item,) = shim.connection.ask("list")
        assert item["message"] == "The container could not be located: the machine was restarted"


def test_a_record_that_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    """In the files of an earlier version, whose records become this one's."""
    (tmp_path / "containers").mkdir()
    tmp_path.chmod(0o700)
    (tmp_path / "state.json").write_text('{"format": 1, "boot_id": ""}')
    ended = Record("0badbad4", {}, "logs/x/0.log", wire.ENDED, exit_code=3)
    (tmp_path / "containers" / "0badbad4.json").write_bytes(b"\n" + ended.encoded() + b'\n{"id": "0bad')
    (tmp_path / "containers" / "0badbad5.json").write_bytes(  # which is no reason to lose its good line
        b'\n{"id": 3}\n' + ended.encoded().replace(ended.id.encode(), b"0badbad5") + b"\n[]"
    )
    for name, content in (("0badbad0", "{"), ("0badbad1", '{"id": 3}'), ("0badbad2", "[]"), ("0badbad3", "")):
        (tmp_path / "containers" / f"{name}.json").write_text(content)
    with running(tmp_path) as shim:
        items = {item["id"]: item for item in shim.connection.ask("list")}
        assert {name: item["exit_code"] for name, item in items.items()} == {"0badbad4": 3, "0badbad5": 3}
        assert shim.recorded("0badbad4") == items["0badbad4"]
        names = sorted(path.name for path in (tmp_path / "containers").iterdir())
        assert names == ["0badbad0.json.bad", "0badbad1.json.bad", "0badbad2.json.bad"]
        said = (tmp_path / "shim.log").read_text()
        assert "0badbad1.json, put aside" in said
        assert "cannot read 1 of 3 lines of containers/0badbad5.json" in said


def test_a_line_of_a_record_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        names = [shim.run("start", "exit", str(code)) for code in (5, 6)]
        for name in names:
            shim.ended(name)
        kill(shim.pid)
        with (shim.state / RECORDS).open("a") as file:
            file.write('\n{"id": "' + names[0])
        shim.restart()
        assert {item["id"]: item["exit_code"] for item in shim.connection.ask("list")} == dict(
            zip(names, (5, 6), strict=True)
        )
        assert "cannot read" not in (shim.state / "shim.log").read_text()


def test_a_line_that_cannot_be_read_is_kept(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "exit", "5")
        shim.ended(name)
        kill(shim.pid)
        with (shim.state / RECORDS).open("a") as file:
            file.write('\n{"id": 3}\n[]')
        shim.restart()
        assert [item["id"] for item in shim.connection.ask("list")] == [name]
        assert '{"id": 3}' in (shim.state / f"{RECORDS}.bad").read_text()
        assert f"lines of {RECORDS}, kept in {RECORDS}.bad" in (shim.state / "shim.log").read_text()


def test_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 30) / "state"
    state.mkdir(parents=True, mode=0o700)
    assert len(str(state)) > 108
    with running(state) as shim:
        assert shim.ended(shim.run("start", "exit", "1"))["exit_code"] == 1


@pytest.mark.needs_root("only root becomes another user")
def test_only_this_user_may_connect(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        # Even if the directory were open to everybody.
        for part in (shim.state / wire.SOCKET, shim.state):
            part.chmod(0o777)
        script = (
            "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
            "s.connect(sys.argv[1]); sys.exit(0 if s.recv(10) == b'' else 1)"
        )
        command = [sys.executable, "-I", "-c", script, wire.SOCKET]
        answer = subprocess.run(command, capture_output=True, text=True, cwd=shim.state)
        assert answer.returncode == 0, answer.stderr
        assert "refused a connection of uid 65534" in (shim.state / "shim.log").read_text()
