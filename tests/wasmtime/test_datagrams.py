"""wasi:sockets of our own world: UDP over a broker, as a component calls it; what it is refused and what is bounded."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from wasmlet_wasmtime.p2.instances import Trapped
from wasmlet_wasmtime.p2.sockets.datagrams import Outgoing

from tests.shared.descriptors import open_descriptors
from tests.wasmtime.calling import Loopback, Six, address, call, guest_of, has_ipv6, six, wait


@pytest.fixture
def guest() -> Any:
    return guest_of(Loopback([5353]))


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    """Somebody on the network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(30)
        yield made


def udp(name: str) -> str:
    return f"udp.[method]udp-socket.{name}"


def at(sock: socket.socket) -> Any:
    return address(sock.getsockname()[1])


def bound(guest: Any, port: int) -> Any:
    network = call(guest, "instance-network.instance-network")
    sock = call(guest, "udp-create-socket.create-udp-socket", "ipv4")
    assert call(guest, udp("start-bind"), sock, network, address(port, 0, 0, 0, 0)) is None
    wait(guest, sock)
    assert call(guest, udp("finish-bind"), sock) is None
    return sock


def receive(guest: Any, stream: Any, most: int = 10) -> Any:
    return call(guest, "udp.[method]incoming-datagram-stream.receive", stream, most)


def send(guest: Any, stream: Any, *datagrams: Any) -> Any:
    assert call(guest, "udp.[method]outgoing-datagram-stream.check-send", stream) >= len(datagrams)
    return call(guest, "udp.[method]outgoing-datagram-stream.send", stream, datagrams)


def test_with_a_remote(guest: Any, peer: socket.socket) -> None:
    """Datagrams go there and come from there, and nowhere else."""
    before = open_descriptors()
    sock = bound(guest, 0)
    assert call(guest, udp("remote-address"), sock) == "invalid-state"
    incoming, outgoing = call(guest, udp("stream"), sock, at(peer))
    assert call(guest, udp("remote-address"), sock) == at(peer)
    assert receive(guest, incoming) == []
    assert not incoming.ready()
    assert send(guest, outgoing, (b"one", None), (b"", at(peer)), (b"three", None)) == 3
    assert [peer.recv(100) for _ in range(3)] == [b"one", b"", b"three"]
    _, (port, _) = call(guest, udp("local-address"), sock)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"not for it", ("127.0.0.1", port))
        peer.sendto(b"answer", ("127.0.0.1", port))
        wait(guest, incoming)
        assert receive(guest, incoming) == [(b"answer", at(peer))]
        assert send(guest, outgoing, (b"elsewhere", at(stranger))) == "invalid-argument"
    sock.close()
    assert receive(guest, incoming) == "invalid-state"
    assert open_descriptors() <= before


def test_without_a_remote_each_datagram_says_where_it_goes(guest: Any, peer: socket.socket) -> None:
    before = open_descriptors()
    sock = bound(guest, 0)
    incoming, outgoing = call(guest, udp("stream"), sock, None)
    assert send(guest, outgoing, (b"x", None)) == "invalid-argument"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(30)
        assert send(guest, outgoing, (b"one", at(peer)), (b"two", at(other)), (b"three", at(peer))) == 3
        found, sender = peer.recvfrom(100)
        assert (found, peer.recv(100), other.recv(100)) == (b"one", b"three", b"two")
        peer.sendto(b"back", sender)
        wait(guest, incoming)
        assert receive(guest, incoming) == [(b"back", at(peer))]
    assert send(guest, outgoing, (b"x", address(53, 10, 9, 9, 9))) == "access-denied"
    assert send(guest, outgoing, (b"one", at(peer)), (b"x", address(53, 10, 9, 9, 9))) == 1
    for wrong in (address(0), address(53, 0, 0, 0, 0), ("ipv6", (53, 0, (0,) * 7 + (1,), 0))):
        assert send(guest, outgoing, (b"x", wrong)) == "invalid-argument"
    sock.close()
    assert open_descriptors() <= before


def test_at_a_port_of_the_container(guest: Any, peer: socket.socket) -> None:
    before = open_descriptors()
    sock = bound(guest, 5353)
    local = call(guest, udp("local-address"), sock)
    incoming, outgoing = call(guest, udp("stream"), sock, None)
    peer.sendto(b"question", ("127.0.0.1", local[1][0]))
    wait(guest, incoming)
    assert receive(guest, incoming) == [(b"question", at(peer))]
    assert send(guest, outgoing, (b"answer", at(peer))) == 1
    assert peer.recvfrom(100) == (b"answer", ("127.0.0.1", local[1][0]))
    again = call(guest, udp("stream"), sock, at(peer))
    assert receive(guest, incoming) == "invalid-state"
    assert call(guest, "udp.[method]outgoing-datagram-stream.check-send", outgoing) == "invalid-state"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"not for it", ("127.0.0.1", local[1][0]))
    peer.sendto(b"for it", ("127.0.0.1", local[1][0]))
    wait(guest, again[0])
    found = receive(guest, again[0])
    while not found:
        wait(guest, again[0])
        found = receive(guest, again[0])
    assert found == [(b"for it", at(peer))]
    assert send(guest, again[1], (b"to the remote", None)) == 1
    assert peer.recv(100) == b"to the remote"
    sock.close()
    assert open_descriptors() <= before


