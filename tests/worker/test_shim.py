"""The shim with an engine that needs nothing: what a node loop may ask of it, and what it says of containers."""

from __future__ import annotations

import ast
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

from tests.descriptors import open_descriptors
from tests.worker.harness import (
    FAKE_ENGINE,
    WORKER,
    Connection,
    alive,
    children,
    kill,
    launch,
    running,
    unconnected,
    wait_gone,
)
from wasmlet.worker import wire
from wasmlet.worker.linux import KEPT_VARIABLES
from wasmlet.worker.supervisor.zygotes import ENVIRONMENT, SPARE


def test_runs_a_container_to_its_end(tmp_path: Path, python: str) -> None:
    began = time.time()
    with running(tmp_path / "state", python) as shim:
        name = shim.run("start", "print", "hello", "error", "oops", "module", "exit", "7")
        record = shim.ended(name)
        assert (record["exit_code"], record["signal"], record["reason"], record["message"]) == (7, 0, "", "")
        assert began <= record["created"] <= record["started"] <= record["finished"] <= time.time()
        assert record["labels"] == {"name": name}
        assert shim.output(name) == b"hello\nthe module\n"
        assert shim.output(name, "stderr") == b"oops\n"
        assert json.loads((shim.state / "containers" / f"{name}.json").read_text().splitlines()[-1]) == record


def test_a_child_has_nothing_but_what_it_was_given(tmp_path: Path, python: str) -> None:
    with running(tmp_path / "state", python) as shim:
        name = shim.run("start", "world", env=[["SECRET", "hidden"]])
        shim.ended(name)
        world = ast.literal_eval(shim.output(name).decode())
        # Streams, control, compiled module; the spec is closed.
        assert world["descriptors"] == [0, 1, 2, 3, 6]
        assert "hidden" not in repr(world)
        assert set(world["environ"]) <= {"LC_CTYPE", *KEPT_VARIABLES, *ENVIRONMENT}
        assert world["parent"] == shim.pid
        assert world["zygote"] == shim.zygote_pid()
        for pid in (shim.pid, shim.zygote_pid()):
            variables = {line.partition("=")[0] for line in Path(f"/proc/{pid}/environ").read_text().split("\0")}
            assert variables <= {"", "LC_CTYPE", *ENVIRONMENT}


@pytest.mark.parametrize("work", [("sleep", "1000"), ("spin",)])
def test_interrupts_at_once_whatever_the_guest_does(tmp_path: Path, work: tuple[str, ...]) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", *work)
        shim.running(name)
        began = time.monotonic()
        shim.connection.ask("stop", id=name, grace=30)
        record = shim.ended(name)
        assert time.monotonic() - began < 20
        assert (record["exit_code"], record["signal"], record["requested"]) == (143, 0, "interrupt")


