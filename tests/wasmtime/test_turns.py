"""For how long a guest waits for its client, by a clock of the test's own and over connections of the system's."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator

import pytest
from wasmlet_wasmtime.p2.connections import Connection, Gone, Limits
from wasmlet_wasmtime.p2.exchanges import Exchange
from wasmlet_wasmtime.p2.turns import (
    BYTES_PER_SECOND,
    CREDIT_SECONDS,
    PATIENCE_SECONDS,
    STEP_SECONDS,
    Queue,
    Turn,
    client_of,
    give_up_slowest,
    to_make_way,
)

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
MANY = 1000
"""So many wait that nobody has credit."""
PART = b"x" * BYTES_PER_SECOND
KERNEL_SECONDS = 10.0
"""How long a busy machine may take to tell one end of a connection what the other has taken."""


class Served:
    """A request of a client, the guest that waits for it, and a clock that stands still."""

    def __init__(self, client: socket.socket, sock: socket.socket) -> None:
        self.client, self.now = client, 0.0
        client.sendall(REQUEST)
        select.select([sock], [], [], 30)
        sock.setblocking(False)
        self.connection = Connection(sock, Limits())
        request = self.connection.request()
        assert request is not None
        self.exchange = Exchange(self.connection, request)
        self.turn = self.next_turn()

    def next_turn(self) -> Turn:
        return Turn(lambda _: None, 60.0, self.connection, self.exchange, lambda: self.now)

    def wait(self, seconds: float, sends: bytes = b"", waiting: int = MANY) -> bool:
        """The guest waits so long for its client, which then sends this; whether it has been given up meanwhile."""
        self.turn.begin({self.connection.descriptor: select.POLLIN})
        self.now += seconds
        self.client.sendall(sends)
        while sends:
            select.select([self.connection.descriptor], [], [], 30)
            before = self.connection.moved
            assert self.connection.fill()
            sends = sends[self.connection.moved - before :]
        give_up_slowest([self.turn], waiting, self.now)
        self.turn.end()
        return bool(self.turn.over)

    def give_up_if_late(self) -> None:
        """What the watching thread does where many wait; the clock stands still until the kernel has told all."""
        until = time.monotonic() + KERNEL_SECONDS
        while self.turn.waited(self.now) > PATIENCE_SECONDS - CREDIT_SECONDS and time.monotonic() < until:
            time.sleep(0.001)
        give_up_slowest([self.turn], MANY, self.now)

    def write(self, size: int) -> None:
        """Write so much to the client, as far as the system takes it."""
        self.connection.out += bytes(size)
        self.connection.write()


@pytest.fixture
def served() -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 500_000)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            client.connect(listener.getsockname())
            sock, _ = listener.accept()
            with contextlib.closing(sock):
                yield Served(client, sock)


def test_round_trips_of_less_than_a_second_are_nobodys_fault(served: Served) -> None:
    for _ in range(20):
        assert not served.wait(0.9, PART)


def test_who_sends_nothing_is_given_up_after_a_second_where_many_wait(served: Served) -> None:
    assert not served.wait(PATIENCE_SECONDS - 0.01)
    assert served.wait(0.02)


def test_where_few_wait_it_is_given_up_later(served: Served) -> None:
    assert not served.wait(PATIENCE_SECONDS + CREDIT_SECONDS - 0.01, waiting=1)
    assert served.wait(0.02, waiting=1)


def test_where_nobody_waits_for_an_instance_it_goes_on(served: Served) -> None:
    served.turn.begin({served.connection.descriptor: select.POLLIN})
    served.now = 50.0
    assert served.turn.waited(served.now) > PATIENCE_SECONDS
    assert not served.turn.over


def test_a_byte_now_and_then_does_not_make_up_for_waiting(served: Served) -> None:
    given_up = [served.wait(0.1, b"x") for _ in range(11)]
    assert given_up == [False] * 10 + [True]


def test_what_came_early_counts_for_a_bounded_time(served: Served) -> None:
    for _ in range(30):
        assert not served.wait(0.0, PART, waiting=1)
    assert served.wait(PATIENCE_SECONDS + CREDIT_SECONDS + 0.01, waiting=1)


def test_what_the_system_keeps_for_a_client_has_not_gone(served: Served) -> None:
    served.write(400_000)
    assert served.connection.moved >= 100_000
    assert served.connection.carried() < served.connection.moved
    served.now += 1.0
    assert not served.wait(0.0)
    assert served.wait(PATIENCE_SECONDS + CREDIT_SECONDS + STEP_SECONDS / 2)  # with what is kept, it had more credit


def test_what_a_client_reads_in_the_middle_of_a_wait_counts(served: Served) -> None:
    served.write(400_000)
    kept = served.connection.moved - served.connection.carried()
    assert kept > 5 * BYTES_PER_SECOND
    served.turn.begin({served.connection.descriptor: select.POLLOUT})
    for _ in range(4):
        before = served.connection.carried()
        while served.connection.carried() < before + BYTES_PER_SECOND:
            assert served.client.recv(8192)
        served.now += 1.0
        give_up_slowest([served.turn], MANY, served.now)
        assert not served.turn.over
    served.now += PATIENCE_SECONDS + CREDIT_SECONDS + 2 * STEP_SECONDS
    give_up_slowest([served.turn], MANY, served.now)
    assert served.turn.over


STEADY = [(16, 0, 0), (20, 0, 0), (32, 0, 0), (64, 0, 0), (20, 1 << 19, 0), (32, 1 << 20, 0), (32, 1 << 19, 8 << 20)]
"""KiB a second, the size of the client's buffer (0: as the system has it), and bytes that it takes quickly before."""


