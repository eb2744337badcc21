"""Containers of the shim, with an engine that needs nothing: how they run, are stopped, and end."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path

import pytest

from tests.shared.descriptors import open_descriptors
from tests.worker.harness import (
    children,
    running,
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
        assert shim.recorded(name) == record


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
        shim.connection.ask("stop", id=name, grace=315_360_000)  # ten years, as long as a pod may ask for
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
