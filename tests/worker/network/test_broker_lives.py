"""The broker under a shim: ready early, replaced when it dies, given up when it cannot start, gone when idle."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

import pytest

from tests.shared.descriptors import open_descriptors
from tests.worker import harness
from tests.worker.harness import PATIENCE, POD, WORKER, Shim, kill, running, wait_gone
from tests.worker.network.guests import CLASSES, asking, free_port, reached
from wasmlet.worker.grants import Grant, Port, Rule
from wasmlet.worker.supervisor import brokers


def wait_for(shim: Shim, other_than: int) -> int:
    until = time.monotonic() + PATIENCE
    while (found := shim.broker()) == other_than:
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


@CLASSES
def test_a_broker_that_dies_is_replaced(tmp_path: Path, python: str, more: dict[str, str]) -> None:
    with socket.create_server(("127.9.0.8", 0)) as server, running(tmp_path / "state", python) as shim:
        port, dialled = free_port(), server.getsockname()[1]
        grant = Grant(addresses=(POD,), ports=(Port(port),), egress=(Rule(cidr="127.9.0.8/32"),))
        again = asking(ask="connect", host="127.9.0.8", port=dialled)
        name = shim.run("start", "serve", "2", *again, network=grant, **more)
        assert reached((POD, port)) == b"x"
        before = shim.broker()
        kill(before)
        assert reached((POD, port)) == b"x"  # what was handed over lives on
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"hello")
        assert shim.ended(name)["exit_code"] == 0
        assert shim.output(name) == b"hello\n"
        assert wait_for(shim, before) != before


def broken_worker(directory: Path, line: str) -> Path:
    """A copy of the worker, whose broker notes each start and goes on with this line."""
    shutil.copytree(WORKER, directory / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    note = f"import os\n\nwith open({str(directory / 'starts')!r}, 'a') as file:\n    file.write('x')\n{line}\n"
    path = directory / "worker/broker/broker.py"
    path.write_text(path.read_text().replace("import errno\n", note + "import errno\n"))
    return directory / "worker"


@CLASSES
def test_a_broker_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]) -> None:
    """It is tried a few times, with pauses; then who waits for it is told so, and it is not tried any more."""
    monkeypatch.setattr(harness, "WORKER", broken_worker(tmp_path, "raise SystemExit(7)"))
    with running(tmp_path / "state") as shim:
        grant = Grant(addresses=(POD,), ports=(Port(8080, "web"),))
        began = time.monotonic()
        record = shim.ended(shim.run("serve", "1", "start", network=grant, **more))
        assert record["reason"] == "StartError"
        assert record["message"] == (
            'cannot open port 8080 ("web") of the container: Broken pipe (the broker, which opens the sockets of '
            "containers, cannot start (status 7; see the node's shim.log))"
        )
        assert time.monotonic() - began > sum(brokers.PAUSE * 2**number for number in range(brokers.TRIES - 1))
        assert (tmp_path / "starts").read_text() == "x" * brokers.TRIES
        assert shim.ended(shim.run("start", "exit", "3"))["exit_code"] == 3  # others go on
        assert (tmp_path / "starts").read_text() == "x" * brokers.TRIES
        assert "the broker ended with status 7" in (shim.state / "shim.log").read_text()


def test_a_broker_that_dies_at_once_does_not_spin(tmp_path: Path) -> None:
    """Each dies right after it was ready: what a guest might have it do. Who listens is not touched by that."""
    with running(tmp_path / "state") as shim:
        port = free_port()
        shim.run("start", "serve", "2", "sleep", "1000", network=Grant(addresses=(POD,), ports=(Port(port),)))
        assert reached((POD, port)) == b"x"
        began, pids = time.monotonic(), set[int]()
        while time.monotonic() - began < 2:
            pid = shim.broker()
            pids.add(pid)  # one that dies is seen for a while
            kill(pid)
        # After 0, 0.1, 0.3, 0.7 and 1.5 s and so on, and perhaps one that had just been there.
        took = time.monotonic() - began
        assert len(pids) <= 1 + sum(brokers.PAUSE * (2**number - 1) <= took for number in range(16))
        assert reached((POD, port)) == b"x"


def test_a_broker_is_there_before_it_is_needed(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        shim.connection.ask("warm", zygote=shim.zygote, network=True)
        ahead, port = shim.broker(), free_port()
        shim.run("start", "serve", "1", network=Grant(addresses=(POD,), ports=(Port(port),)))
        assert reached((POD, port)) == b"x"
        assert shim.broker() == ahead


def test_a_broker_ends_when_nobody_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "worker"
    shutil.copytree(WORKER, directory, ignore=shutil.ignore_patterns("__pycache__"))
    path = directory / "supervisor/brokers.py"
    path.write_text(path.read_text().replace("IDLE_SECONDS = 600.0", "IDLE_SECONDS = 0.2"))
    monkeypatch.setattr(harness, "WORKER", directory)
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000", network=Grant(addresses=(POD,)))
        shim.running(name)
        first = shim.broker()
        shim.connection.ask("stop", id=name, grace=0)
        shim.ended(name)
        wait_gone(first)
        port = free_port()
        shim.run("start", "serve", "1", network=Grant(addresses=(POD,), ports=(Port(port),)))
        assert reached((POD, port)) == b"x"
        assert shim.broker() != first
        assert "broker" not in (shim.state / "shim.log").read_text()


@CLASSES
def test_no_descriptor_is_left_in_the_shim(tmp_path: Path, more: dict[str, str]) -> None:
    with running(tmp_path / "state") as shim:
        grant = Grant(addresses=(POD,), ports=(Port(free_port()),))
        shim.ended(shim.run("start", "serve", "0", network=grant, **more))
        shim.filled()
        processes = shim.pid, shim.broker()
        before = [open_descriptors(pid) for pid in processes]
        for _ in range(3):
            shim.ended(shim.run("start", "serve", "0", network=grant, **more))
            shim.ended(shim.run("refuse", "no", network=grant, **more))
        shim.filled()
        until = time.monotonic() + PATIENCE
        while any(now > then for now, then in zip(map(open_descriptors, processes), before, strict=True)):
            assert time.monotonic() < until, (before, [open_descriptors(pid) for pid in processes])
            time.sleep(0.05)
