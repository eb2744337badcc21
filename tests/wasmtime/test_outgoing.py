"""Requests of a component, over real connections: which are used again, and how long each part may take."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from wasmlet_wasmtime.p2 import http, outgoing, pool, world
from wasmlet_wasmtime.p2.bodies import BodyInput, BodyOutput
from wasmlet_wasmtime.p2.dialing import Broker
from wasmlet_wasmtime.p2.instances import NOBODY, Failed

from tests.shared.descriptors import open_descriptors
from tests.wasmtime.calling import SECOND, Guest, Loopback

PATIENCE = 30
TENTH = SECOND // 10
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def guest() -> Iterator[Any]:
    host = SimpleNamespace(broker=Broker(Loopback([])), pool=pool.Pool())
    yield Guest(host=host, until=None, waits=NOBODY, check_time=lambda: None)
    for _, _, link in host.pool._waiting:
        link.wire.close()


class Server:
    """Answers with what `answer` says to a connection's number and a request's head; None closes the connection."""

    def __init__(self, listener: socket.socket, answer: Callable[[int, bytes], bytes | None]) -> None:
        self.port = int(listener.getsockname()[1])
        self.connections = 0
        self._listener, self._answer = listener, answer
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(PATIENCE)
        with sock, contextlib.suppress(OSError):
            got = b""
            while True:
                while b"\r\n\r\n" not in got:
                    part = sock.recv(65536)
                    if not part:
                        return
                    got += part
                head, _, got = got.partition(b"\r\n\r\n")
                answer = self._answer(number, head)
                if answer is None:
                    break
                sock.sendall(answer)
                if b"connection: close" in answer:
                    break


@contextlib.contextmanager
def serving(answer: Callable[[int, bytes], bytes | None]) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener, answer)
        yield server
        listener.shutdown(socket.SHUT_RDWR)


def begin(guest: Any, server: Server, seconds: int) -> tuple[Any, BodyOutput]:
    """A request whose body is still to be written, and the stream for that."""
    request = http.OutgoingRequest([])
    request.method, request.path = ("post", None), "/"
    request.scheme, request.authority = ("HTTP", None), f"127.0.0.1:{server.port}"
    request.body = http._request_body(guest, request)
    options = http.RequestOptions()
    options.first_byte = seconds * SECOND
    return outgoing._handle(guest, request, options), BodyOutput(request.body)


def write(guest: Any, source: Any, stream: BodyOutput, size: int) -> None:
    """Write so many bytes; the source is what the guest waits for."""
    while size:
        guest.wait([source])
        some = min(size, stream.room())
        stream.write(bytes(some))
        size -= some


class Counted:
    """A stream that is waited for; it counts how often it was looked at."""

    def __init__(self, stream: BodyOutput) -> None:
        self._stream = stream
        self.polls = stream.polls
        self.looks = 0

    @property
    def until(self) -> float | None:
        return self._stream.until

    def ready(self) -> bool:
        self.looks += 1
        return self._stream.ready()


def send(guest: Any, server: Any, method: str = "GET", **times: int | None) -> Any:
    """A request that is under way."""
    port = server if isinstance(server, int) else server.port
    request = http.OutgoingRequest([])
    request.method, request.path = http.method_of(method), "/"
    request.scheme, request.authority = ("HTTP", None), f"127.0.0.1:{port}"
    if method == "POST":
        request.body = http._request_body(guest, request)
    options = http.RequestOptions()
    for name, value in times.items():
        setattr(options, name, value)
    future = outgoing._handle(guest, request, options)
    if request.body is not None:
        request.body.finish([])
    return future


def answer_to(guest: Any, future: Any) -> tuple[bool, Any]:
    guest.wait([future])
    found: tuple[bool, Any] = outgoing._get(guest, future)[1]
    return found


def ask(guest: Any, server: Any, method: str = "GET", **times: int | None) -> bytes | str:
    """The body of the answer, or the error code."""
    good, found = answer_to(guest, send(guest, server, method, **times))
    if not good:
        return str(found[0])
    stream, body = BodyInput(found.feed), b""
    while True:
        guest.wait([stream])
        try:
            body += stream.read(4096)
        except Failed as failed:
            case, error = failed.payload
            if case == "closed":
                return body
            return str(world.functions["wasi:http/types.http-error-code"](guest, error)[0])


def test_a_connection_is_used_again_for_the_same_place(guest: Any) -> None:
    with serving(lambda number, head: OK) as one, serving(lambda number, head: OK) as other:
        before = open_descriptors()
        for _ in range(3):
            assert ask(guest, one) == ask(guest, other) == b"hello"
        assert (one.connections, other.connections) == (1, 1)
        assert open_descriptors() <= before + 4  # two connections, each seen from both sides
        assert not guest.host.pool.take(pool.Place(True, "127.0.0.1", one.port))  # not for TLS


def test_a_response_that_nobody_reads_to_its_end_is_no_begin_of_another(guest: Any) -> None:
    part = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello"
    with serving(lambda number, head: part if number == 1 else OK) as server:
        _, response = answer_to(guest, send(guest, server))
        response.close()
        assert ask(guest, server) == b"hello"
        assert server.connections == 2


def test_a_response_whose_end_is_there_need_not_be_read(guest: Any) -> None:
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"
    with serving(lambda number, head: empty) as server:
        for _ in range(2):
            _, response = answer_to(guest, send(guest, server))
            assert response.status == 204
            response.close()
        assert server.connections == 1


def test_what_comes_unasked_is_no_answer(guest: Any) -> None:
    """Bytes behind a response would be taken for the answer to the next request."""
    with serving(lambda number, head: OK + (OK.replace(b"hello", b"evil!") if number == 1 else b"")) as server:
        assert ask(guest, server) == b"hello"
        assert ask(guest, server) == b"hello"
        assert server.connections == 2


def test_a_connection_that_the_server_has_closed(guest: Any) -> None:
    with serving(lambda number, head: OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")) as server:
        for _ in range(3):
            assert ask(guest, server) == b"hello"
        assert server.connections == 3
    seen: list[int] = []

    def once(number: int, head: bytes) -> bytes | None:
        """Close each connection at its second request, without a word."""
        seen.append(number)
        return OK if seen.count(number) == 1 else None

    with serving(once) as server:
        for _ in range(3):
            assert ask(guest, server) == b"hello"
        assert seen == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("answer", [OK, b""], ids=["answers", "is silent"])
def test_a_server_that_reads_no_body_is_waited_for_without_spinning_and_not_for_ever(guest: Any, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        server = SimpleNamespace(port=listener.getsockname()[1])
        _, stream = begin(guest, server, 1)
        stream.write(b"x")
        sock, _ = listener.accept()
        with sock:
            sock.sendall(answer)
            counted = Counted(stream)
            with pytest.raises(Failed) as failed:
                write(guest, counted, stream, 2**40)
    assert failed.value.payload[1].http == ("HTTP-response-timeout", None)
    assert counted.looks < 1000


def test_what_is_written_after_the_whole_response_has_come_is_dropped(guest: Any) -> None:
    with serving(lambda number, head: OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")) as server:
        future, stream = begin(guest, server, PATIENCE)
        write(guest, stream, stream, 1)
        good, response = answer_to(guest, future)
        assert good
        body = BodyInput(response.feed)
        while True:
            guest.wait([body])
            try:
                body.read(4096)
            except Failed:
                break
        guest.until = time.monotonic() + PATIENCE
        write(guest, stream, stream, 1_000_000)
        response.close()


def test_what_may_not_be_sent_twice_has_a_connection_of_its_own(guest: Any) -> None:
    with serving(lambda number, head: OK) as server:
        assert ask(guest, server) == b"hello"
        assert ask(guest, server, "POST") == b"hello"
        assert server.connections == 2
        assert ask(guest, server) == b"hello"
        assert server.connections == 2


def test_those_that_wait_are_few_and_do_not_wait_for_ever(guest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda number, head: OK) as server:
        futures = [send(guest, server) for _ in range(20)]
        responses = [answer_to(guest, future)[1] for future in futures]
        for response in responses:
            stream = BodyInput(response.feed)
            while True:
                guest.wait([stream])
                try:
                    stream.read(100)
                except Failed:
                    break
        assert server.connections == 20
        assert len(guest.host.pool._waiting) == pool.MOST_EACH
        assert guest.host.pool.tidy()
        monkeypatch.setattr(pool, "IDLE_SECONDS", -1.0)
        assert not guest.host.pool.tidy()
        assert ask(guest, server) == b"hello"
        assert server.connections == 21


def test_how_long_each_part_may_take(guest: Any) -> None:
    slow_to_connect = 4242  # the broker's answer is late
    assert ask(guest, slow_to_connect, connect=TENTH) == "connection-timeout"
    wait = threading.Event()

    def late(number: int, head: bytes) -> bytes | None:
        wait.wait(PATIENCE)
        return None

    with serving(late) as server:
        assert ask(guest, server, first_byte=TENTH) == "HTTP-response-timeout"
        wait.set()
    with serving(lambda number, head: OK.replace(b"5", b"500")) as server:
        assert ask(guest, server, between_bytes=TENTH) == "connection-read-timeout"
