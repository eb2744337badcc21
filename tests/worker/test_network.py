"""Containers that have a network, under a shim: their sockets come from the broker, which may die and come again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from tests.descriptors import open_descriptors
from tests.runtime.network.spaces import own_namespace
from tests.worker import harness
from tests.worker.harness import PATIENCE, POD, WORKER, Connection, Shim, alive, children, kill, running, wait_gone
from tests.worker.test_execs import begin
from wasmlet.worker import wire
from wasmlet.worker.grants import UDP, Grant, Port, Resolver, Rule
from wasmlet.worker.supervisor import brokers

ESCAPES = Path(__file__).with_name("escape_engine.py")
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="namespaces are for root")
CLASSES = pytest.mark.parametrize("more", [{}, {"dense": "namespace"}], ids=["process", "dense"])


T = TypeVar("T")


class Namespace(NamedTuple):
    """A network namespace of the test's own, by the thread that is in it."""

    thread: ThreadPoolExecutor
    path: str

    def do(self, work: Callable[[], T]) -> T:
        """What this comes to in there."""
        return self.thread.submit(work).result()


def free_port() -> int:
    with socket.create_server((POD, 0)) as sock:
        return int(sock.getsockname()[1])


def reached(address: tuple[str, int]) -> bytes:
    """What whoever listens there says first."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection(address, PATIENCE) as sock:
                return sock.recv(100)
        except ConnectionRefusedError:
            assert time.monotonic() < until, f"nobody listens at {address}"
            time.sleep(0.01)


def asking(**request: Any) -> tuple[str, str]:
    return "ask", json.dumps(request)


@CLASSES
def test_a_guest_serves(tmp_path: Path, python: str, more: dict[str, str]) -> None:
    with running(tmp_path / "state", python) as shim:
        port = free_port()
        grant = Grant(addresses=(POD,), ports=(Port(port, "web"),))
        name = shim.run("start", "network", "serve", "2", "print", "served", "exit", "3", network=grant, **more)
        assert [reached((POD, port)) for _ in range(2)] == [b"x", b"x"]
        assert shim.ended(name)["exit_code"] == 3
        assert shim.output(name).endswith(b"True\nserved\n")
        with socket.create_server((POD, port)):  # nobody has kept it
            pass


@CLASSES
def test_a_guest_dials_what_it_was_granted(tmp_path: Path, python: str, more: dict[str, str]) -> None:
    with socket.create_server(("127.9.0.8", 0)) as server, running(tmp_path / "state", python) as shim:
        port = server.getsockname()[1]
        grant = Grant(addresses=(POD,), egress=(Rule(cidr="127.9.0.8/32", first=port, last=port),))
        words = [*asking(ask="connect", host="127.9.0.8", port=port)]
        for host in ("127.9.0.9", "127.9.0.9", "127.9.0.10"):
            words += asking(ask="connect", host=host, port=port)
        name = shim.run("start", *words, network=grant, **more)
        accepted, peer = server.accept()
        with accepted:
            assert peer[0] == POD
            accepted.sendall(b"hello")
        record = shim.ended(name)
        said = shim.output(name).splitlines()
        assert said[0] == b"hello"
        assert [line.split()[0] for line in said[1:]] == [b"EACCES"] * 3
        assert record["refused"] == [f"127.9.0.9:{port}", f"127.9.0.10:{port}"]
        shim.connection.ask("shutdown", force=True)
        shim.restart()
        (item,) = shim.connection.ask("list", watch=True)
        assert item["refused"] == record["refused"]


def test_what_no_node_loop_has_heard_of_a_refused_dial_is_told_the_next_one(tmp_path: Path) -> None:
    with socket.create_server(("127.9.0.8", 0)) as server, running(tmp_path / "state") as shim:
        port = server.getsockname()[1]
        grant = Grant(addresses=(POD,), egress=(Rule(cidr="127.9.0.8/32", first=port, last=port),))
        words = [word for host in (8, 9) for word in asking(ask="connect", host=f"127.9.0.{host}", port=port)]
        name = shim.run("start", *words, network=grant)
        accepted, _ = server.accept()
        shim.running(name)
        shim.connection.close()
        shim.connection = Connection(shim.state)  # which does not watch
        shim.connection.ask("hello")
        with accepted:
            accepted.sendall(b"hello")  # and only now the guest goes on
        until = time.monotonic() + PATIENCE
        while (record := shim.connection.ask("list")[0])["state"] != wire.ENDED:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert record["refused"] == [f"127.9.0.9:{port}"]
        assert record["unheard"] == [f"127.9.0.9:{port}"]
        assert shim.connection.ask("list", watch=True)[0]["unheard"] == [f"127.9.0.9:{port}"]
        (told,) = shim.connection.ask("list", watch=True)
        assert (told["refused"], told["unheard"]) == ([f"127.9.0.9:{port}"], [])


def test_a_container_that_runs_does_not_dial_where_the_nodes_api_has_come_to_be(tmp_path: Path) -> None:
    with socket.create_server(("127.9.0.8", 0)) as server, running(tmp_path / "state") as shim:
        port = server.getsockname()[1]
        words = [*asking(ask="connect", host="127.9.0.8", port=port)] * 3
        name = shim.run("start", *words, network=Grant(addresses=(POD,), egress=(Rule(name="*"),)))
        first, _ = server.accept()
        shim.connection.ask("hello", never_at=[["127.9.0.7", port]])
        with first:
            first.sendall(b"hello")  # and only now the guest goes on
        record = shim.ended(name)
        assert shim.output(name).splitlines()[0] == b"hello"
        assert record["refused"] == [f"127.9.0.8:{port}"]
        # Another broker is told the same.
        kill(shim.broker())
        name = shim.run("start", *words, network=Grant(addresses=(POD,), egress=(Rule(name="*"),)))
        assert shim.ended(name)["refused"] == [f"127.9.0.8:{port}"]


@CLASSES
def test_a_container_without_a_network_has_no_sockets(tmp_path: Path, more: dict[str, str]) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "network", **more)
        assert shim.ended(name)["exit_code"] == 0
        assert shim.output(name) == b"None False\n"
        assert "wasmlet-broker" not in shim.children().values()


@CLASSES
def test_a_port_that_cannot_be_had_is_named(tmp_path: Path, more: dict[str, str]) -> None:
    with socket.create_server((POD, 0)) as taken, running(tmp_path / "state") as shim:
        port = taken.getsockname()[1]
        grant = Grant(addresses=(POD,), ports=(Port(port, "web"),))
        record = shim.ended(shim.run("serve", "1", "start", network=grant, **more))
        assert record["reason"] == "StartError"
        assert record["message"] == (
            f'cannot open port {port} ("web") of the container: Address already in use ({POD} port {port}: Address '
            "already in use). Something else listens there; take another containerPort, or another hostPort"
        )


def test_an_exec_has_no_sockets(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000", network=Grant(addresses=(POD,), ports=(Port(8080),)))
        shim.running(name)
        record, output = shim.exec(name, "start", "network", "world")
        assert record["exit_code"] == 0
        assert output.startswith(b"None False\n")
        assert b"'descriptors': [0, 1, 2, 3, 6]" in output


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


@CLASSES
def test_sockets_stay_when_the_node_loop_leaves(tmp_path: Path, more: dict[str, str]) -> None:
    with socket.create_server(("127.9.0.8", 0)) as server, running(tmp_path / "state") as shim:
        port = free_port()
        grant = Grant(addresses=(POD,), ports=(Port(port),), egress=(Rule(cidr="127.9.0.8/32"),))
        words = asking(ask="connect", host="127.9.0.8", port=server.getsockname()[1])
        name = shim.run("start", "serve", "2", *words, "exit", "3", network=grant, **more)
        assert reached((POD, port)) == b"x"
        before = shim.broker()
        shim.connection.close()
        assert reached((POD, port)) == b"x"
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"hello")
        shim.connection = Connection(shim.state)
        until = time.monotonic() + PATIENCE
        while shim.connection.ask("list", watch=True)[0]["state"] != "ended":
            assert time.monotonic() < until
            time.sleep(0.01)
        assert (shim.output(name), shim.broker()) == (b"hello\n", before)


def test_nothing_is_left_of_a_shim_that_was_killed(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        port = free_port()
        shim.run("start", "serve", "5", network=Grant(addresses=(POD,), ports=(Port(port),)))
        assert reached((POD, port)) == b"x"
        below = children(shim.pid)
        assert "wasmlet-broker" in below.values()
        kill(shim.pid)
        until = time.monotonic() + PATIENCE
        while any(map(alive, below)):
            assert time.monotonic() < until
            time.sleep(0.01)
        with socket.create_server((POD, port)):
            pass
        shim.restart()


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A network namespace, and a thread in it."""
    with ThreadPoolExecutor(1) as thread:
        space = own_namespace()
        thread.submit(space.__enter__).result()
        try:
            yield Namespace(
                thread, f"/proc/{os.getpid()}/task/{thread.submit(threading.get_native_id).result()}/ns/net"
            )
        finally:
            thread.submit(space.__exit__, None, None, None).result()


