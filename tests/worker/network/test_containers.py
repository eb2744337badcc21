"""Containers that have a network, under a shim: their sockets come from the broker, which may die and come again."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from tests.worker.harness import PATIENCE, POD, Connection, alive, children, kill, running
from tests.worker.network.guests import CLASSES, asking, free_port, reached
from wasmlet.worker import wire
from wasmlet.worker.grants import Grant, Port, Rule


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
