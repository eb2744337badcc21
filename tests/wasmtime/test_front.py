"""Who serves which connection when, with handlers of the test's own in place of a component."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from wasmlet_wasmtime.p2.connections import Connection, Limits
from wasmlet_wasmtime.p2.exchanges import Exchange
from wasmlet_wasmtime.p2.front import Front
from wasmlet_wasmtime.p2.serving import Server, listeners_of
from wasmlet_wasmtime.p2.turns import Turn

REQUEST = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


class Handler:
    """Answers with its path, fails at `/bad`, and ends the thread that serves it at `/end`."""

    def __call__(self, exchange: Exchange, turn: Turn) -> tuple[int, str]:
        if exchange.title == "GET /bad":
            raise RuntimeError("a fault")
        if exchange.title == "GET /end":
            raise SystemExit
        return 404, f"nothing at {exchange.title}"


@contextlib.contextmanager
def front_of(listener: socket.socket, log: Any) -> Iterator[Front]:
    made = Front([os.dup(listener.fileno())], Handler(), lambda: None, 60.0, log)
    try:
        yield made
    finally:
        for sock in (*made._listeners.values(), *made._connections.values()):
            sock.close()
        made._epoll.close()
        os.close(made._wake_read)
        os.close(made._wake_write)


def ask(address: Any, path: bytes) -> bytes:
    """The first line of the answer."""
    with socket.create_connection(address, 30) as sock:
        sock.sendall(REQUEST % path)
        return first_line(sock)


def first_line(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as file:
        return file.readline()


def test_a_fault_of_ours_ends_no_thread() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, front_of(listener, said.append) as front:
        front.listen()

        def work() -> None:
            with contextlib.suppress(SystemExit):
                front._work()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        address = listener.getsockname()
        assert ask(address, b"/bad").split()[1] == b"500"
        assert ask(address, b"/good").split()[1] == b"404"
        with socket.create_connection(address, 30) as sock:
            sock.sendall(REQUEST % b"/end")
            thread.join(30)
        assert not thread.is_alive()
    assert said[0] == "GET /bad: wasmlet failed: RuntimeError: a fault"


def test_a_connection_is_not_closed_while_it_is_answered() -> None:
    """A handler may take longer than a head: whoever is in front then must not take the connection for a late one."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        front_of(listener, print) as front,
        socket.create_connection(listener.getsockname(), 30) as client,
    ):
        client.sendall(REQUEST % b"/slow")
        accepted, _ = listener.accept()
        connection = Connection(accepted, Limits())
        front._connections[connection.descriptor] = connection
        front._epoll.register(connection.descriptor, 0)
        request = connection.request()
        assert request is not None

        class Slow(Exchange):
            def finish(self, failure: tuple[int, str] | None) -> str:
                front._close_late(time.monotonic())
                return super().finish(failure)

        connection.serving, connection.until = True, 0.0
        exchange = Slow(connection, request)
        front._answered(connection, exchange, (404, "nothing"), in_front=True)
        assert first_line(client).split()[1] == b"404"


@contextlib.contextmanager
def accepted(front: Front, listener: socket.socket) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection of the front, and its client, which has asked for something."""
    with socket.create_connection(listener.getsockname(), 30) as client:
        client.sendall(REQUEST % b"/")
        sock, _ = listener.accept()
        sock.setblocking(False)
        connection = Connection(sock, Limits())
        front._connections[connection.descriptor] = connection
        front._epoll.register(connection.descriptor, 0)
        yield connection, client


def test_a_connection_that_was_closed_before_it_was_heard_is_left_alone() -> None:
    """Its descriptor may be somebody else's by then."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        front_of(listener, print) as front,
        accepted(front, listener) as (connection, client),
    ):
        front._ready.append(connection)
        connection.until = 0.0
        front._close_late(1.0)
        ours, theirs = socket.socketpair()
        if ours.fileno() != connection.descriptor:
            os.dup2(ours.fileno(), connection.descriptor)
            ours.close()
            ours = socket.socket(fileno=connection.descriptor)
        with ours, theirs:
            theirs.sendall(b"not for the front")
            front._hear(front._ready.popleft())
            assert ours.recv(100) == b"not for the front"
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
        assert len(front._waiting) == 0


def test_who_could_not_be_accepted_is_accepted_later() -> None:
    """Even where no connection is left whose end would make room."""
    with socket.create_server(("127.0.0.1", 0)) as listener, front_of(listener, print) as front:
        front.listen()
        front._listen(accepting=False)
        with socket.create_connection(listener.getsockname(), 30):
            front._close_late(0.0)
            front._look(30.0)
        assert len(front._connections) == 1


def test_a_server_without_a_port_is_told_to_declare_one() -> None:
    class NoPorts:
        def open_listeners(self) -> tuple[tuple[int, ...], ...]:
            return ()

    with pytest.raises(ValueError, match=r"has no port of TCP for that; declare one, such as ports: \[\{container"):
        listeners_of(NoPorts())


class Taken(list[Any]):
    """Something was in it when it was looked at, and another thread has taken it."""

    def __bool__(self) -> bool:
        return True


def test_an_instance_that_another_thread_took_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server.__new__(Server)
    server._waiting = Taken()
    monkeypatch.setattr(server, "_new_instance", lambda until, waits: ("new", "handler"), raising=False)
    assert server._instance(0.0) == ("new", "handler")