@ROOT_ONLY
@CLASSES
def test_sockets_are_in_the_namespace_of_the_pod(
    tmp_path: Path, python: str, place: Namespace, more: dict[str, str]
) -> None:
    with running(tmp_path / "state", python) as shim, socket.create_server((POD, 0)) as outside:
        port, dialled = 8080, outside.getsockname()[1]
        inside = place.do(lambda: socket.create_server((POD, dialled)))
        resolver = Resolver(hosts={"localhost": ("127.0.0.1", "::1"), "other": ("127.0.0.1", "10.1.2.3")})
        grant = Grant(place.path, ("10.9.0.2",), (Port(port),), never=("127.0.0.0/8",), resolver=resolver)
        words = asking(ask="connect", host="other", port=1), asking(ask="connect", host=POD, port=dialled)
        words = (words[0] + asking(ask="connect", host="localhost", port=1), words[1])
        name = shim.run("start", *words[0], *words[1], "serve", "1", "sleep", "1000", network=grant, **more)
        accepted, _ = place.do(inside.accept)
        accepted.sendall(b"inside")
        accepted.close()
        inside.close()
        assert place.do(lambda: reached(("127.0.0.1", port))) == b"x"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        said = shim.output(name).splitlines()
        assert said[0].startswith(b"EACCES")  # which is not the pod's own alone
        assert said[1].startswith(b"ECONNREFUSED")
        assert said[2] == b"inside"
        own, node = os.readlink(place.path), os.readlink("/proc/self/ns/net")
        guest = shim.running(name)["pid"]
        assert os.readlink(f"/proc/{guest}/ns/net") == (node if more else own)
        assert os.readlink(f"/proc/{shim.broker()}/ns/net") == node


