"""wasi:sockets of our own world: TCP and names, over a broker, as a component calls them; what it is refused."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from wasmlet_wasmtime.p2.dialing import Asked
from wasmlet_wasmtime.p2.instances import Failed
from wasmlet_wasmtime.p2.sockets import tcp as sockets
from wasmlet_wasmtime.p2.streams import IoError

from tests.shared.descriptors import open_descriptors
from tests.wasmtime.calling import SECOND, Loopback, Six, address, call, guest_of, has_ipv6, six, wait


@pytest.fixture
def guest() -> Any:
    return guest_of(Loopback([8080]))


def tcp(name: str) -> str:
    return f"tcp.[method]tcp-socket.{name}"


def test_listening_and_dialling(guest: Any) -> None:
    before = open_descriptors()
    network = call(guest, "instance-network.instance-network")
    listener = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    assert call(guest, tcp("start-listen"), listener) == "invalid-state"
    assert call(guest, tcp("start-bind"), listener, network, address(8080)) is None
    assert call(guest, tcp("finish-bind"), listener) is None
    assert call(guest, tcp("start-listen"), listener) is None
    wait(guest, listener)
    assert call(guest, tcp("finish-listen"), listener) is None
    assert call(guest, tcp("is-listening"), listener) is True
    assert call(guest, tcp("accept"), listener) == "would-block"
    _, (port, parts) = call(guest, tcp("local-address"), listener)
    assert parts == (127, 0, 0, 1)

    client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    assert call(guest, tcp("finish-connect"), client) == "not-in-progress"
    assert call(guest, tcp("start-connect"), client, network, address(port)) is None
    wait(guest, client)
    incoming, outgoing = call(guest, tcp("finish-connect"), client)
    wait(guest, listener)
    accepted, server_in, server_out = call(guest, tcp("accept"), listener)
    assert call(guest, tcp("remote-address"), accepted) == call(guest, tcp("local-address"), client)
    assert server_in.read(10) == b""
    outgoing.write(b"hello")
    wait(guest, server_in)
    assert server_in.read(10) == b"hello"
    server_out.write(b"x" * 1000)
    assert server_out.drained()
    assert call(guest, tcp("shutdown"), accepted, "send") is None
    got = b""
    while len(got) < 1000:
        wait(guest, incoming)
        got += incoming.read(4096)
    assert got == b"x" * 1000
    wait(guest, incoming)
    with pytest.raises(Failed, match="closed"):
        incoming.read(1)
    for one in (incoming, outgoing, client, server_in, server_out, accepted, listener):
        one.close()
    assert open_descriptors() <= before


def test_what_is_refused(guest: Any) -> None:
    before = open_descriptors()
    network = call(guest, "instance-network.instance-network")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        free = closed.getsockname()[1]
    for where, code in ((address(80, 10, 9, 9, 9), "access-denied"), (address(free), "connection-refused")):
        client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
        assert call(guest, tcp("start-connect"), client, network, where) is None
        wait(guest, client)
        assert call(guest, tcp("finish-connect"), client) == code
        assert call(guest, tcp("start-connect"), client, network, where) == "invalid-state"
        client.close()
    listener = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    call(guest, tcp("start-bind"), listener, network, address(1))
    call(guest, tcp("finish-bind"), listener)
    call(guest, tcp("start-listen"), listener)
    wait(guest, listener)
    assert call(guest, tcp("finish-listen"), listener) == "access-denied"
    six = call(guest, "tcp-create-socket.create-tcp-socket", "ipv6")
    assert call(guest, tcp("start-connect"), six, network, address(80)) == "invalid-argument"
    assert call(guest, tcp("start-connect"), six, network, ("ipv6", (0, 0, (0,) * 7 + (1,), 0))) == "invalid-argument"
    assert call(guest, tcp("set-keep-alive-count"), six, 0) == "invalid-argument"
    assert open_descriptors() <= before


def test_a_dial_that_is_given_up_leaves_nothing(guest: Any) -> None:
    before = open_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as server:
        network = call(guest, "instance-network.instance-network")
        client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
        call(guest, tcp("start-connect"), client, network, address(server.getsockname()[1]))
        wait(guest, client)
        client.close()
    assert open_descriptors() <= before


def test_options_are_those_of_the_sockets(guest: Any) -> None:
    """What is set before there is a socket counts for it, and for what a listener accepts; what is read is so."""
    network = call(guest, "instance-network.instance-network")
    listener = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    times = {"keep-alive-idle-time": 30 * SECOND, "keep-alive-interval": 5 * SECOND}
    wanted: dict[str, Any] = times | {"keep-alive-enabled": True, "keep-alive-count": 4, "hop-limit": 33}
    for name, value in wanted.items():
        assert call(guest, tcp(f"set-{name}"), listener, value) is None
        assert call(guest, tcp(name), listener) == value
        if name != "keep-alive-enabled":
            assert call(guest, tcp(f"set-{name}"), listener, 0) == "invalid-argument"
    for name in ("receive-buffer-size", "send-buffer-size"):
        assert call(guest, tcp(f"set-{name}"), listener, 0) == "invalid-argument"
        assert call(guest, tcp(f"set-{name}"), listener, 20_000) is None
    assert call(guest, tcp("set-listen-backlog-size"), listener, 0) == "invalid-argument"
    assert call(guest, tcp("set-listen-backlog-size"), listener, 2**40) is None
    call(guest, tcp("start-bind"), listener, network, address(8080))
    call(guest, tcp("finish-bind"), listener)
    call(guest, tcp("start-listen"), listener)
    wait(guest, listener)
    call(guest, tcp("finish-listen"), listener)
    assert call(guest, tcp("set-listen-backlog-size"), listener, 7) is None

    client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    call(guest, tcp("start-connect"), client, network, call(guest, tcp("local-address"), listener))
    assert call(guest, tcp("set-listen-backlog-size"), client, 7) == "invalid-state"
    wait(guest, client)
    streams = call(guest, tcp("finish-connect"), client)
    wait(guest, listener)
    accepted, *more = call(guest, tcp("accept"), listener)
    for one in (listener, accepted):
        assert {name: call(guest, tcp(name), one) for name in wanted} == wanted
        assert one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert one.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert one.sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 33
        assert call(guest, tcp("send-buffer-size"), one) == call(guest, tcp("receive-buffer-size"), one) == 20_000
    assert call(guest, tcp("keep-alive-enabled"), client) is False
    assert call(guest, tcp("set-keep-alive-idle-time"), client, 1) is None  # rounded to what the system has
    assert call(guest, tcp("keep-alive-idle-time"), client) == SECOND
    assert call(guest, tcp("set-keep-alive-count"), client, 2**32 - 1) is None
    assert call(guest, tcp("keep-alive-count"), client) == 127
    assert call(guest, tcp("set-send-buffer-size"), client, 2**64 - 1) is None
    for one in (*streams, *more, client, accepted, listener):
        one.close()


def test_why_a_stream_has_failed(guest: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
        network = call(guest, "instance-network.instance-network")
        call(guest, tcp("start-connect"), client, network, address(server.getsockname()[1]))
        wait(guest, client)
        incoming, outgoing = call(guest, tcp("finish-connect"), client)
        other, _ = server.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        other.close()
        wait(guest, incoming)
        with pytest.raises(Failed) as found:
            incoming.read(1)
        case, error = found.value.payload
        assert case == "last-operation-failed"
        assert call(guest, "network.network-error-code", error) == "connection-reset"
        assert call(guest, "network.network-error-code", IoError("of something else")) is None
        for one in (incoming, outgoing, client):
            one.close()


def test_names(guest: Any) -> None:
    network = call(guest, "instance-network.instance-network")
    lookup = "ip-name-lookup.[method]resolve-address-stream.resolve-next-address"
    found = call(guest, "ip-name-lookup.resolve-addresses", network, "known.example")
    wait(guest, found)
    assert call(guest, lookup, found) == ("ipv4", (127, 0, 0, 1))
    assert call(guest, lookup, found) == ("ipv6", (0, 0, 0, 0, 0, 0, 0, 1))
    assert call(guest, lookup, found) is None
    found.close()
    unknown = call(guest, "ip-name-lookup.resolve-addresses", network, "unknown.example")
    wait(guest, unknown)
    assert call(guest, lookup, unknown) == "name-unresolvable"
    unknown.close()
    assert call(guest, "ip-name-lookup.resolve-addresses", network, "") == "invalid-argument"


def test_answers_for_one_thread_that_another_one_takes(guest: Any) -> None:
    """Whoever looks first takes all that has come, and wakes the others, whatever they wait for."""
    broker = guest.host.broker
    asked = [Asked(broker, "resolve", name="known.example") for _ in range(8)]
    woken: list[int] = []

    def look(place: int) -> None:
        while asked[place].answer() is None:
            poll = select.poll()
            for descriptor, events in asked[place].polls():
                poll.register(descriptor, events)
            assert poll.poll(10_000)
        woken.append(place)

    threads = [threading.Thread(target=look, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(woken) == list(range(8))
    for one in asked:
        one.drop()


def test_without_a_network_everything_is_denied() -> None:
    guest = guest_of(None)
    client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    call(guest, tcp("start-connect"), client, sockets.Network(), address(80))
    assert call(guest, tcp("finish-connect"), client) == "access-denied"


def test_a_port_at_which_somebody_listens_already() -> None:
    """The broker binds it, and only listening shows it: an error for the guest, not its end."""
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        first.listen()
        asked = SimpleNamespace(
            answer=lambda: SimpleNamespace(error=0), take_sockets=lambda *_: [second], drop=lambda: None
        )
        sock = sockets.TcpSocket("ipv4")
        sock.state, sock.asked = "starting", cast(Any, asked)
        assert call(guest_of(None), "tcp.[method]tcp-socket.finish-listen", sock) == "address-in-use"
        assert (sock.state, sock.sock) == ("bound", None)


def test_no_descriptor_left(guest: Any) -> None:
    """A guest that has used them up is told so, and goes on."""
    network = call(guest, "instance-network.instance-network")
    client = call(guest, "tcp-create-socket.create-tcp-socket", "ipv4")
    peer = call(guest, "udp-create-socket.create-udp-socket", "ipv4")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = address(server.getsockname()[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 2, limits[1]))
        held: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.dup(0))
            assert call(guest, tcp("start-connect"), client, network, there) == "new-socket-limit"
            lookup = call(guest, "ip-name-lookup.resolve-addresses", network, "known.example")
            assert lookup == "new-socket-limit"
            assert call(guest, "udp.[method]udp-socket.start-bind", peer, network, address(5353)) == "new-socket-limit"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in held:
                os.close(descriptor)
        assert call(guest, tcp("start-connect"), client, network, there) is None
        wait(guest, client)
        for one in (*call(guest, tcp("finish-connect"), client), client, peer):
            one.close()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6() -> None:
    guest = guest_of(Six([8080]))
    before = open_descriptors()
    network = call(guest, "instance-network.instance-network")
    listener, client = (call(guest, "tcp-create-socket.create-tcp-socket", "ipv6") for _ in range(2))
    assert call(guest, tcp("set-hop-limit"), client, 9) is None
    call(guest, tcp("start-bind"), listener, network, six(8080))
    call(guest, tcp("finish-bind"), listener)
    call(guest, tcp("start-listen"), listener)
    wait(guest, listener)
    assert call(guest, tcp("finish-listen"), listener) is None
    call(guest, tcp("start-connect"), client, network, call(guest, tcp("local-address"), listener))
    wait(guest, client)
    streams = call(guest, tcp("finish-connect"), client)
    assert call(guest, tcp("hop-limit"), client) == 9
    wait(guest, listener)
    accepted, *more = call(guest, tcp("accept"), listener)
    assert call(guest, tcp("remote-address"), accepted) == call(guest, tcp("local-address"), client)
    for one in (*streams, *more, client, accepted, listener):
        one.close()
    assert open_descriptors() <= before