def test_kills_what_does_not_end_when_the_grace_period_is_over(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("stubborn", "start", "sleep", "1000")
        shim.running(name)
        shim.connection.ask("stop", id=name, grace=1000)
        shim.connection.ask("stop", id=name, grace=0.05)  # shorter: it hurries
        shim.connection.ask("stop", id=name, grace=1000)  # longer: it does not slow down
        record = shim.ended(name)
        assert (record["exit_code"], record["signal"], record["requested"]) == (137, 0, "kill")


def test_no_grace_is_a_kill(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        shim.running(name)
        shim.connection.ask("stop", id=name, grace=0)
        assert shim.ended(name)["exit_code"] == 137


def test_stopped_before_it_began(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("sleep", "1000")
        shim.connection.ask("stop", id=name, grace=30)
        record = shim.ended(name)
        assert (record["exit_code"], record["reason"], record["started"]) == (143, "", 0)


@pytest.mark.parametrize("grace", [0, 30])
def test_whenever_it_is_stopped_nothing_goes_on(tmp_path: Path, grace: int) -> None:
    with running(tmp_path / "state") as shim:
        shim.ended(shim.run("start"))
        for number in range(40):
            name = shim.run("start", "sleep", "1000")
            until = time.monotonic() + number * 0.0003
            while time.monotonic() < until:
                pass
            shim.connection.ask("stop", id=name, grace=grace)
            assert shim.ended(name)["exit_code"] == (143 if grace else 137)
        assert set(shim.children().values()) <= {"wasmlet-zygote", "wasmlet-spare"}


def test_a_short_container_that_is_stopped_before_it_was_heard(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        shim.ended(shim.run("start"))
        names = [shim.run("start") for _ in range(100)]
        for name in names:
            shim.connection.ask("stop", id=name, grace=30)
        assert {shim.ended(name)["exit_code"] for name in names} <= {0, 143}
        assert (shim.state / "shim.log").read_text() == ""


@pytest.mark.parametrize(
    ("work", "code", "signal_number", "reason", "message"),
    [
        (("start", "trap", "wasm trap: unreachable"), 134, 0, "", "wasm trap: unreachable"),
        (("start", "signal", "11"), 139, 11, "", "ended by signal 11 (Segmentation fault)"),
        (("start", "exit", "255"), 255, 0, "", ""),
        (("refuse", "no memory"), 128, 0, "StartError", "no memory"),
        (("bug", "a bug"), 128, 0, "StartError", "RuntimeError: a bug"),
        (("die",), 128, 0, "StartError", "the process was ended by signal 9 before the guest began"),
        (("exit", "0"), 128, 0, "StartError", "the process ended with status 0 before the guest began"),
    ],
)
def test_how_a_container_ended(
    tmp_path: Path, work: tuple[str, ...], code: int, signal_number: int, reason: str, message: str
) -> None:
    with running(tmp_path / "state") as shim:
        record = shim.ended(shim.run(*work))
        assert (record["exit_code"], record["signal"], record["reason"], record["message"]) == (
            code,
            signal_number,
            reason,
            message,
        )


def test_says_that_a_compiled_module_is_bad(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        assert shim.ended(shim.run("artifact"))["fault"] == wire.BAD_ARTIFACT


def test_a_long_message_is_cut_and_keeps_its_end(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        record = shim.ended(shim.run("start", "trap", "begin" + "\u20ac" * 20_000 + "end"))
        assert len(record["message"].encode()) <= 4096
        assert record["message"].startswith("begin")


def test_an_id_runs_once(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("print", "once", "start", "sleep", "1000")
        first = shim.running(name)
        shim.run("start", "print", "twice", name=name)
        assert [item["pid"] for item in shim.connection.ask("list")] == [first["pid"]]
        assert shim.output(name) == b"once\n"


def test_lists_until_forgotten(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        done, busy = shim.run("start"), shim.run("start", "sleep", "1000")
        shim.ended(done)
        assert {item["id"] for item in shim.connection.ask("list")} == {done, busy}
        assert shim.connection.ask("forget", ids=[done, busy, "unknown"]) == {"count": 1}
        assert [item["id"] for item in shim.connection.ask("list")] == [busy]
        assert [path.stem for path in (shim.state / "containers").iterdir()] == [busy]


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
        record = json.loads((shim.state / "containers" / f"{name}.json").read_text().splitlines()[-1])
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
        record = json.loads((shim.state / "containers" / f"{name}.json").read_text().splitlines()[-1])
        assert record["exit_code"] == 0  # it stayed for as long as the container ran
        assert sorted(path.name for path in shim.state.iterdir()) == [
            "containers", "logs", "shim.lock", "shim.log", "state.json",
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
        ({"log": "containers/x"}, "below logs/"),
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


def test_one_shim_per_state_directory(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim, pytest.raises(subprocess.CalledProcessError) as failure:
        launch(sys.executable, shim.state, 60)
    assert f"another shim uses the state directory {tmp_path}/state" in failure.value.stderr


def test_refuses_a_state_directory_of_another_format(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "state.json").write_text('{"format": 99, "boot_id": ""}')
    with pytest.raises(subprocess.CalledProcessError) as failure:
        launch(sys.executable, tmp_path, 60)
    assert "has format 99, expected 1" in failure.value.stderr


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
    (tmp_path / "containers").mkdir()
    tmp_path.chmod(0o700)
    for name, content in (("0badbad0", "{"), ("0badbad1", '{"id": 3}'), ("0badbad2", "[]"), ("0badbad3", "")):
        (tmp_path / "containers" / f"{name}.json").write_text(content)
    with running(tmp_path) as shim:
        assert shim.connection.ask("list") == []
        names = sorted(path.name for path in (tmp_path / "containers").iterdir())
        assert names == ["0badbad0.json.bad", "0badbad1.json.bad", "0badbad2.json.bad"]
        assert "0badbad1.json, put aside" in (tmp_path / "shim.log").read_text()


def test_a_line_of_a_record_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        names = [shim.run("start", "exit", str(code)) for code in (5, 6)]
        for name in names:
            shim.ended(name)
        kill(shim.pid)
        for name, tail in zip(names, ('\n{"id": "' + names[0], "\n"), strict=True):
            with (shim.state / "containers" / f"{name}.json").open("a") as file:
                file.write(tail)
        shim.restart()
        assert {item["id"]: item["exit_code"] for item in shim.connection.ask("list")} == dict(
            zip(names, (5, 6), strict=True)
        )
        assert (shim.state / "shim.log").read_text().count("put aside") == 0


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


def test_a_leaked_stream_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000")
        held = os.open(f"/proc/{shim.running(name)['pid']}/fd/1", os.O_WRONLY)
        try:
            shim.connection.ask("stop", id=name, grace=10)
            assert shim.ended(name)["exit_code"] == 143
        finally:
            os.close(held)


def test_nothing_is_left_of_many_containers(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        shim.ended(shim.run("start"))
        shim.filled()
        before = open_descriptors(shim.pid), open_descriptors(shim.zygote_pid())
        names = [shim.run("start", "print", "x") for _ in range(50)]
        assert {shim.ended(name)["exit_code"] for name in names} == {0}
        shim.connection.ask("forget", ids=names)
        shim.filled()
        after = open_descriptors(shim.pid), open_descriptors(shim.zygote_pid())
        assert all(now <= then for now, then in zip(after, before, strict=True))
        assert sorted(children(shim.pid).values()) == ["wasmlet-spare"] * SPARE + ["wasmlet-zygote"]


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
