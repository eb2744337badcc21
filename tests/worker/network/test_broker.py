"""The broker by itself, over real sockets: what a container is given, and what it is not."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.network.spaces import own_namespace
from tests.worker.harness import POD
from tests.worker.network.broker_process import BrokerProcess, Container, broker
from tests.worker.network.dns_server import dns, zone
from wasmlet.worker import wire
from wasmlet.worker.grants import UDP, Grant, Port, Resolver, Rule
from wasmlet.worker.packets import MAX_UNDER_WAY


@pytest.fixture
def server() -> socket.socket:
    """Somebody who listens, at an address of another pod."""
    sock = socket.create_server(("127.9.0.8", 0))
    sock.settimeout(30)
    return sock


def held(it: BrokerProcess, container: Container) -> int:
    """How many descriptors the broker has when it has nothing to do."""
    assert container.error("listen", port=9999) == "EACCES"  # what came before has been done and let go of
    return it.descriptors()


def taken(descriptor: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    return socket.socket(socket.AF_INET, kind, 0, fileno=descriptor)


def test_a_listener_is_bound_and_does_not_listen(python: str) -> None:
    with broker(python) as it:
        container = it.add(Grant(addresses=(POD,), ports=(Port(8080, hosts=((POD, 18080),)),)))
        before = held(it, container)
        answer = container.ask("listen", port=8080)
        assert (answer.error, len(answer.fds)) == (0, 2)
        for descriptor, address in zip(answer.fds, ((POD, 8080), (POD, 18080)), strict=True):
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
        assert held(it, container) == before


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


def test_a_capability_that_was_refused_is_told_of(python: str) -> None:
    with broker(python) as it:
        container = it.add(Grant(addresses=(POD,)))
        for name in ("acme:none", "acme:none", "a\nb"):
            assert container.error("use", name=name) == "EACCES"
        for name in ("", "x" * 10_000, 5):
            assert container.error("use", name=name) in ("EPROTO", "ENAMETOOLONG")
        assert [it.hear_refused() for _ in range(2)] == ["capability acme:none", "capability a?b"]


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
        undeclared = "(none of the ports that it declares)"
        assert [it.hear_refused() for _ in range(11)] == [
            f"capability port 8081/TCP {undeclared}", f"capability port 8080/UDP {undeclared}",
            "127.9.0.8:1001", "127.10.0.1:80", "127.9.3.1:80", "127.9.0.1:250",
            "169.254.169.254:80", "0.0.0.0:80", "example.org:1443", "a.example.org:1080", "[fe80::1]:80",
        ]  # fmt: skip
        assert container.error("connect", host="127.9.0.8", port=999) == "ECONNREFUSED"
        assert container.error("connect", host="a.example.org", port=443) == "EHOSTDOWN"  # it has no DNS server
        assert container.error("connect", host="a b", port=443) == "ENOENT"


def test_the_nodes_api_is_not_dialled_wherever_it_is_now(python: str) -> None:
    with socket.create_server(("127.9.0.8", 0)) as server, broker(python) as it:
        port = server.getsockname()[1]
        container = it.add(Grant(addresses=(POD,), egress=(Rule(name="*"),), never_at=(("127.9.0.9", port),)))
        assert container.error("connect", host="127.9.0.9", port=port) == "EACCES"
        # What listens at a port of one address of the node listens there at all of them.
        assert container.error("connect", host="127.9.0.8", port=port) == "EACCES"
        other = it.add(Grant(addresses=(POD,), egress=(Rule(name="*"),)))
        assert other.error("connect", host="127.9.0.8", port=port) == ""
        for rubbish in (7, [["x", port]], [[port]]):
            it.say({"never": rubbish})
        it.say({"never": [["127.9.0.7", port]]})
        assert other.error("connect", host="127.9.0.8", port=port) == "EACCES"
        it.say({"never": [["127.9.0.7", 1]]})  # it has moved
        assert other.error("connect", host="127.9.0.8", port=port) == ""
        # A container goes on to leave alone where it was when it started.
        assert container.error("connect", host="127.9.0.8", port=port) == "EACCES"


def test_a_ceiling_of_names_does_not_hold_for_names_that_the_pod_leads_elsewhere(python: str) -> None:
    hosts = {"x.example.org": ("127.9.0.8",)}
    ceiling = (Rule(name="*.example.org"), Rule(cidr="127.8.0.0/16"))
    chosen = Resolver(hosts=hosts, chosen=True)
    grant = Grant(addresses=(POD,), egress=(Rule(name="*"),), ceiling=ceiling, resolver=chosen)
    with broker(python) as it:
        assert it.add(grant).error("connect", host="x.example.org", port=9) == "EACCES"
        assert it.add(grant).error("connect", host="127.9.0.8", port=9) == "EACCES"
        within = grant._replace(ceiling=(Rule(cidr="127.9.0.0/16"),))
        assert it.add(within).error("connect", host="x.example.org", port=9) == "ECONNREFUSED"
        everything = grant._replace(ceiling=(Rule(name="*"),))
        assert it.add(everything).error("connect", host="x.example.org", port=9) == "ECONNREFUSED"
        the_nodes = grant._replace(resolver=Resolver(hosts=hosts))
        assert it.add(the_nodes).error("connect", host="x.example.org", port=9) == "ECONNREFUSED"


ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="namespaces are for root")


def test_what_nobody_dials_at_any_address_of_the_node(python: str) -> None:
    """Who listens at all addresses of the node listens at those of pods, too, and at those that it does not tell."""
    with socket.create_server(("", 0)) as kubelet, broker(python) as it:
        port = kubelet.getsockname()[1]
        grant = Grant(addresses=(POD,), egress=(Rule(name="*"),), never_at=(("192.0.2.1", port),))
        container = it.add(grant)
        for host in (POD, "127.9.0.8", "127.0.0.1", "192.0.2.1", "::ffff:127.9.0.8"):
            assert container.error("connect", host=host, port=port) == "EACCES"
        assert it.add(grant._replace(never_at=())).error("connect", host=POD, port=port) == ""


@ROOT_ONLY
def test_a_port_of_udp_in_a_namespace(python: str) -> None:
    with broker(python) as it, ThreadPoolExecutor(1) as thread:
        space = own_namespace()
        thread.submit(space.__enter__).result()
        here = thread.submit(os.open, "/proc/thread-self/ns/net", os.O_RDONLY).result()
        try:
            # What it may send to anybody from is in the pod's namespace only, whatever the grant says of the node.
            grant = Grant("/netns/a", ("10.9.0.2",), (Port(53, "", UDP, (("127.0.0.1", 15353),)),))
            container = it.add(grant, here)
            answer = container.ask("listen", port=53, protocol=UDP)
            assert (answer.error, len(answer.fds)) == (0, 1)
            client = thread.submit(socket.socket, socket.AF_INET, socket.SOCK_DGRAM).result()
            client.settimeout(30)
            with client, taken(answer.fds[0], socket.SOCK_DGRAM) as server:
                assert server.getsockname() == ("0.0.0.0", 53)
                client.sendto(b"x", ("127.0.0.1", 53))
                assert select.select([server], [], [], 30)[0]
                data, peer = server.recvfrom(10)
                server.sendto(data, peer)
                assert client.recv(10) == b"x"
            assert it.add(grant, here, datagrams=False).error("listen", port=53, protocol=UDP) == "EPROTONOSUPPORT"
            assert it.add(grant).error("listen", port=53, protocol=UDP) == "ENETDOWN"
            assert it.add(grant, os.memfd_create("none")).error("listen", port=53, protocol=UDP) == "EINVAL"
        finally:
            os.close(here)
            thread.submit(space.__exit__, None, None, None).result()


@ROOT_ONLY
def test_ports_below_1024_of_root() -> None:
    with broker() as it:
        assert it.add(Grant(addresses=(POD,), ports=(Port(81),))).error("listen", port=81) == ""


@pytest.mark.skipif(os.getuid() == 0, reason="root may have any port")
def test_ports_below_1024() -> None:
    with broker() as it:
        assert it.add(Grant(addresses=(POD,), ports=(Port(81),))).error("listen", port=81) == "EACCES"


RUBBISH = [
    b"{", b"[]", b"null", b"\xff" * 100, b"x" * 4096, b"x" * 60000, b"[" * 4096, b'{"n": -1, "ask": "listen"}',
    b'{"n": 1.5, "ask": "listen"}', b'{"n": true, "ask": "listen"}', b'{"ask": "listen", "port": 8080}',
    b'{"n": 1, "ask": ["listen"]}', b'{"n": 1, "ask": "listen"}', b'{"n": 1, "ask": "listen", "port": 65536}',
    b'{"n": 1, "ask": "listen", "port": 8080, "protocol": "SCTP"}', b'{"n": 1, "ask": "connect", "port": 80}',
    b'{"n": 1, "ask": "connect", "host": ["a"], "port": 80}', b'{"n": 1, "ask": "resolve", "name": 5}',
    b'{"n": 1, "ask": "resolve", "name": ""}', b'{"n": 1, "add": "x", "grant": {}}',
    b'{"n": 1, "ask": "resolve", "name": "' + b"x" * 1000 + b'"}',
]  # fmt: skip


def test_rubbish_is_answered_and_does_no_harm(python: str) -> None:
    with broker(python) as it:
        container, other = (it.add(Grant(addresses=(POD,), ports=(Port(8080),))) for _ in range(2))
        assert other.error("listen", port=8080) == ""
        before = held(it, other)
        for packet in RUBBISH:
            container.raw(packet)
            answer = container.next()
            assert answer["error"] == "EPROTO", packet
        for _ in range(100):  # descriptors that nobody wants
            container.raw(b'{"n": 5}', [0, 1, 2])
            assert container.next()["error"] == "EPROTO"
        assert container.error("resolve", name="x" * 300) == "ENOENT"
        assert container.error("listen", port=8080) == ""
        assert held(it, other) == before
        container.raw(b"")  # which looks as if the container had left
        with pytest.raises(EOFError):
            container.next()
        assert container.error("listen", port=8080) == "EPIPE"
        assert other.error("listen", port=8080) == ""
        it.remove(container)
        assert other.error("listen", port=8080) == ""
        assert held(it, other) == before - 1


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text(max_size=9)
        | st.sampled_from(["listen", "n"]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["n", "ask", "port", "host"]), inner)
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode())
)
@settings(max_examples=200, deadline=None)
def test_any_packet_is_answered(shared: BrokerProcess, packet: bytes) -> None:
    if not packet:
        return
    container = shared.add(Grant(addresses=(POD,)))
    container.raw(packet)
    container.raw(b'{"n": 77, "ask": "listen", "port": 1}')
    while (answer := container.next())["re"] != 77:
        assert answer["error"]
    assert answer["error"] == "EACCES"
    shared.remove(container)
    container.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[BrokerProcess]:
    with broker() as it:
        yield it


def test_ten_thousand_requests_of_one_that_reads_nothing(python: str) -> None:
    """It is served no more than it reads; others are served beside it, and the broker takes no more memory."""
    with broker(python) as it:
        flood, other = (it.add(Grant(addresses=(POD,), ports=(Port(8080),))) for _ in range(2))
        assert other.error("listen", port=8080) == ""
        before, descriptors = it.memory(), held(it, other)
        flood.control.setblocking(False)
        sent = 0
        for number in range(10_000):
            try:
                flood.raw(json.dumps({"n": number, "ask": "listen", "port": 8080}).encode())
                sent += 1
            except BlockingIOError:
                assert other.error("listen", port=8080) == ""
                break
        assert 100 < sent < 10_000
        assert other.error("listen", port=8080) == ""
        assert held(it, other) <= descriptors + 1
        assert it.memory() - before < 4 << 20
        flood.control.setblocking(True)
        for _ in range(sent):
            assert "error" not in flood.next()


def test_requests_under_way_are_bounded(python: str) -> None:
    with dns(lambda query: None) as server, broker(python, server.port) as it:
        grant = Grant(addresses=(POD,), egress=(Rule(name="*"),), resolver=Resolver((server.address,), timeout=1))
        container, other = it.add(grant), it.add(grant._replace(ports=(Port(8080),)))
        for number in range(200):
            container.raw(json.dumps({"n": number, "ask": "resolve", "name": f"a{number}"}).encode())
        refused = [container.next() for _ in range(200 - MAX_UNDER_WAY)]
        assert {answer["error"] for answer in refused} == {"EAGAIN"}
        assert [answer["re"] for answer in refused] == list(range(MAX_UNDER_WAY, 200))
        assert other.error("listen", port=8080) == ""
        assert {container.next()["error"] for _ in range(MAX_UNDER_WAY)} == {"EHOSTDOWN"}
        assert container.error("resolve", name="a") == "EHOSTDOWN"
        assert len(server.queries) == (MAX_UNDER_WAY + 1) * 2


def test_what_is_under_way_ends_with_its_container(python: str) -> None:
    with dns(lambda query: None) as server, broker(python, server.port) as it:
        grant = Grant(addresses=(POD,), egress=(Rule(name="*"),), resolver=Resolver((server.address,), timeout=30))
        other = it.add(grant._replace(ports=(Port(8080),)))
        assert other.error("listen", port=8080) == ""
        before = held(it, other)
        container = it.add(grant)
        for number in range(10):
            container.raw(json.dumps({"n": number, "ask": "resolve", "name": f"a{number}"}).encode())
        while len(server.queries) < 10:
            time.sleep(0.01)
        assert held(it, other) == before + 11
        container.sockets.close()
        container.control.close()
        until = time.monotonic() + 30
        while held(it, other) != before:
            assert time.monotonic() < until


def test_several_connects_at_once_and_one_that_nobody_answers(python: str) -> None:
    """A full backlog answers nothing; what is asked after it is answered before it."""
    with socket.socket() as silent, socket.create_server(("127.9.0.8", 0)) as server, broker(python) as it:
        silent.bind(("127.9.0.9", 0))
        silent.listen(0)
        full = [socket.socket() for _ in range(8)]
        for sock in full:
            sock.setblocking(False)
            sock.connect_ex(silent.getsockname())
        container = it.add(Grant(addresses=(POD,), egress=(Rule(cidr="127.9.0.0/16"),)))
        waiting = container.sockets.begin("connect", host="127.9.0.9", port=silent.getsockname()[1])
        for _ in range(20):
            assert container.error("connect", host="127.9.0.8", port=server.getsockname()[1]) == ""
        assert container.sockets.take(waiting) is None
        for sock in full:
            sock.close()


def test_the_next_address_is_tried_while_one_does_not_answer() -> None:
    with socket.socket() as silent, socket.create_server(("127.9.0.8", 0)) as server:
        silent.bind(("127.9.0.9", server.getsockname()[1]))
        silent.listen(0)
        full = [socket.socket() for _ in range(8)]
        for sock in full:
            sock.setblocking(False)
            sock.connect_ex(silent.getsockname())
        with dns(zone({"www": ["127.9.0.99", "127.9.0.9", "127.9.0.8"]})) as names, broker(dns_port=names.port) as it:
            resolver = Resolver((names.address,))
            container = it.add(Grant(addresses=(POD,), egress=(Rule(name="www"),), resolver=resolver))
            began = time.monotonic()
            answer = container.ask("connect", host="www", port=server.getsockname()[1])
            assert answer.fields["peer"][0] == "127.9.0.8"
            assert time.monotonic() - began < 20
            wire.close(answer.fds)
        for sock in full:
            sock.close()
