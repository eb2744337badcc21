"""The broker by itself, over real sockets: what a container is given, and what it is not."""

from __future__ import annotations

import os
import socket

import pytest

from tests.worker.broker_process import broker
from wasmlet.worker import wire
from wasmlet.worker.grants import UDP, Grant, Port, Rule

POD = "127.9.0.7"


@pytest.fixture
def server() -> socket.socket:
    """Somebody who listens, at an address of another pod."""
    sock = socket.create_server(("127.9.0.8", 0))
    sock.settimeout(30)
    return sock


def taken(descriptor: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    return socket.socket(socket.AF_INET, kind, 0, fileno=descriptor)


def test_a_listener_is_bound_and_does_not_listen(python: str) -> None:
    with broker(python) as it:
        container = it.add(Grant(addresses=(POD,), ports=(Port(8080, hosts=(("127.9.1.1", 18080),)),)))
        assert container.error("listen", port=8081) == "EACCES"
        before = it.descriptors()
        answer = container.ask("listen", port=8080)
        assert (answer.error, len(answer.fds)) == (0, 2)
        for descriptor, address in zip(answer.fds, ((POD, 8080), ("127.9.1.1", 18080)), strict=True):
            with taken(descriptor) as listener:
                assert listener.getsockname() == address
                assert not os.get_blocking(descriptor)
                assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address, 5)
                listener.listen()
                with socket.create_connection(address, 5):
                    pass
        # The next one has the port at once: nobody else has kept it.
        again = container.ask("listen", port=8080)
        assert again.error == 0
        wire.close(again.fds)
        assert container.error("listen", port=8081) == "EACCES"
        assert it.descriptors() == before


def test_what_is_connected(python: str, server: socket.socket) -> None:
    with server, broker(python) as it:
        port = server.getsockname()[1]
        container = it.add(Grant(addresses=(POD,), egress=(Rule(cidr="127.9.0.0/16", first=port, last=port),)))
        answer = container.ask("connect", host="127.9.0.8", port=port)
        assert answer.error == 0
        (descriptor,) = answer.fds
        accepted, peer = server.accept()
        with accepted, taken(descriptor) as ours:
            assert peer[0] == POD
            assert answer.fields["local"] == list(peer)
            assert answer.fields["peer"] == ["127.9.0.8", port]
            assert not os.get_blocking(descriptor)
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            os.write(descriptor, b"hello")
            assert accepted.recv(100) == b"hello"
        server.close()
        assert container.error("connect", host="127.9.0.8", port=port) == "ECONNREFUSED"


def test_a_connected_socket_of_udp(python: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, broker(python) as it:
        other.bind(("127.9.0.8", 0))
        other.settimeout(30)
        container = it.add(Grant(addresses=(POD,), egress=(Rule(cidr="127.9.0.8/32"),), ports=(Port(53, "", UDP),)))
        answer = container.ask("connect", host="127.9.0.8", port=other.getsockname()[1], protocol=UDP)
        assert answer.error == 0
        os.write(answer.fds[0], b"hello")
        assert other.recvfrom(100) == (b"hello", tuple(answer.fields["local"]))
        wire.close(answer.fds)


def test_what_was_not_granted(python: str) -> None:
    grant = Grant(
        addresses=(POD,),
        ports=(Port(8080),),
        egress=(Rule(name="*"), Rule(cidr="127.0.0.0/8")),
        ceiling=(Rule(name="*.example.org", first=443, last=443), Rule(cidr="127.8.0.0/15", first=1, last=1000)),
        never=("127.9.3.0/24",),
        never_at=(("127.9.0.1", 250),),
    )
    with broker(python) as it:
        container = it.add(grant)
        assert container.error("listen", port=8081) == "EACCES"
        assert container.error("listen", port=8080, protocol=UDP) == "EACCES"
        denied = [
            ("127.9.0.8", 1001), ("127.10.0.1", 80), ("127.9.3.1", 80), ("127.9.0.1", 250), ("::ffff:127.9.3.1", 80),
            ("169.254.169.254", 80), ("0.0.0.0", 80), ("example.org", 1443), ("a.example.org", 1080), ("fe80::1", 80),
        ]  # fmt: skip
        for host, port in denied:
            assert container.error("connect", host=host, port=port) == "EACCES", host
            assert container.error("connect", host=host, port=port) == "EACCES", host
        assert [it.hear_refused() for _ in range(9)] == [
            "127.9.0.8:1001", "127.10.0.1:80", "127.9.3.1:80", "127.9.0.1:250",
            "169.254.169.254:80", "0.0.0.0:80", "example.org:1443", "a.example.org:1080", "[fe80::1]:80",
        ]  # fmt: skip
        assert container.error("connect", host="127.9.0.8", port=999) == "ECONNREFUSED"
        assert container.error("connect", host="a.example.org", port=443) == "EHOSTDOWN"  # it has no DNS server
        assert container.error("connect", host="a b", port=443) == "ENOENT"