@ROOT_ONLY
def test_an_exec_is_in_the_namespace_of_the_pod(tmp_path: Path, place: Namespace) -> None:
    with running(tmp_path / "state") as shim:
        name = shim.run("start", "sleep", "1000", network=Grant(place.path, ("10.9.0.2",)))
        container = shim.running(name)["pid"]
        _, reader = begin(shim, shim.connection, name, "start", "network", "print", "up", "sleep", "1000")
        with open(reader, "rb") as output:
            assert [output.readline() for _ in range(2)] == [b"None False\n", b"up\n"]
            (pid,) = [pid for pid, what in shim.children().items() if what == "wasmlet-guest" and pid != container]
            assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(place.path)


def test_a_namespace_that_is_gone_is_named(tmp_path: Path) -> None:
    with running(tmp_path / "state") as shim:
        gone = str(tmp_path / "gone")
        record = shim.ended(shim.run("start", network=Grant(gone, ("10.9.0.2",))))
        assert record["reason"] == "StartError"
        assert record["message"] == (
            f"the container cannot be handed to its process: the pod's network namespace {gone} cannot be opened: "
            "No such file or directory"
        )


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


@ROOT_ONLY
@pytest.mark.parametrize("datagrams", [False, True])
def test_what_a_guest_with_datagrams_may_send(tmp_path: Path, place: Namespace, datagrams: bool) -> None:
    """With a port of UDP it says where it sends, in its pod's own namespace; nothing of TCP is dialled in that way."""
    with running(tmp_path / "state") as shim, place.do(lambda: socket.create_server(("127.0.0.1", 0))) as other:
        shim.engine = ESCAPES
        ports = (Port(8080), *([Port(8080, "", UDP)] if datagrams else []))
        grant = Grant(place.path, ("10.9.0.2",), ports)
        expected = {
            "send from a bound socket": {"done": 3} if datagrams else "EACCES",
            "MSG_FASTOPEN": "EPERM",
            "MSG_FASTOPEN by sendmmsg": "EPERM",
            "pass the control socket on": {"done": None} if datagrams else "EPERM",  # nobody takes it
        }
        found = {}
        for deed in expected:
            about = {"port": 8080, "other": other.getsockname(), "granted": ["127.0.0.1", 9]}
            name = shim.run(deed, json.dumps(about), network=grant)
            shim.ended(name)
            found[deed] = json.loads(shim.output(name))
        assert found == expected
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
