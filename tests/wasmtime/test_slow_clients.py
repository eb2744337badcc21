"""Clients that send or read slowly, more of them than there are instances, and a quick one that gets its answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from wasmlet_wasmtime.p2.front import MOST_CONNECTIONS

from tests.wasmtime.serving import HEAD, Served, body, everything, serving, status

SLOW_BODY = b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
SLOW_READER = b"GET /much?50000 HTTP/1.1\r\nHost: x\r\n\r\n"
INSTANCES = 8
BUFFER = 16 * 1024
"""Else the system takes megabytes for a client that reads nothing, and nothing is slow about that."""
SECONDS = 60
"""How long a request may take: a quick one must not have to wait for that."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(seconds=SECONDS, concurrency=INSTANCES, buffer=BUFFER) as found:
        yield found


@contextlib.contextmanager
def slow_clients(served: Served, count: int, head: bytes) -> Iterator[list[socket.socket]]:
    """So many clients, of which each sends a byte now and then, and reads nothing."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(count)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            client.connect(("127.0.0.1", served.port))
            client.sendall(head)

        def drip() -> None:
            while not over.wait(0.2):
                for client in clients:
                    with contextlib.suppress(OSError):
                        client.send(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            yield clients
        finally:
            over.set()
            dripping.join()


@pytest.mark.parametrize("count", [INSTANCES, 200])
@pytest.mark.parametrize("head", [SLOW_BODY, SLOW_READER], ids=["bodies", "readers"])
def test_a_quick_client_is_served_among_slow_ones(served: Served, count: int, head: bytes) -> None:
    before = served.counts()
    with slow_clients(served, count, head):
        served.taken(INSTANCES)
        took = []
        for _ in range(3):
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", served.port), 20, ("127.0.0.2", 0)) as quick:
                quick.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert status(everything(quick)) == 200
            took.append(time.monotonic() - began)
    assert max(took) < SECONDS / 4, took
    served.settle(before)


def test_a_slow_client_is_told_so_and_only_where_others_wait(served: Served) -> None:
    with slow_clients(served, INSTANCES - 1, SLOW_BODY) as clients:
        for _ in range(3):  # there is an instance left for these
            assert status(served.get("/hello")) == 200
            time.sleep(0.7)
        for client in clients:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
    with slow_clients(served, INSTANCES, SLOW_BODY) as clients:
        assert status(served.get("/hello")) == 200
        answers = []
        for client in clients:
            client.settimeout(0.2)
            with contextlib.suppress(OSError):
                answers.append(client.recv(4096))
    assert answers
    assert {status(answer) for answer in answers} == {408}
    assert b"too slow, while others wait" in answers[0]


def test_clients_who_send_fast_enough_are_never_given_up(served: Served) -> None:
    """Large bodies on all instances, and others who wait: each comes to its end."""
    size, answers = 2_000_000, []

    def upload() -> None:
        with served.connect() as client:
            client.sendall(b"POST /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(20):
                client.sendall(b"x" * (size // 20))
                time.sleep(0.15)
            answers.append(body(everything(client)))

    threads = [threading.Thread(target=upload) for _ in range(INSTANCES + 2)]
    for thread in threads:
        thread.start()
    quick = [status(served.get("/hello")) for _ in range(3)]
    for thread in threads:
        thread.join()
    assert quick == [200, 200, 200]
    assert len(answers) == INSTANCES + 2
    assert len(set(answers)) == 1
    assert str(size).encode() in answers[0]


def test_downloads_over_a_line_of_100_kb_a_second_come_to_their_ends_while_others_wait() -> None:
    """The system keeps more of each for its client than that reads in a second."""
    size, rate, answers = 800_000, 100_000, []
    with serving(seconds=SECONDS, concurrency=2, buffer=212_992) as served:

        def download() -> None:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * BUFFER)
                client.connect(("127.0.0.1", served.port))
                client.sendall(b"GET /much?%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (size // 4096))
                answer, began = b"", time.monotonic()
                while part := client.recv(8192):
                    answer += part
                    time.sleep(max(0.0, len(answer) / rate - (time.monotonic() - began)))
                answers.append(body(answer))

        threads = [threading.Thread(target=download) for _ in range(2)]
        for thread in threads:
            thread.start()
        served.taken(2)
        assert status(served.get("/hello")) == 200
        for thread in threads:
            thread.join()
    assert [len(answer) for answer in answers] == [size // 4096 * 4096] * 2


def test_the_only_instance_is_not_a_slow_clients(served: Served) -> None:
    with serving(seconds=SECONDS, reuse=True) as single, slow_clients(single, 5, SLOW_BODY):
        single.taken(1)
        began = time.monotonic()
        assert status(single.get("/hello")) == 200
        assert time.monotonic() - began < SECONDS / 4


@pytest.mark.parametrize(
    "said",
    [b"", HEAD, HEAD + b"\r\n", b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"],
    ids=["nothing", "part of a head", "a request", "part of a request"],
)
def test_a_client_that_does_nothing_with_its_connections_keeps_no_other_out(served: Served, said: bytes) -> None:
    before = served.counts()
    with contextlib.ExitStack() as stack:
        patient = stack.enter_context(served.connect("127.0.0.2"))
        for _ in range(MOST_CONNECTIONS):
            stack.enter_context(served.connect()).sendall(said)
        began = time.monotonic()
        for _ in range(3):
            other = stack.enter_context(served.connect("127.0.0.3"))
            other.sendall(HEAD + b"Connection: close\r\n\r\n")
            assert status(everything(other)) == 200
        assert time.monotonic() - began < 10  # those who wait are sent away after 15 seconds, or 75
        assert served.counts()["descriptors"] <= before["descriptors"] + MOST_CONNECTIONS
        patient.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert status(everything(patient)) == 200
    served.settle(before)