def test_what_is_refused(guest: Any, peer: socket.socket) -> None:
    before = open_descriptors()
    network = call(guest, "instance-network.instance-network")
    sock = call(guest, "udp-create-socket.create-udp-socket", "ipv4")
    for name in ("local-address", "remote-address"):
        assert call(guest, udp(name), sock) == "invalid-state"
    assert call(guest, udp("stream"), sock, at(peer)) == "invalid-state"
    assert call(guest, udp("finish-bind"), sock) == "not-in-progress"
    six = "ipv6", (5353, 0, (0,) * 8, 0)
    assert call(guest, udp("start-bind"), sock, network, six) == "invalid-argument"
    assert call(guest, udp("start-bind"), sock, network, address(80)) is None
    wait(guest, sock)
    assert call(guest, udp("finish-bind"), sock) == "access-denied"
    sock.close()
    sock = bound(guest, 0)
    assert call(guest, udp("start-bind"), sock, network, address(5353)) == "invalid-state"
    assert call(guest, udp("stream"), sock, address(53, 10, 9, 9, 9)) == "access-denied"
    for wrong in (address(0), address(53, 0, 0, 0, 0), six):
        assert call(guest, udp("stream"), sock, wrong) == "invalid-argument"
    incoming, outgoing = call(guest, udp("stream"), sock, at(peer))
    assert send(guest, outgoing, (bytes(65_536), None)) == "datagram-too-large"
    peer.close()
    assert send(guest, outgoing, (b"to nobody", None)) == 1
    wait(guest, incoming)
    assert receive(guest, incoming) == "connection-refused"
    sock.close()
    assert open_descriptors() <= before


def test_more_than_check_send_permits_is_a_trap(guest: Any, peer: socket.socket) -> None:
    sock = bound(guest, 0)
    _, outgoing = call(guest, udp("stream"), sock, at(peer))
    with pytest.raises(Trapped, match="check-send"):
        call(guest, "udp.[method]outgoing-datagram-stream.send", outgoing, [(b"x", None)])
    permitted = call(guest, "udp.[method]outgoing-datagram-stream.check-send", outgoing)
    with pytest.raises(Trapped, match="check-send"):
        outgoing.send(guest, [(b"x", None)] * (permitted + 1))
    sock.close()


def test_much_that_comes_and_many_that_are_sent_to_are_bounded(guest: Any, peer: socket.socket) -> None:
    before = open_descriptors()
    sock = bound(guest, 0)
    incoming, outgoing = call(guest, udp("stream"), sock, at(peer))
    _, (port, _) = call(guest, udp("local-address"), sock)
    for _ in range(4):
        peer.sendto(bytes(40_000), ("127.0.0.1", port))
    wait(guest, incoming)
    assert 1 <= len(receive(guest, incoming, 2**64 - 1)) <= 2
    assert receive(guest, incoming, 0) == []
    _, outgoing = call(guest, udp("stream"), sock, None)
    assert isinstance(outgoing, Outgoing)
    held = open_descriptors()
    for number in range(100):
        assert send(guest, outgoing, (b"x", address(9, 127, 9, 9, number))) == 1
    assert open_descriptors() <= held + 32
    sock.close()
    assert open_descriptors() <= before


def test_options(guest: Any, peer: socket.socket) -> None:
    sock = bound(guest, 0)
    assert call(guest, udp("set-unicast-hop-limit"), sock, 0) == "invalid-argument"
    assert call(guest, udp("set-unicast-hop-limit"), sock, 7) is None
    assert call(guest, udp("set-receive-buffer-size"), sock, 0) == "invalid-argument"
    assert call(guest, udp("set-receive-buffer-size"), sock, 30_000) is None
    call(guest, udp("stream"), sock, at(peer))
    assert call(guest, udp("unicast-hop-limit"), sock) == 7
    assert call(guest, udp("receive-buffer-size"), sock) == 30_000
    assert sock.sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 7
    assert call(guest, udp("address-family"), sock) == "ipv4"
    sock.close()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6() -> None:
    guest = guest_of(Six([5353]))
    before = open_descriptors()
    network = call(guest, "instance-network.instance-network")
    server, client = (call(guest, "udp-create-socket.create-udp-socket", "ipv6") for _ in range(2))
    for sock, port in ((server, 5353), (client, 0)):
        assert call(guest, udp("start-bind"), sock, network, six(port)) is None
        wait(guest, sock)
        assert call(guest, udp("finish-bind"), sock) is None
        assert call(guest, udp("set-unicast-hop-limit"), sock, 9) is None
    there = call(guest, udp("local-address"), server)
    questions, answers = call(guest, udp("stream"), server, None)
    incoming, outgoing = call(guest, udp("stream"), client, there)
    assert call(guest, udp("unicast-hop-limit"), client) == 9
    assert send(guest, outgoing, (b"question", None)) == 1
    wait(guest, questions)
    ((data, who),) = receive(guest, questions)
    assert (data, who[0]) == (b"question", "ipv6")
    assert send(guest, answers, (b"answer", who)) == 1
    wait(guest, incoming)
    assert receive(guest, incoming) == [(b"answer", there)]
    for sock in (server, client):
        sock.close()
    assert open_descriptors() <= before