@pytest.mark.parametrize(("rate", "buffer", "quick"), STEADY)
def test_who_reads_steadily_is_never_given_up(rate: int, buffer: int, quick: int) -> None:
    """Its system says for many seconds that its buffer is full, and then takes much at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 64 * 1024)
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client.settimeout(30)
        client.connect(listener.getsockname())
        sock, _ = listener.accept()
        with contextlib.closing(sock):
            served = Served(client, sock)
            got, most, gap, carried = -quick, 0.0, 0.0, 0
            while served.now < 120:
                served.write(64 * 1024 - len(served.connection.out))
                served.turn.begin({served.connection.descriptor: select.POLLOUT})
                part = len(client.recv(4096 if got >= 0 else 1 << 20))
                got += part
                while served.connection.carried() < len(REQUEST) + quick + got:
                    time.sleep(0.001)  # the client's system has it, and says so a little later
                if got > 0:
                    served.now += part / (rate * 1024)
                    gap = gap + part / (rate * 1024) if served.connection.carried() == carried else 0.0
                most, carried = max(most, gap), served.connection.carried()
                served.give_up_if_late()
                assert not served.turn.over, f"after {served.now:.1f} s, of which {gap:.1f} s without a byte"
                served.turn.end()
    assert most > PATIENCE_SECONDS  # else this test shows nothing


def test_who_stops_reading_is_given_up_in_the_end(served: Served) -> None:
    for _ in range(100):
        served.write(64 * 1024 - len(served.connection.out))
        served.turn.begin({served.connection.descriptor: select.POLLOUT})
        assert served.client.recv(1 << 16)
        served.turn.end()
    assert served.wait(PATIENCE_SECONDS + CREDIT_SECONDS + STEP_SECONDS + 10.0)


def test_a_guest_that_waits_for_somebody_else_waits_for_no_client(served: Served) -> None:
    served.turn.begin({served.connection.descriptor: select.POLLIN, 0: select.POLLIN})
    served.now = 50.0
    give_up_slowest([served.turn], MANY, served.now)
    assert not served.turn.over


def test_the_next_request_of_a_connection_is_not_given_up_for_the_one_before(served: Served) -> None:
    """A turn that was found too slow has come to its end by the time that it is given up."""
    before = served.turn
    before.begin({served.connection.descriptor: select.POLLIN})
    served.now = 50.0
    assert before.waited(served.now) > PATIENCE_SECONDS
    before.done()
    served.turn = served.next_turn()
    before.give_up(served.now, PATIENCE_SECONDS)
    give_up_slowest([before], MANY, served.now)
    assert not before.over
    served.client.sendall(b"more")
    select.select([served.connection.descriptor], [], [], 30)
    assert served.connection.fill()
    served.write(4)
    assert not served.connection.out


def test_who_has_sent_much_since_it_was_found_too_slow_is_not_given_up(served: Served) -> None:
    served.turn.begin({served.connection.descriptor: select.POLLIN})
    served.now = PATIENCE_SECONDS + CREDIT_SECONDS + 0.1
    assert served.turn.waited(served.now) > PATIENCE_SECONDS
    served.client.sendall(PART)
    while served.connection.moved < len(REQUEST) + len(PART):
        select.select([served.connection.descriptor], [], [], 30)
        assert served.connection.fill()
    served.turn.end()
    served.turn.begin({served.connection.descriptor: select.POLLIN})
    served.turn.give_up(served.now, PATIENCE_SECONDS)
    assert not served.turn.over


def test_a_connection_that_was_cut_has_had_its_last_request(served: Served) -> None:
    assert served.wait(50.0)
    assert served.connection.last
    served.connection.closing = True
    with pytest.raises(Gone):
        served.connection.fill()


def waiting(queue: Queue) -> list[str]:
    return [f"{connection.peer}{'' if exchange.whole else '-'}" for connection, exchange in taken(queue)]


def taken(queue: Queue) -> Iterator[tuple[Connection, Exchange]]:
    while queue:
        yield queue.next()


class Part:
    """As much of a connection and its exchange as a queue sees."""

    def __init__(self, peer: str, *, whole: bool = True) -> None:
        self.peer, self.whole = peer, whole


def queue_of(*parts: Part) -> Queue:
    queue = Queue()
    for part in parts:
        queue.add(part, part)  # type: ignore[arg-type]
    assert len(queue) == len(parts)
    return queue


def test_addresses_are_served_by_turns() -> None:
    parts = [*(Part("a") for _ in range(4)), Part("b"), Part("c"), Part("b")]
    assert waiting(queue_of(*parts)) == ["a", "b", "c", "a", "b", "a", "a"]


def test_what_has_come_as_a_whole_and_what_has_not_are_served_by_turns() -> None:
    parts = [*(Part("a", whole=False) for _ in range(3)), Part("b"), Part("a")]
    assert waiting(queue_of(*parts)) == ["b", "a-", "a", "a-", "a-"]


def test_whose_turn_it_is_changes_only_where_there_was_a_choice() -> None:
    queue = queue_of(Part("slow", whole=False))
    queue.next()
    for part in (Part("slow", whole=False), Part("good")):
        queue.add(part, part)  # type: ignore[arg-type]
    assert waiting(queue) == ["good", "slow-"]


def test_a_network_of_ipv6_is_one_client() -> None:
    parts = [*(Part(client_of(f"2001:db8::{number:x}")) for number in range(1, 9)), Part(client_of("192.0.2.1"))]
    assert waiting(queue_of(*parts))[1] == "192.0.2.1"
    assert client_of("2001:db8:0:1::1") != client_of("2001:db8::1")
    assert client_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert client_of("fe80::1%eth0") == client_of("fe80::2%eth1")


@pytest.mark.parametrize(("sent", "makes_way"), [(1, True), (3 * BYTES_PER_SECOND, False)])
def test_who_has_sent_much_of_a_request_does_not_make_way(sent: int, makes_way: bool) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        sock, _ = listener.accept()
        sock.setblocking(False)
        connection, queue = Connection(sock, Limits()), Queue()
        client.sendall(REQUEST + bytes(sent))
        end = time.monotonic() + KERNEL_SECONDS
        while connection.unread() < len(REQUEST) + sent:
            assert time.monotonic() < end
        request = connection.request()
        assert request is not None
        connection.serving = True
        queue.add(connection, Exchange(connection, request))
        now = time.monotonic()
        assert to_make_way([connection], queue, now) is None
        found = to_make_way([connection], queue, now + 2)
        assert (found is connection, len(queue)) == (makes_way, 0 if makes_way else 1)
        connection.close()
